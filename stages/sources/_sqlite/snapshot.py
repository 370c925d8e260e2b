"""The pages of a database as one read transaction sees them, straight from its files.

SQLite guarantees that nobody changes what a read transaction may still need. In rollback mode
nobody writes into the file at all while a reader holds its lock. In WAL mode changes go to the
write-ahead log: a page of the snapshot is the last frame of it up to the point where the
transaction began, else what is in the file, where checkpoints put nothing newer than that point.

Formats: https://www.sqlite.org/fileformat2.html (file, log), https://www.sqlite.org/walformat.html
(index of the log).
"""

from __future__ import annotations

import os
import sqlite3
import struct
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from urllib.parse import quote

from pipeline.context import StageContext
from pipeline.errors import SourceError
from pipeline.stage import CHUNK

_WAL_HEADER, _FRAME_HEADER = 32, 24
_INDEX = struct.Struct("=16xI76xI")
"""Of the log's index: its frames, and how many of them are copied back into the file."""

Connect = Callable[[], AbstractContextManager[sqlite3.Connection]]


@dataclass(frozen=True)
class Snapshot:
    """A database at one moment; valid while its transaction is open."""

    connection: sqlite3.Connection
    journal_mode: str
    page_size: int
    page_count: int
    file: int
    """Descriptor of the database file."""
    log: int
    """Descriptor of its write-ahead log, or -1."""
    frames: dict[int, int]
    """Where in the log the newest version of a page begins; pages count from 0."""

    @property
    def size(self) -> int:
        """In bytes."""
        return self.page_size * self.page_count

    def chunks(self) -> Iterator[bytes]:
        """The database file as it would be without a log.

        Raises:
            SourceError: a page is missing.
        """
        changed = sorted(self.frames)
        position = 0
        for start in range(0, self.size, CHUNK):
            length = min(CHUNK, self.size - start)
            block = bytearray(os.pread(self.file, length, start))
            whole = len(block)
            block.extend(bytes(length - whole))
            while position < len(changed) and changed[position] * self.page_size < start + length:
                at = changed[position] * self.page_size - start
                if 0 <= at <= whole:
                    block[at : at + self.page_size] = self._from_log(changed[position])
                    whole = max(whole, at + self.page_size)
                position += 1
            if whole < length:
                raise SourceError("the database file is shorter than its header says")
            yield bytes(block)

    def _from_log(self, page: int) -> bytes:
        data = os.pread(self.log, self.page_size, self.frames[page])
        if len(data) != self.page_size:
            raise SourceError("the write-ahead log was cut while it was read")
        return data


@contextmanager
def opened(path: str, patience: float, context: StageContext) -> Iterator[Snapshot]:
    """Open a database and begin a read transaction.

    Args:
        patience: seconds to wait for others' locks.

    Raises:
        SourceError: it is no database, or cannot be read.
    """
    try:
        # Closing any descriptor of a file drops all locks that the process has on it: `files` is
        # closed after the connection, whose locks keep the snapshot.
        with ExitStack() as files, ExitStack() as connections:
            file = files.enter_context(_descriptor(path))
            connect = partial(_connected, path, patience, context)
            connection = connections.enter_context(connect())
            (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
            log, frames = -1, dict[int, int]()
            if mode == "wal":
                log, frames = _begin_with_log(path, connection, connect, files)
            else:
                _begin(connection)
            (page_size,) = connection.execute("PRAGMA page_size").fetchone()
            (page_count,) = connection.execute("PRAGMA page_count").fetchone()
            inside = {page: at for page, at in frames.items() if page < page_count}
            yield Snapshot(connection, mode, page_size, page_count, file, log, inside)
    except sqlite3.Error as error:
        context.teardown.check()
        raise SourceError(f'"{path}" cannot be read: {error}', _hint(str(error))) from error
    except OSError as error:
        raise SourceError(f'"{path}" cannot be read: {error.strerror}') from error


def _hint(text: str) -> str | None:
    for part, hint in _HINTS.items():
        if part in text:
            return hint
    return None


_HINTS = {
    "locked": "another program holds a lock on it; see `busy_timeout`",
    "not a database": "it is something else, or encrypted",
    "readonly": "in WAL mode SQLite needs to write beside the database, also to read it",
    "unable to open": "check the rights of the file and of its directory",
}


@contextmanager
def _descriptor(path: str) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _connected(path: str, patience: float, context: StageContext) -> Iterator[sqlite3.Connection]:
    mode = "rw" if os.access(path, os.W_OK) else "ro"
    uri = f"file:{quote(path)}?mode={mode}"
    connection = sqlite3.connect(
        uri, uri=True, timeout=patience, isolation_level=None, check_same_thread=False
    )
    with closing(connection), context.teardown.calling(connection.interrupt):
        yield connection


def _begin(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN")
    _touch(connection)  # the transaction begins with the first thing that is read


def _touch(connection: sqlite3.Connection) -> None:
    connection.execute("SELECT count(*) FROM sqlite_master").fetchone()


def _begin_with_log(
    path: str, connection: sqlite3.Connection, connect: Connect, files: ExitStack
) -> tuple[int, dict[int, int]]:
    """Begin while nobody writes: then the end of the log is where our transaction begins."""
    _touch(connection)  # makes the files that are missing
    log = files.enter_context(_descriptor(path + "-wal"))
    index = files.enter_context(_descriptor(path + "-shm"))
    with connect() as blocker:
        blocker.execute("BEGIN IMMEDIATE")
        _begin(connection)
        frames, copied = _INDEX.unpack(os.pread(index, _INDEX.size, 0))
        blocker.execute("ROLLBACK")
    # With all of it copied back, SQLite reads the file alone, and may begin the log anew.
    return log, {} if copied == frames else _newest_frames(log, frames)


def _newest_frames(log: int, number: int) -> dict[int, int]:
    header = os.pread(log, _WAL_HEADER, 0)
    (page_size,) = struct.unpack_from(">I", header, 8)
    salts = header[16:24]
    found = {}
    for frame in range(number):
        at = _WAL_HEADER + frame * (_FRAME_HEADER + page_size)
        head = os.pread(log, _FRAME_HEADER, at)
        if len(head) < _FRAME_HEADER or head[8:16] != salts:
            raise SourceError("the write-ahead log is damaged")
        found[int.from_bytes(head[:4], "big") - 1] = at + _FRAME_HEADER
    return found
