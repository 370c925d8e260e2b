"""An artifact in a process of its own, for sources that are split to use several processors.

The parent sends a `Job` and receives events, then the report, over a socket: the standard input of
the child. Both ends are the same program, and nobody else has the socket, so pickles will do; no
secret is in an argument or a file. When the parent goes away, or wants the work to stop, the child
sees the end of the socket, and aborts.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from multiprocessing.connection import Connection

import anyio

from pipeline import children, registry
from pipeline.branch import describe
from pipeline.engine import ArtifactRun, RunIdentity
from pipeline.errors import SourceError, root_causes
from pipeline.events import EventBus
from pipeline.graph import compile_backup
from pipeline.malloc import Trimmer
from pipeline.redact import Redactor
from pipeline.registry import Storages
from pipeline.report import ArtifactReport, Outcome
from pipeline.segment import GRACE, run_in_thread
from pipeline.stage import Artifact, Source
from schemas.modules import extend
from schemas.pipeline import Pipeline

COMMAND = "worker"
"""Name of the command that the child runs as; not for people."""


@dataclass(frozen=True)
class Job:
    """One artifact of a backup."""

    pipeline: Pipeline
    backup: str
    artifact: str
    identity: RunIdentity
    redactor: Redactor
    modules: tuple[str, ...] = ()
    """Files of modules, without which the rest of this could not be understood."""


class Worker:
    """The parent's end; `run` in a thread, `stop` from any."""

    def __init__(self, job: Job, bus: EventBus) -> None:
        self._job = job
        self._bus = bus
        self._socket: socket.socket | None = None
        self._stopped = False
        self.report = ArtifactReport(job.artifact, Outcome.INTERRUPTED, "interrupted")

    def run(self) -> None:
        """Have it done; however it ends, `report` tells."""
        ours, theirs = socket.socketpair()
        with ours:
            self._socket = ours
            if self._stopped:
                theirs.close()
                return
            with theirs:
                process = _start(theirs)
            children.add(process.pid)
            try:
                self._listen(ours)
            except (EOFError, OSError):
                self._explain(_ended(process))
            finally:
                _ended(process)
                children.discard(process.pid)

    def stop(self) -> None:
        """Let the child abort, and say so; it leaves nothing behind."""
        self._stopped = True
        try:
            if self._socket is not None:
                self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            return  # it has ended already

    def _listen(self, ours: socket.socket) -> None:
        with Connection(os.dup(ours.fileno())) as connection:
            connection.send(self._job.modules)
            connection.send(self._job)
            while not isinstance(message := connection.recv(), ArtifactReport):
                self._bus.emit(message)
            self.report = message

    def _explain(self, how: str) -> None:
        """The child has not told how it ended."""
        if not self._stopped:
            self.report.outcome = Outcome.FAILED
            self.report.error = f'the process of "{self._job.artifact}" {how}'


def _start(stdin: socket.socket) -> subprocess.Popen[bytes]:
    archive = os.environ.get("NXS_BACKUP_PYZ")
    start = [archive] if archive else ["-m", "pipeline"]
    return subprocess.Popen(
        [sys.executable, *start, COMMAND],
        stdin=stdin.fileno(),
        stdout=subprocess.DEVNULL,
        env=os.environ if archive else os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        start_new_session=True,  # the signals of the terminal are for us
    )


def _ended(process: subprocess.Popen[bytes]) -> str:
    """See to it that it has ended; how it did."""
    try:
        process.wait(GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    code = process.returncode
    return f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"


def serve() -> None:
    """The child's end: receive a job, do it, send the report."""
    with Connection(os.dup(sys.stdin.fileno())) as connection:
        registry.add(extend(connection.recv()).components)
        job: Job = connection.recv()
        try:
            report = anyio.run(_work, job, connection, backend="asyncio")
        except Exception as group:
            error = next(root_causes(group), group)
            report = ArtifactReport(job.artifact, Outcome.FAILED, describe(error))
        try:
            connection.send(report)
        except OSError:
            return  # the parent is gone


async def _work(job: Job, connection: Connection) -> ArtifactReport:
    storages = Storages(job.pipeline.storages)
    plan = compile_backup(job.pipeline, job.backup, storages)
    bus = EventBus(Trimmer(), connection.send, redactor=job.redactor)
    async with anyio.create_task_group() as group:
        artifact = await run_in_thread("plan", lambda: _find(plan.source, job.artifact))
        run = ArtifactRun(plan, artifact, job.identity, bus)
        group.start_soon(_heed_parent, connection, group.cancel_scope)
        await run.run()
        group.cancel_scope.cancel()
    await run_in_thread("close", storages.close)
    return run.report()


def _find(source: Source, name: str) -> Artifact:
    for artifact in source.artifacts():
        if artifact.name == name:
            return artifact
    raise SourceError(f'"{name}" is not there any more')


async def _heed_parent(connection: Connection, scope: anyio.CancelScope) -> None:
    """Abort when the parent closes its end."""
    await run_in_thread("parent", lambda: _wait_for_end(connection), grace=0)
    scope.cancel()


def _wait_for_end(connection: Connection) -> None:
    try:
        connection.recv()
    except (EOFError, OSError):
        return
