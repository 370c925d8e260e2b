"""What requests to an SMB server are made of, and what their answers are made into."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Generic, NamedTuple, TypeVar

from stages.storages._tcp import Buffer

T = TypeVar("T")


class Command(IntEnum):
    """Kinds of requests, [MS-SMB2] 2.2.1.2; the ones we send."""

    NEGOTIATE = 0
    SESSION_SETUP = 1
    TREE_CONNECT = 3
    CREATE = 5
    CLOSE = 6
    FLUSH = 7
    READ = 8
    WRITE = 9
    IOCTL = 11
    QUERY_DIRECTORY = 14
    QUERY_INFO = 16
    SET_INFO = 17


class Status(IntEnum):
    """What became of a request, [MS-ERREF] 2.3.1; the ones we tell apart."""

    OK = 0
    PENDING = 0x00000103
    STOPPED_ON_SYMLINK = 0x8000002D
    NO_MORE_FILES = 0x80000006
    NOT_IMPLEMENTED = 0xC0000002
    INVALID_PARAMETER = 0xC000000D
    NO_SUCH_FILE = 0xC000000F
    INVALID_DEVICE_REQUEST = 0xC0000010
    END_OF_FILE = 0xC0000011
    MORE_PROCESSING_REQUIRED = 0xC0000016
    ACCESS_DENIED = 0xC0000022
    OBJECT_NAME_INVALID = 0xC0000033
    OBJECT_NAME_NOT_FOUND = 0xC0000034
    OBJECT_NAME_COLLISION = 0xC0000035
    OBJECT_PATH_INVALID = 0xC0000039
    OBJECT_PATH_NOT_FOUND = 0xC000003A
    OBJECT_PATH_SYNTAX_BAD = 0xC000003B
    SHARING_VIOLATION = 0xC0000043
    QUOTA_EXCEEDED = 0xC0000044
    FILE_LOCK_CONFLICT = 0xC0000054
    DELETE_PENDING = 0xC0000056
    PRIVILEGE_NOT_HELD = 0xC0000061
    LOGON_FAILURE = 0xC000006D
    ACCOUNT_RESTRICTION = 0xC000006E
    INVALID_LOGON_HOURS = 0xC000006F
    INVALID_WORKSTATION = 0xC0000070
    PASSWORD_EXPIRED = 0xC0000071
    ACCOUNT_DISABLED = 0xC0000072
    DISK_FULL = 0xC000007F
    INSUFFICIENT_RESOURCES = 0xC000009A
    MEDIA_WRITE_PROTECTED = 0xC00000A2
    FILE_IS_A_DIRECTORY = 0xC00000BA
    NOT_SUPPORTED = 0xC00000BB
    NETWORK_NAME_DELETED = 0xC00000C9
    BAD_NETWORK_NAME = 0xC00000CC
    REQUEST_NOT_ACCEPTED = 0xC00000D0
    DIRECTORY_NOT_EMPTY = 0xC0000101
    NOT_A_DIRECTORY = 0xC0000103
    NAME_TOO_LONG = 0xC0000106
    CANNOT_DELETE = 0xC0000121
    FILE_CLOSED = 0xC0000128
    LOGON_TYPE_NOT_GRANTED = 0xC000015B
    USER_SESSION_DELETED = 0xC0000203
    INSUFF_SERVER_RESOURCES = 0xC0000205
    CONNECTION_DISCONNECTED = 0xC000020C
    PASSWORD_MUST_CHANGE = 0xC0000224
    ACCOUNT_LOCKED_OUT = 0xC0000234
    PATH_NOT_COVERED = 0xC0000257
    NETWORK_SESSION_EXPIRED = 0xC000035C
    FILE_TOO_LARGE = 0xC0000904


class SmbError(Exception):
    """The server said that a request failed."""

    def __init__(self, status: int) -> None:
        super().__init__(f"NT status 0x{status:08X}")
        self.status = status


class Malformed(Exception):
    """A message that makes no sense, or is not protected as was agreed."""


class Dialect(IntEnum):
    """Versions of the protocol that we speak."""

    SMB_2_0_2 = 0x0202
    SMB_2_1 = 0x0210
    SMB_3_0 = 0x0300
    SMB_3_0_2 = 0x0302
    SMB_3_1_1 = 0x0311

    @property
    def label(self) -> str:
        return self.name.lower().replace("_", " ", 1).replace("_", ".").upper()


class Limits(NamedTuple):
    """What a server takes and gives at once, in bytes."""

    transact: int
    read: int
    write: int


@dataclass(frozen=True)
class Opened:
    """A file or directory that was opened.

    Attributes:
        file_id: what later requests name it by; valid for as long as the connection.
        size: bytes it had then.
        is_new: whether this has made it.
    """

    file_id: bytes
    size: int
    is_new: bool


@dataclass(frozen=True)
class Entry:
    """A file or directory, as a listing shows it."""

    name: str
    size: int
    attributes: int


@dataclass(eq=False)
class Call(Generic[T]):
    """A request, and in the end its result."""

    command: Command
    body: bytes
    decode: Callable[[memoryview], T]
    """Makes the result from the whole message; what it keeps of that it has to copy."""
    data: Buffer = b""
    """The end of the body, which is not copied."""
    expects: int = 0
    """Bytes that the answer may have, beyond its fixed part."""
    accepts: frozenset[int] = frozenset({Status.OK})
    """What is no error."""
    status: int = Status.OK
    result: T | None = None
    error: Exception | None = None
    is_done: bool = False

    def finish(self, status: int, message: memoryview) -> None:
        """Take the answer.

        Raises:
            Malformed: it is none.
        """
        self.status = status
        if status in self.accepts:
            self.result = self.decode(message)
            self.is_done = True
        else:
            self.fail(SmbError(status))

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
