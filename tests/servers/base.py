"""Real servers for tests: private directory, free loopback port, unprivileged, no survivors."""

from __future__ import annotations

import atexit
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

IS_ROOT = os.geteuid() == 0
UID, GID = (65534, 65534) if IS_ROOT else (os.geteuid(), os.getegid())
"""Who the servers run as: nobody when the tests run as root, else the same user."""
HOST = "127.0.0.1"

_LAUNCHER = Path(__file__).with_name("_launch.py")
_READY_SECONDS = 30.0
_STOP_SECONDS = 8.0
_ATTEMPTS = 3


class ServerFailed(Exception):
    """A server did not start; carries the end of its log."""


@contextmanager
def one_at_a_time(name: str) -> Iterator[None]:
    """Tests in several processes make what they share one after the other."""
    build = Path(__file__).resolve().parents[2] / "build"
    build.mkdir(exist_ok=True)
    with open(build / f"{name}.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def free_port() -> int:
    """A TCP port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def find_program(*candidates: str) -> str:
    """The first of these programs that exists, as a path.

    Raises:
        ServerFailed: none does; the tests need it, they do not skip.
    """
    for candidate in candidates:
        found = shutil.which(candidate, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
        if found:
            return found
    raise ServerFailed(f"none of {', '.join(candidates)} is installed")


def process_tree(pid: int) -> dict[int, str]:
    """The process and its descendants: pid to start time (a reused pid has another one)."""
    children: dict[int, list[int]] = {}
    started: dict[int, str] = {}
    for entry in os.listdir("/proc"):
        stat = _stat_fields(int(entry)) if entry.isdigit() else None
        if stat:
            children.setdefault(int(stat[1]), []).append(int(entry))
            started[int(entry)] = stat[19]
    tree: dict[int, str] = {}
    todo = [pid] if pid in started else []
    while todo:
        current = todo.pop()
        tree[current] = started[current]
        todo += children.get(current, [])
    return tree


def _stat_fields(pid: int) -> list[str] | None:
    """Fields of /proc/PID/stat after the name: state, parent, ...; None when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def signal_processes(processes: dict[int, str], number: signal.Signals) -> None:
    """Send a signal to those of these processes that are still the ones we saw."""
    for pid, started in processes.items():
        stat = _stat_fields(pid)
        if stat and stat[19] == started:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue


@contextmanager
def small_disk(server: Server, mib: int = 16) -> Iterator[bool]:
    """Give a server that was not started yet a data directory with little room.

    Where we may not mount, no single file of the server may grow beyond it instead.

    Yields:
        Whether the disk is really small. The server is killed at the end.
    """
    options = f"size={mib}m,uid={UID},gid={GID},mode=755"
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(server.data)]
    mounted = IS_ROOT and not subprocess.run(mount, stderr=subprocess.DEVNULL).returncode
    if not mounted:
        server.fsize = mib << 20
    try:
        server.start()
        yield mounted
        server.kill()
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(server.data)], check=True)
        server.stop()


class Server(ABC):
    """One server process (and its children) with everything it needs in one directory.

    Use it as a context manager, or call `start` and `stop`. It can be started again after `kill`.
    """

    name = "server"
    fsize: int | None = None
    """No file it writes may grow beyond this, in bytes: like a full disk, without mounting one."""

    def __init__(self) -> None:
        # Not pytest's tmp_path: that is closed to other users.
        self.dir = Path(tempfile.mkdtemp(prefix=f"nxs-{self.name}-"))
        self.dir.chmod(0o755)
        self.data = self.dir / "data"
        self.data.mkdir()
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None
        atexit.register(self.stop)

    @abstractmethod
    def configure(self) -> None:
        """Write what the server needs to listen on `self.port`; called before each start."""

    @abstractmethod
    def command(self) -> list[str]:
        """Program (an absolute path) and arguments; it must stay in the foreground."""

    def environment(self) -> dict[str, str]:
        """Variables added for the server."""
        return {}

    def is_ready(self) -> bool:
        """Whether it answers; by default, whether it accepts a connection. May raise OSError."""
        with socket.create_connection((HOST, self.port), 1):
            return True

    def log(self) -> str:
        """The end of what the server said."""
        path = self.dir / "server.log"
        return path.read_text(errors="replace")[-2000:] if path.exists() else ""

    def start(self) -> None:
        for attempt in range(_ATTEMPTS):
            if attempt or not self.port:
                self.port = free_port()
            self.configure()
            self.own()
            self._spawn()
            if self._wait_ready():
                return
            self.kill()
        raise ServerFailed(f"{self.name} did not start: {self.log()}")

    def own(self) -> None:
        """Give everything in its directory to the user it runs as."""
        if IS_ROOT:
            for path in (self.dir, *self.dir.rglob("*")):
                os.chown(path, UID, GID, follow_symlinks=False)

    def _spawn(self) -> None:
        options = {
            "parent": os.getpid(),
            "uid": UID if IS_ROOT else None,
            "gid": GID,
            "fsize": self.fsize,
            "patience": _STOP_SECONDS,
        }
        argv = [sys.executable, "-I", "-S", str(_LAUNCHER), json.dumps(options), *self.command()]
        with open(self.dir / "server.log", "ab") as log:
            self._process = subprocess.Popen(
                argv,
                env={**os.environ, **self.environment()},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.dir,
                start_new_session=True,
            )

    def _wait_ready(self) -> bool:
        deadline = time.monotonic() + _READY_SECONDS
        while self._process and self._process.poll() is None and time.monotonic() < deadline:
            try:
                if self.is_ready():
                    return True
            except OSError:
                pass  # Not listening yet.
            time.sleep(0.01)
        return False

    def processes(self) -> dict[int, str]:
        """The server and its descendants, without the launcher above them."""
        tree = process_tree(self._process.pid) if self._process else {}
        return {pid: started for pid, started in tree.items() if pid != self._launcher}

    @property
    def _launcher(self) -> int | None:
        return self._process.pid if self._process else None

    def kill(self) -> None:
        """End the server and its sessions at once, as a crash or a power cut would."""
        self.freeze()  # So that no child is born while we count them.
        signal_processes(self.processes(), signal.SIGKILL)
        if self._process:
            self._process.wait()  # The launcher goes with the server.
            self._process = None

    def freeze(self) -> None:
        """Stop the server and its sessions in their tracks; connections stay open and silent."""
        seen: dict[int, str] = {}
        while (tree := self.processes()) != seen:
            signal_processes(tree, signal.SIGSTOP)
            seen = tree

    def thaw(self) -> None:
        signal_processes(self.processes(), signal.SIGCONT)

    def stop(self) -> None:
        """End it and everything it started, and remove its directory. May be called again."""
        if self._process:
            self._process.terminate()  # The launcher ends the server and what came of it.
            self._process.wait()
            self._process = None
        atexit.unregister(self.stop)
        shutil.rmtree(self.dir, ignore_errors=True)

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
