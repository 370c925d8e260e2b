"""Runs the program from the sources, and shows what it wrote as its readers would see it."""

from __future__ import annotations

import fcntl
import json
import os
import select
import socket
import struct
import subprocess
import sys
import termios
import textwrap
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.display import Display
from tests.e2e.program import wait_for

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60
WAITING = "printf data; touch begun; while [ ! -e go ]; do sleep 0.02; done"
"""A source that has begun, and goes on when the file `go` appears."""


class Setup:
    """A folder with a configuration, and ways to start the program on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def configure(self, log: str = "", command: str = "echo data", more: str = "") -> None:
        """One backup, `crm`, of a shell command to two folders; each test is a project."""
        text = f"""\
            name: {self.folder.name}-{os.getpid()}
            storages:
              nas: {{type: local, path: {self.folder}/nas}}
              offsite: {{type: local, path: {self.folder}/offsite}}
            backups:
              crm:
                source:
                  type: command
                  command: [sh, -c, {json.dumps(command)}]
                  env: {{PASSWORD: "${{CANARY:-none}}"}}
                fan_out: [{{storage: nas}}, {{storage: offsite, required: false}}]
        """
        text = textwrap.dedent(text) + more + (f"log: {log}\n" if log else "")
        path = self.folder / "pipeline.yaml"
        path.write_text(text)
        path.chmod(0o600)
        for name in ("nas", "offsite"):
            (self.folder / name).mkdir(exist_ok=True)

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "pipeline", "run", "pipeline.yaml", *arguments]
        environ = {"PYTHONPATH": str(ROOT), **options.pop("env", {})}
        kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(
            command, cwd=self.folder, env={**kept, **environ}, **{**pipes, **options}
        )

    def run(self, *arguments: str, **options: Any) -> tuple[int, str, str]:
        process = self.start(*arguments, **options)
        out, err = process.communicate(timeout=PATIENCE)
        return process.returncode, (out or b"").decode(), (err or b"").decode()

    def has(self, name: str) -> bool:
        return (self.folder / name).exists()

    def go(self) -> None:
        (self.folder / "go").touch()


class Pty:
    """The other side of a terminal, as it shows what is written to it."""

    def __init__(self, columns: int, lines: int) -> None:
        self._master, self.theirs = os.openpty()
        size = struct.pack("HHHH", lines, columns, 0, 0)
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, size)
        self.display = Display(columns, lines)
        self.raw = ""

    def read(self) -> bool:
        """Show what has come; false at the end."""
        if not select.select([self._master], [], [], 0.1)[0]:
            return True
        try:
            text = os.read(self._master, 1 << 16).decode()
        except OSError:
            return False
        self.raw += text
        self.display.feed(text.replace("\r\n", "\n"))
        return bool(text)

    def read_until(self, condition: Callable[[], object]) -> None:
        wait_for(lambda: self.read() and condition(), PATIENCE)

    def close(self) -> None:
        os.close(self._master)


@contextmanager
def pty(columns: int = 80, lines: int = 24) -> Iterator[Pty]:
    found = Pty(columns, lines)
    try:
        yield found
    finally:
        found.close()


@contextmanager
def receiver(path: Path) -> Iterator[list[bytes]]:
    """The datagrams that come to a socket while the block runs."""
    found: list[bytes] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ours:
        ours.bind(str(path))

        def receive() -> None:
            while data := ours.recv(1 << 20):
                found.append(data)

        thread = threading.Thread(target=receive)
        thread.start()
        try:
            yield found
        finally:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
                last.sendto(b"", str(path))
            thread.join(PATIENCE)
