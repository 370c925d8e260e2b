"""One run of a backup at a time, without a file.

The lock is a listening socket in the kernel's abstract name space (Linux, see unix(7)). The kernel
lets one socket at a time have a name and frees it when the process ends, however it ends: nothing
stale can stay behind, and a full or read-only disk does not matter. Child programs do not inherit
the socket.

Any local user may take any abstract name. So whoever has ours is asked for its user id, which the
kernel vouches for: only root and our own user count as another run. A name that somebody else has
is stepped over, and after taking one we look at all the others: each contender takes its name first
and looks afterwards, so of two that took different names at least one sees the other.

The name space belongs to a network namespace: containers with networks of their own do not see each
other's locks.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType

from pipeline.errors import LockHeld

SLOTS = 16
"""So many names may be taken by other users before we give up."""
_BACKLOG = 4096
_PATIENCE = 1.0
_PAUSE = 0.005


def identity(project: str, host: str, backup: str) -> str:
    """8 hex digits that stand for a backup of a host in a project; used in run tokens.

    The user is part of it: the lock of another user does not hold us back, so what that user's run
    has unfinished must not be taken for our own.
    """
    return _digest(project, host, backup, str(os.geteuid()))[:8]


def socket_name(project: str, host: str, backup: str, slot: int) -> str:
    """The abstract socket name of one slot of a lock."""
    return f"\0nxs-backup-{_digest(project, host, backup)}-{slot}"


def _digest(*parts: str) -> str:
    # As JSON, so that ("a", "bc") and ("ab", "c") differ and any string has a form in bytes.
    return hashlib.sha256(json.dumps(parts).encode("ascii")).hexdigest()


@dataclass(frozen=True)
class _Owner:
    """Who has a name, as far as the kernel tells."""

    uid: int | None = None
    pid: int | None = None

    @property
    def counts(self) -> bool:
        """Whether it may be another run; when in doubt it is one, as two runs at once are worse."""
        return self.uid is None or self.uid in (0, os.geteuid())


class RunLock:
    """Keeps a second run of the same backup away until released, or until the process ends.

    Two objects exclude each other also within one process. A fork that never calls exec shares
    the lock.
    """

    def __init__(self, project: str, host: str, backup: str) -> None:
        self._backup = backup
        self._names = [socket_name(project, host, backup, slot) for slot in range(SLOTS)]
        self._socket: socket.socket | None = None

    def acquire(self) -> None:
        """Take the lock, or refuse at once.

        Raises:
            LockHeld: another run has it, or other users have taken all its names.
        """
        name, own = self._take_a_name()
        try:
            self._look_at_the_others(name)
        except BaseException:
            own.close()
            raise
        self._socket = own

    def release(self) -> None:
        """Give the lock back. May be called again."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def __enter__(self) -> RunLock:
        self.acquire()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    def _take_a_name(self) -> tuple[str, socket.socket]:
        strangers: set[int | None] = set()
        for name in self._names:
            taken = self._take(name)
            if isinstance(taken, socket.socket):
                return name, taken
            strangers.add(taken.uid)
        users = ", ".join(str(uid) for uid in sorted(uid for uid in strangers if uid is not None))
        raise LockHeld(
            f'the lock of "{self._backup}" cannot be taken: other users have all its names',
            f"look at what the users with these ids are running: {users}",
        )

    def _take(self, name: str) -> socket.socket | _Owner:
        """The socket that now has the name, or the stranger who has it.

        Between bind and listen a name is taken but nobody answers; that is over in a moment, or
        its owner does it on purpose.
        """
        give_up = time.monotonic() + _PATIENCE
        while True:
            own = _bind(name)
            if own is not None:
                return own
            owner = _ask(name)
            if owner is None:
                silent = _Owner(uid=_uid_in_kernel_table(name))
                if silent.counts and time.monotonic() < give_up:
                    time.sleep(_PAUSE)
                    continue
                owner = silent
            if owner.counts:
                raise self._held(owner)
            return owner

    def _look_at_the_others(self, own: str) -> None:
        """Refuse when another run has another name: it started while a stranger had this one.

        A name that nobody answers at is no concern: who is about to listen there looks after us.
        """
        for name in self._names:
            owner = None if name == own else _ask(name)
            if owner is not None and owner.counts:
                raise self._held(owner)

    def _held(self, owner: _Owner) -> LockHeld:
        if owner.uid is None:
            return LockHeld(
                f'the lock of "{self._backup}" is held, and the kernel does not tell by whom',
                "see which process has its socket with: ss -xlp | grep nxs-backup",
            )
        pid = f" (pid {owner.pid})" if owner.pid else ""
        return LockHeld(f'another run of "{self._backup}" is under way{pid}')


