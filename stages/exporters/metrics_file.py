"""A file of metrics for the textfile collector of node_exporter.

See https://github.com/prometheus/node_exporter#textfile-collector: the file has to appear as a
whole, under a name that ends with `.prom`.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import stat
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import NotifierError
from pipeline.metrics import Sample, measure, merge, parse, render
from pipeline.report import RunReport
from pipeline.segment import run_in_thread
from pipeline.stage import Exporter
from schemas.pipeline import Pipeline

_LARGEST = 32 << 20
"""What is read of an old file at most, in bytes."""
_LOCK_SECONDS = 4.0


class MetricsFile(Exporter):
    """Replaces the file; what it says about backups that did not run now is kept."""

    def __init__(self, pipeline: Pipeline) -> None:
        assert pipeline.metrics is not None
        assert pipeline.metrics.file is not None
        self._path = Path(pipeline.metrics.file)
        self._known = storages_of(pipeline)

    async def export(self, report: RunReport) -> None:
        samples = measure(report)
        await run_in_thread("metrics file", lambda: self._replace(samples), grace=0)

    async def probe(self) -> Sequence[str]:
        return await run_in_thread("metrics file", self._look, grace=0)

    def _replace(self, samples: Sequence[Sample]) -> None:
        part = self._path.with_name(f".{self._path.name}.{secrets.token_hex(4)}.part")
        try:
            # Two runs that end at once must not forget each other.
            with _locked(self._path.parent):
                text = render(merge(samples, parse(_read(self._path)), self._known))
                try:
                    _write(part, text)
                    os.replace(part, self._path)
                finally:
                    part.unlink(missing_ok=True)
        except OSError as error:
            raise self._unusable("written", error) from None

    def _look(self) -> list[str]:
        try:
            _read(self._path)
        except OSError as error:
            raise self._unusable("read", error) from None
        if not os.access(self._path.parent, os.W_OK | os.X_OK):
            raise NotifierError(
                f'the directory of "{self._path}" cannot be written',
                "the user that runs the backups needs to write there",
            )
        return [f'the directory of "{self._path}" can be written']

    def _unusable(self, done: str, error: OSError) -> NotifierError:
        reason = (error.strerror or "unknown error").lower()
        return NotifierError(f'"{self._path}" cannot be {done}: {reason}', "look at its directory")


def storages_of(pipeline: Pipeline) -> Mapping[str, Collection[str]]:
    """The storages of each backup."""
    return {
        name: {branch.storage for branch in pipeline.backup(name).fan_out}
        for name in pipeline.backups
    }


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Hold the directory: the file itself is replaced, so a lock on it would be on another one."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        deadline = time.monotonic() + _LOCK_SECONDS
        while not _lock(fd):
            if time.monotonic() > deadline:
                raise NotifierError(
                    f'"{directory}" is locked by another program', "no metrics were written"
                )
            time.sleep(0.02)
        yield
    finally:
        os.close(fd)


def _lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read(path: Path) -> str:
    """What a file says, nothing when there is none.

    Raises:
        OSError: it cannot be read.
    """
    try:
        # Whatever else may be there, such as a pipe, must not make us wait.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return ""
    with open(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise FileExistsError(0, "is no regular file")
        return file.read(_LARGEST).decode("utf-8", "replace")


def _write(path: Path, text: str) -> None:
    with open(path, "xb") as file:
        os.fchmod(file.fileno(), 0o644)  # whatever the umask: node_exporter runs as another user
        file.write(text.encode("utf-8"))
        file.flush()
        os.fsync(file.fileno())


COMPONENT = MetricsFile
