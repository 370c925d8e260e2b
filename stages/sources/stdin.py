"""Standard input of this process, as in `mysqldump shop | nxs-backup run shop.yaml`."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import stat
import threading
from collections.abc import Generator, Iterator

from pipeline.context import StageContext
from pipeline.errors import SourceError
from pipeline.stage import CHUNK, Artifact, Source
from schemas.sources import StdinSource


class Stdin(Source):
    """Reads to the end of the input; only the shell knows whether that was complete (`pipefail`).

    Args:
        backup: name of the backup, and of the artifact when it has no other.
        fd: the descriptor to read.
    """

    def __init__(self, spec: StdinSource, backup: str = "stdin", fd: int = 0) -> None:
        self._spec = spec
        self._backup = backup
        self._fd = fd

    def artifacts(self) -> list[Artifact]:
        spec = self._spec
        return [Artifact(spec.name or self._backup, spec.suffix, min_size=spec.min_size)]

    def stream(self, artifact: Artifact, context: StageContext) -> Iterator[bytes]:
        self._refuse_terminal()
        context.expected = self._size()
        with contextlib.suppress(OSError):
            # Not a pipe, or over the user's limit for pipes: slower, not wrong.
            fcntl.fcntl(self._fd, fcntl.F_SETPIPE_SZ, CHUNK)
        parts: list[bytes] = []
        size = 0
        with contextlib.closing(self._reads(context)) as reads:
            for data in reads:
                parts.append(data)
                size += len(data)
                if size >= CHUNK:
                    yield b"".join(parts)
                    parts, size = [], 0
        if parts:
            yield b"".join(parts)

    def probe(self) -> list[str]:
        self._refuse_terminal()
        return ["standard input is connected"]

    def _reads(self, context: StageContext) -> Generator[bytes, None, None]:
        """What the input gives, as it comes; an abort ends the waiting."""
        with contextlib.closing(_Bell()) as bell, context.teardown.calling(bell.ring):
            poll = select.poll()
            poll.register(self._fd, select.POLLIN)
            poll.register(bell.fd, select.POLLIN)
            while True:
                poll.poll()
                context.teardown.check()
                data = self._read()
                if data == b"":
                    return
                if data:
                    yield data

    def _size(self) -> int | None:
        """How much there is, when the input is a file."""
        found = os.fstat(self._fd)
        if not stat.S_ISREG(found.st_mode):
            return None
        return max(found.st_size - os.lseek(self._fd, 0, os.SEEK_CUR), 0)

    def _read(self) -> bytes | None:
        try:
            return os.read(self._fd, CHUNK)
        except BlockingIOError:
            # Whoever shares the pipe has made it non-blocking.
            return None
        except OSError as error:
            reason = (error.strerror or "unknown error").lower()
            raise SourceError(f"cannot read standard input: {reason}") from None

    def _refuse_terminal(self) -> None:
        try:
            os.fstat(self._fd)
        except OSError as error:
            if error.errno != errno.EBADF:
                raise
            raise SourceError(
                "standard input is closed", "pipe the data into the program"
            ) from None
        if os.isatty(self._fd):
            raise SourceError(
                "standard input is a terminal",
                "pipe the data into the program, or use a `command` source",
            )


class _Bell:
    """A descriptor that becomes readable when it is rung, from any thread and at any time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open = True
        self.fd, self._other = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def ring(self) -> None:
        # An abort may come while we are leaving; the number may then belong to another file.
        with self._lock:
            if self._open:
                self._open = False
                os.close(self._other)

    def close(self) -> None:
        self.ring()
        os.close(self.fd)


COMPONENT = Stdin
