"""One connection to a share: numbers, credits and protection of messages."""

from __future__ import annotations

import errno
import hmac
import struct
from typing import TypeVar

from stages.storages._smb.calls import HEADER_SIZE, unpack
from stages.storages._smb.crypto import TRANSFORM_MARK, Sealer, Signer
from stages.storages._smb.types import Call, Dialect, Limits, Malformed, Status
from stages.storages._tcp import Buffer, Stream

T = TypeVar("T")

MARK = b"\xfeSMB"
_FROM_SERVER, _SIGNED = 0x1, 0x8
_UNASKED = (1 << 64) - 1
"""The number of messages that answer nothing."""
CREDIT = 64 << 10
"""Bytes of a request or its answer that one credit is good for."""
_WANTED_CREDITS = 320
"""As many as keep a window busy; servers decide for themselves."""
_AT_FIRST = Limits(CREDIT, CREDIT, CREDIT)
_GONE: dict[int, str] = {
    Status.NETWORK_NAME_DELETED: "the share was closed",
    Status.FILE_CLOSED: "the file was closed on the server",
    Status.USER_SESSION_DELETED: "the session was closed by the server",
    Status.NETWORK_SESSION_EXPIRED: "the session has expired",
    Status.CONNECTION_DISCONNECTED: "the server disconnected",
    Status.INSUFFICIENT_RESOURCES: "the server is short of resources",
    Status.INSUFF_SERVER_RESOURCES: "the server is short of resources",
    Status.REQUEST_NOT_ACCEPTED: "the server has too many connections",
}
"""What another connection, perhaps later, will cure."""


class Link:
    """For one thread; any number of requests may be under way.

    Args:
        stream: belongs to the link from now on.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._pending: dict[int, Call[object]] = {}
        self._next_id = 0
        self._credits = 1
        self._charged = 0
        self.dialect = Dialect.SMB_2_0_2
        self.limits = _AT_FIRST
        self.has_large_messages = False
        """Whether a message may cost more than one credit, and carry more than 64 KiB."""
        self.session_id = 0
        self.tree_id = 0
        self.signer: Signer | None = None
        self.sealer: Sealer | None = None
        self.is_encrypted = False
        """Whether everything is, from now on, and not signed."""
        self.history: list[bytes] | None = []
        """All messages so far, while the login needs them."""

    def submit(self, call: Call[T]) -> Call[T]:
        """Send a request without waiting for its answer; waits for credits.

        Raises:
            OSError: the connection is lost.
            Malformed: the server does not keep to the rules.
        """
        charge = self._charge(call)
        while self._credits < charge:
            if not self._pending:
                raise Malformed("no request may be sent any more")
            self._receive()
        self._credits -= charge
        self._charged += charge
        message_id, self._next_id = self._next_id, self._next_id + charge
        self._pending[message_id] = call  # type: ignore[assignment]
        self._send(call, message_id, charge)
        return call

    def result(self, call: Call[T]) -> T:
        """Wait for an answer; raises SmbError, and like `submit`."""
        while not call.is_done:
            self._receive()
        return call.outcome()

    def call(self, call: Call[T]) -> T:
        """Submit a request and wait for its answer; raises what they raise."""
        return self.result(self.submit(call))

    def close(self) -> None:
        self._stream.close()

    def _charge(self, call: Call[T]) -> int:
        if not self.has_large_messages:
            return 1
        return max(1, -(-max(len(call.data), call.expects) // CREDIT))

    def _send(self, call: Call[T], message_id: int, charge: int) -> None:
        parts: list[Buffer] = [self._header(call, message_id, charge) + call.body]
        if call.data:
            parts.append(call.data)
        if self.sealer and self.is_encrypted:
            parts = self.sealer.seal(parts)
        elif self.signer:
            parts[0] = _with_signature(parts[0], self.signer.sign(parts, message_id, False))
        if self.history is not None:
            self.history.append(b"".join(parts))
        size = sum(map(len, parts))
        self._stream.send([struct.pack(">I", size) + parts[0], *parts[1:]])

    def _header(self, call: Call[T], message_id: int, charge: int) -> bytes:
        return struct.pack(
            "<4sHHIHHIIQIIQ16s",
            MARK,
            HEADER_SIZE,
            charge if self.has_large_messages else 0,
            0,
            call.command,
            charge + max(0, _WANTED_CREDITS - self._credits - self._charged),
            _SIGNED if self.signer and not self.is_encrypted else 0,
            0,
            message_id,
            0,
            self.tree_id,
            self.session_id,
            bytes(16),
        )

    def _receive(self) -> None:
        """Take the next message off the connection."""
        (size,) = struct.unpack(">I", self._stream.take(4))
        if size >> 24:
            raise Malformed("it is no SMB")
        message = self._stream.take(size)
        is_sealed = message[:4] == TRANSFORM_MARK
        if is_sealed:
            if not self.sealer:
                raise Malformed("an encrypted message came before a key was agreed on")
            message = self.sealer.unseal(message)
        following = 1
        while following:
            if message[:4] != MARK or len(message) < HEADER_SIZE:
                raise Malformed("it is no SMB 2")
            (following,) = unpack("<I", message, 20)
            self._take(message[: following or None], is_sealed)
            message = message[following:]

    def _take(self, message: memoryview, is_sealed: bool) -> None:
        status, _, granted, flags = unpack("<IHHI", message, 8)
        (message_id,) = unpack("<Q", message, 24)
        if message_id == _UNASKED or not flags & _FROM_SERVER:
            return
        call = self._pending.get(message_id)
        if call is None:
            raise Malformed("an answer came to no request")
        self._credits += granted
        if status == Status.PENDING:  # The answer follows; until then this one proves nothing.
            return
        del self._pending[message_id]
        self._charged -= self._charge(call)
        if status in _GONE and status not in call.accepts:
            # Such answers may be neither signed nor encrypted.
            raise ConnectionResetError(errno.ECONNRESET, _GONE[status])
        if not is_sealed:
            self.check_protection(message)
        if self.history is not None:
            self.history.append(bytes(message))
        call.finish(status, message)

    def check_protection(self, message: memoryview) -> None:
        """See that an answer that came in the clear was allowed to.

        Raises:
            Malformed: it is not signed, or should be encrypted.
        """
        if self.is_encrypted:
            raise Malformed("an answer is not encrypted")
        if not self.signer:
            return
        flags, _, message_id = unpack("<IIQ", message, 16)
        parts: list[Buffer] = [bytes(message[:48]) + bytes(16), message[64:]]
        expected = self.signer.sign(parts, message_id, True)
        if not (flags & _SIGNED and hmac.compare_digest(bytes(message[48:64]), expected)):
            raise Malformed("an answer is not signed as it should be")


def _with_signature(start: Buffer, signature: bytes) -> bytes:
    """The start of a message, with the signature where it belongs."""
    return bytes(start[:48]) + signature + bytes(start[64:])