def _bind(name: str) -> socket.socket | None:
    """A socket that listens at the name, or None when it is taken."""
    own = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        own.bind(name)
        own.listen(_BACKLOG)
    except OSError as error:
        own.close()
        if error.errno == errno.EADDRINUSE:
            return None
        raise
    return own


def _ask(name: str) -> _Owner | None:
    """Who listens at the name; None when nobody does.

    The owner has no part in this: the kernel keeps the credentials it had when it began to listen.
    It never accepts, so each question fills a place of its backlog, and anyone may fill the rest;
    once that is full the kernel's table is asked.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        code = probe.connect_ex(name)
        if code == errno.ECONNREFUSED:
            return None
        if code != 0:
            return _Owner(uid=_uid_in_kernel_table(name))
        credentials = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid, uid, _ = struct.unpack("iII", credentials)
    return _Owner(uid=uid, pid=pid or None)  # 0: it lives in a PID namespace that we do not see


_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_DUMP_REQUEST = 0x301
_BOUND_OR_LISTENING = 1 << 7 | 1 << 10
_SHOW_NAME_AND_UID = 0x01 | 0x40
_ATTRIBUTE_NAME, _ATTRIBUTE_UID = 0, 7


def _uid_in_kernel_table(name: str) -> int | None:
    """The user of the socket that has the name, from sock_diag(7); None when that is not known.

    Kernels before 5.3 and those built without unix_diag do not tell.
    """
    request = struct.pack(
        "=BBHIIIII", socket.AF_UNIX, 0, 0, _BOUND_OR_LISTENING, 0, _SHOW_NAME_AND_UID, 0, 0
    )
    header = struct.pack("=IHHII", 16 + len(request), _SOCK_DIAG_BY_FAMILY, _DUMP_REQUEST, 1, 0)
    wanted = os.fsencode(name)
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as netlink:
            netlink.settimeout(_PATIENCE)
            netlink.sendto(header + request, (0, 0))
            for kind, attributes in _entries(netlink):
                if kind == socket.SOCK_STREAM and attributes.get(_ATTRIBUTE_NAME) == wanted:
                    uid = attributes.get(_ATTRIBUTE_UID)
                    return None if uid is None else int(struct.unpack("=I", uid)[0])
    except OSError:
        return None  # no such protocol in this kernel or container: nobody knows
    return None


def _entries(netlink: socket.socket) -> Iterator[tuple[int, dict[int, bytes]]]:
    """Type and attributes of each socket of an answer; ends at its end or at an error message."""
    while True:
        datagram = netlink.recv(1 << 18)
        while len(datagram) >= 16:
            length, kind = struct.unpack_from("=IH", datagram)
            if kind != _SOCK_DIAG_BY_FAMILY:
                return
            message, datagram = datagram[16:length], datagram[_aligned(length) :]
            yield message[1], dict(_attributes(message[16:]))


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        if length < 4:
            return
        yield kind, data[4:length]
        data = data[_aligned(length) :]


def _aligned(length: int) -> int:
    return (length + 3) & ~3
