"""A program in a terminal of its own, for tests that talk to it."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

PATIENCE = 60.0
"""Seconds until a program is taken for one that hangs."""


class Terminal:
    """Starts a program, shows what it writes, and types.

    Args:
        command: program and arguments.
        cwd: its working directory.
        environ: variables added to those of this process.
    """

    def __init__(
        self, command: Sequence[str], cwd: Path, environ: Mapping[str, str] | None = None
    ) -> None:
        self._screen, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 50, 200, 0, 0))
        self.process = subprocess.Popen(
            # It becomes the controlling terminal, so that Ctrl-C is a signal.
            ["setsid", "--ctty", "--wait", *command],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=cwd,
            env={**os.environ, "TERM": "dumb", **(environ or {})},
        )
        os.close(theirs)
        self.seen = ""
        self._from = 0

    def expect(self, text: str) -> str:
        """Wait until it writes a text; what it wrote since the last one, that text included."""
        deadline = time.monotonic() + PATIENCE
        while text not in self.seen[self._from :]:
            if not self._read(deadline - time.monotonic()):
                raise AssertionError(f"no {text!r} in {self.seen[self._from :]!r}")
        start = self._from
        self._from = self.seen.index(text, start) + len(text)
        return self.seen[start : self._from]

    def type(self, keys: str) -> None:
        """Press keys; Enter is a newline."""
        os.write(self._screen, keys.encode())

    def wait(self) -> int:
        """Its exit code, once it has ended."""
        deadline = time.monotonic() + PATIENCE
        while self._read(deadline - time.monotonic()):
            pass
        return self.process.wait(max(1.0, deadline - time.monotonic()))

    def close(self) -> None:
        """End it, if it still runs."""
        os.close(self._screen)
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *ending: object) -> None:
        self.close()

    def _read(self, patience: float) -> bool:
        """More of what it writes; false when it has ended, or says nothing."""
        if not select.select([self._screen], [], [], max(0.0, patience))[0]:
            return False
        try:
            data = os.read(self._screen, 1 << 16)
        except OSError:
            return False  # the other end is closed
        self.seen += data.decode(errors="replace")
        return bool(data)
