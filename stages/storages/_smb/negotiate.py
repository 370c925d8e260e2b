"""What both sides can do: the first messages of a connection, and a look back at them."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import TypeVar

from stages.storages._smb.calls import HEADER_SIZE, cut, unpack
from stages.storages._smb.crypto import CipherAlgorithm, SigningAlgorithm
from stages.storages._smb.link import CREDIT, Link
from stages.storages._smb.types import Call, Command, Dialect, Limits, Malformed, Status

SIGNING_ENABLED, SIGNING_REQUIRED = 1, 2
_LARGE_MTU, _ENCRYPTION = 0x04, 0x40
_PREAUTH, _CIPHERS, _SIGNING = 1, 2, 8
"""Types of negotiate contexts."""
_SHA_512 = 1
_VALIDATE = 0x00140204
"""FSCTL_VALIDATE_NEGOTIATE_INFO."""
_NO_VALIDATION = frozenset(
    {
        Status.FILE_CLOSED,
        Status.INVALID_DEVICE_REQUEST,
        Status.NOT_SUPPORTED,
        Status.NOT_IMPLEMENTED,
        Status.INVALID_PARAMETER,
    }
)
"""What servers say that do not know it."""
_MAX_MESSAGE = 1 << 20
"""More at once wins nothing."""
_OUR_CIPHERS = (
    CipherAlgorithm.AES_128_GCM,
    CipherAlgorithm.AES_256_GCM,
    CipherAlgorithm.AES_128_CCM,
    CipherAlgorithm.AES_256_CCM,
)
"""The best first, like the next."""
_OUR_SIGNING = (
    SigningAlgorithm.AES_GMAC,
    SigningAlgorithm.AES_CMAC,
    SigningAlgorithm.HMAC_SHA256,
)


@dataclass(frozen=True)
class Negotiated:
    """What the server answered to the first message."""

    dialect: Dialect
    security_mode: int
    server_id: bytes
    capabilities: int
    limits: Limits
    signing: SigningAlgorithm
    cipher: CipherAlgorithm | None
    token: bytes


def negotiate(client_id: bytes, mode: int) -> Call[Negotiated]:
    """The first request: all that we can do.

    Args:
        client_id: 16 bytes that name us.
        mode: `SIGNING_ENABLED` or `SIGNING_REQUIRED`.
    """
    dialects = struct.pack(f"<{len(Dialect)}H", *Dialect)
    contexts = [
        (_PREAUTH, struct.pack("<HHH32s", 1, 32, _SHA_512, os.urandom(32))),
        (_CIPHERS, _choices(_OUR_CIPHERS)),
        (_SIGNING, _choices(_OUR_SIGNING)),
    ]
    start = _aligned(HEADER_SIZE + 36 + len(dialects))
    capabilities = _LARGE_MTU | _ENCRYPTION
    body = struct.pack(
        "<HHHHI16sIHH", 36, len(Dialect), mode, 0, capabilities, client_id, start, len(contexts), 0
    )
    body = (body + dialects).ljust(start - HEADER_SIZE, b"\0")
    for kind, data in contexts:
        body = body.ljust(_aligned(len(body)), b"\0")
        body += struct.pack("<HHI", kind, len(data), 0) + data
    return Call(Command.NEGOTIATE, body, _read_negotiated)


def _choices(numbers: Sequence[int]) -> bytes:
    return struct.pack(f"<{1 + len(numbers)}H", len(numbers), *numbers)


def _aligned(offset: int) -> int:
    return -(-offset // 8) * 8


def _read_negotiated(message: memoryview) -> Negotiated:
    _, mode, number, contexts = unpack("<HHHH", message, HEADER_SIZE)
    capabilities, *sizes = unpack("<IIII", message, HEADER_SIZE + 24)
    token_at, token_size, contexts_at = unpack("<HHI", message, HEADER_SIZE + 56)
    if number not in list(Dialect):
        raise Malformed(f"it wants version 0x{number:04X} of the protocol")
    dialect = Dialect(number)
    cipher, signing = None, SigningAlgorithm.HMAC_SHA256
    if dialect == Dialect.SMB_3_1_1:
        signing = SigningAlgorithm.AES_CMAC
        for kind, choice in _read_contexts(message, contexts_at, contexts):
            if kind == _CIPHERS and choice:
                cipher = _known(CipherAlgorithm, choice)
            elif kind == _SIGNING:
                signing = _known(SigningAlgorithm, choice)
    elif dialect >= Dialect.SMB_3_0:
        signing = SigningAlgorithm.AES_CMAC
        cipher = CipherAlgorithm.AES_128_CCM if capabilities & _ENCRYPTION else None
    is_large = dialect > Dialect.SMB_2_0_2 and capabilities & _LARGE_MTU
    most = _MAX_MESSAGE if is_large else CREDIT
    if not all(sizes):
        raise Malformed("the server takes no data at all")
    return Negotiated(
        dialect,
        mode,
        bytes(cut(message, HEADER_SIZE + 8, 16)),
        capabilities,
        Limits(*(min(size, most) for size in sizes)),
        signing,
        cipher,
        bytes(cut(message, token_at, token_size)),
    )


def _read_contexts(message: memoryview, at: int, count: int) -> Iterator[tuple[int, int]]:
    """Kind and chosen number of each negotiate context."""
    for _ in range(count):
        at = _aligned(at)
        kind, size = unpack("<HH", message, at)
        if kind in (_CIPHERS, _SIGNING):
            yield kind, unpack("<H", message, at + 10)[0]
        at += 8 + size


Algorithm = TypeVar("Algorithm", bound=IntEnum)


def _known(kind: type[Algorithm], number: int) -> Algorithm:
    try:
        return kind(number)
    except ValueError:
        raise Malformed(f"it chose number {number}, which we did not offer") from None


def validate(link: Link, negotiated: Negotiated, client_id: bytes, mode: int) -> None:
    """See that nobody on the way talked both sides into an old version, or out of encryption.

    Raises:
        Malformed: somebody did.
    """
    ours = struct.pack(
        f"<I16sHH{len(Dialect)}H",
        _LARGE_MTU | _ENCRYPTION,
        client_id,
        mode,
        len(Dialect),
        *Dialect,
    )
    body = struct.pack(
        "<HHI16sIIIIIIII",
        57,
        0,
        _VALIDATE,
        b"\xff" * 16,
        HEADER_SIZE + 56,
        len(ours),
        0,
        0,
        0,
        24,
        1,
        0,
    )
    call = Call(Command.IOCTL, body + ours, bytes, expects=24, accepts=_NO_VALIDATION | {Status.OK})
    message = memoryview(link.call(call))
    if call.status != Status.OK:
        return  # Signed as everything is, so the server said it itself.
    (at,) = unpack("<I", message, HEADER_SIZE + 32)
    theirs = struct.pack(
        "<I16sHH",
        negotiated.capabilities,
        negotiated.server_id,
        negotiated.security_mode,
        negotiated.dialect,
    )
    if bytes(cut(message, at, 24)) != theirs:
        raise Malformed("somebody on the way changed what was negotiated")
