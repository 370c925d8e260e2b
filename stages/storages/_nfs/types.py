"""What calls to an NFS server are made of, and what their answers are made into."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Generic, TypeVar

from stages.storages._nfs.rpc import next_xid
from stages.storages._nfs.xdr import Buffer, Unpacker

T = TypeVar("T")


class Status(IntEnum):
    """Why a procedure failed: `nfsstat3`, the ones we tell apart."""

    PERM = 1
    NOENT = 2
    IO = 5
    NXIO = 6
    ACCES = 13
    EXIST = 17
    XDEV = 18
    NODEV = 19
    NOTDIR = 20
    INVAL = 22
    FBIG = 27
    NOSPC = 28
    ROFS = 30
    MLINK = 31
    NAMETOOLONG = 63
    NOTEMPTY = 66
    DQUOT = 69
    STALE = 70
    BADHANDLE = 10001
    BAD_COOKIE = 10003
    NOTSUPP = 10004
    TOOSMALL = 10005
    SERVERFAULT = 10006
    JUKEBOX = 10008


class NfsError(Exception):
    """The server said that a procedure failed."""

    def __init__(self, status: int) -> None:
        super().__init__(f"NFS status {status}")
        self.status = status


@dataclass(frozen=True)
class Attributes:
    """What we want to know of a file."""

    kind: int
    size: int
    number: int
    """Tells files of a file system apart: the inode."""


@dataclass(frozen=True)
class Found:
    """A file that was looked up or made; servers may leave out either."""

    handle: bytes | None
    attributes: Attributes | None


@dataclass(frozen=True)
class Written:
    """What became of a WRITE."""

    count: int
    is_stable: bool
    verifier: bytes


@dataclass(frozen=True)
class Entry:
    """One name in a directory."""

    name: str
    handle: bytes | None = None
    attributes: Attributes | None = None


@dataclass(frozen=True)
class Page:
    """Some names of a directory, and where the next ones begin."""

    entries: list[Entry]
    verifier: bytes
    cookie: int
    """That of the last entry; 0 when there is none."""
    is_last: bool


@dataclass(frozen=True)
class Limits:
    """What a server takes and gives at once, in bytes."""

    read: int
    write: int


@dataclass(eq=False)
class Call(Generic[T]):
    """A procedure with its arguments, and in the end its result."""

    procedure: int
    arguments: bytes
    decode: Callable[[Unpacker], T]
    data: Buffer = b""
    """The last argument, which is not copied."""
    xid: int = 0
    result: T | None = None
    error: Exception | None = None
    is_done: bool = False

    def begin(self) -> None:
        """Make it a new call, with a number of its own."""
        self.xid = next_xid()
        self.is_done = False
        self.error = None

    def finish(self, reply: Unpacker) -> None:
        """Take the answer, without the header of the reply.

        Raises:
            Malformed: it is none.
        """
        status = reply.uint()
        if status:
            self.fail(NfsError(status))
        else:
            self.result = self.decode(reply)
            self.is_done = True

    def fail(self, error: Exception) -> None:
        """Take an error for the answer."""
        self.error = error
        self.is_done = True

    def outcome(self) -> T:
        """The result, or the error, once. Kept longer, it would keep its frames, and us."""
        if self.error:
            raise self._take_error()
        return self.result  # type: ignore[return-value]  # Done, and not failed: it is a T.

    def _take_error(self) -> Exception:
        assert self.error
        error, self.error = self.error, None
        return error
