"""From a connection to a share: what is agreed on, who we are, how messages are protected."""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import TypeVar

import spnego
from spnego.exceptions import SpnegoError

from pipeline.errors import StorageRefused
from stages.storages._smb.calls import HEADER_SIZE, cut, encode, unpack
from stages.storages._smb.crypto import (
    CipherAlgorithm,
    Signer,
    SigningAlgorithm,
    derive_key,
    make_sealer,
)
from stages.storages._smb.errors import login_refusal, share_refusal
from stages.storages._smb.link import CREDIT, Link
from stages.storages._smb.types import (
    Call,
    Command,
    Dialect,
    Limits,
    Malformed,
    SmbError,
    Status,
)

_SIGNING_ENABLED, _SIGNING_REQUIRED = 1, 2
_LARGE_MTU, _ENCRYPTION = 0x04, 0x40
_PREAUTH, _CIPHERS, _SIGNING = 1, 2, 8
"""Types of negotiate contexts."""
_SHA_512 = 1
_GUEST, _ANONYMOUS, _ENCRYPT_SESSION = 1, 2, 4
_ENCRYPT_SHARE = 0x8000
_DISK = 1
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
class Login:
    """Who we are, and what we insist on."""

    host: str
    share: str
    user: str
    password: str
    signing: bool
    encrypt: bool


@dataclass(frozen=True)
class _Negotiated:
    """What the server answered to the first message."""

    dialect: Dialect
    security_mode: int
    server_id: bytes
    capabilities: int
    limits: Limits
    signing: SigningAlgorithm
    cipher: CipherAlgorithm | None
    token: bytes


def log_in(link: Link, login: Login, previous_session: int = 0) -> None:
    """Make a fresh connection one to the share.

    Args:
        link: nothing was sent over it yet.
        login: who and where.
        previous_session: one of ours that the server is to close, with its files; 0 is none.

    Raises:
        StorageRefused: we may not, or not as safely as we insist on.
        OSError: the connection is lost.
        Malformed: what answers is no SMB server.
    """
    client_id = os.urandom(16)  # Its own: by it Samba puts connections into one process.
    mode = _mode(login)
    try:
        negotiated = link.call(_negotiate(client_id, mode))
    except SmbError as error:
        raise StorageRefused(
            f'"{login.host}" does not speak version 2 or 3 of SMB', f"it answered with {error}"
        ) from error
    link.dialect, link.limits = negotiated.dialect, negotiated.limits
    link.has_large_messages = negotiated.limits.write > CREDIT
    if login.encrypt and negotiated.cipher is None:
        raise StorageRefused(
            f'"{login.host}" cannot encrypt', "remove encrypt, or switch encryption on there"
        )
    _set_up_session(link, login, negotiated, previous_session)
    _connect_to_share(link, login, negotiated)
    if link.dialect < Dialect.SMB_3_1_1 and (link.signer or link.sealer):
        _validate(link, negotiated, client_id, mode)


def _mode(login: Login) -> int:
    return _SIGNING_REQUIRED if login.signing else _SIGNING_ENABLED


# What both sides can do


def _negotiate(client_id: bytes, mode: int) -> Call[_Negotiated]:
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


def _read_negotiated(message: memoryview) -> _Negotiated:
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
    return _Negotiated(
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


# Who we are


def _set_up_session(
    link: Link, login: Login, negotiated: _Negotiated, previous_session: int
) -> None:
    context = _authentication(login)
    token, status = _step(login, context, negotiated.token), -1
    while status != Status.OK:
        call = _session_setup(token, _mode(login), previous_session)
        try:
            link.session_id, flags, answer = link.call(call)
        except SmbError as error:
            raise login_refusal(error, login.host, login.user) from error
        status = call.status
        token = _step(login, context, answer) if answer and not context.complete else b""
    history, link.history = link.history or [], None
    if flags & (_GUEST | _ANONYMOUS):
        _check_guest(login)
    else:
        _protect(link, login, negotiated, context.session_key, history)
    if login.encrypt or flags & _ENCRYPT_SESSION:
        _encrypt(link)


def _protect(
    link: Link, login: Login, negotiated: _Negotiated, key: bytes, history: list[bytes]
) -> None:
    """Have all that follows signed; whether it goes on like that, the share decides."""
    digest = _digest(history[:-1])
    link.signer = Signer(negotiated.signing, _signing_key(link.dialect, key[:16], digest))
    if login.signing or link.dialect == Dialect.SMB_3_1_1:
        link.check_protection(memoryview(history[-1]))
    if negotiated.cipher:
        keys = _sealing_keys(link.dialect, negotiated.cipher, key, digest)
        link.sealer = make_sealer(negotiated.cipher, link.session_id, *keys)


def _authentication(login: Login) -> spnego.ContextProxy:
    return spnego.client(
        login.user,
        login.password,
        hostname=login.host,
        service="cifs",
        options=spnego.NegotiateOptions.session_key,
    )


def _step(login: Login, context: spnego.ContextProxy, token: bytes) -> bytes:
    try:
        return context.step(token or None) or b""
    except SpnegoError as error:
        raise StorageRefused(
            f'cannot log in to "{login.host}" as "{login.user}"',
            "it offers no way of logging in that we know",
        ) from error


def _session_setup(token: bytes, mode: int, previous_session: int) -> Call[tuple[int, int, bytes]]:
    """Gives the number of the session, its flags, and a token that answers ours."""

    def decode(message: memoryview) -> tuple[int, int, bytes]:
        (session_id,) = unpack("<Q", message, 40)
        flags, at, size = unpack("<HHH", message, HEADER_SIZE + 2)
        return session_id, flags, bytes(cut(message, at, size))

    body = struct.pack(
        "<HBBIIHHQ", 25, 0, mode, 0, 0, HEADER_SIZE + 24, len(token), previous_session
    )
    accepts = frozenset({Status.OK, Status.MORE_PROCESSING_REQUIRED})
    return Call(Command.SESSION_SETUP, body + token, decode, accepts=accepts)


def _check_guest(login: Login) -> None:
    """Guests have no key, so that nothing can be protected."""
    if login.signing or login.encrypt:
        raise StorageRefused(
            f'"{login.host}" takes "{login.user}" for a guest, whose messages cannot be protected',
            "check the user; for a server in a network that you trust, set signing: false",
        )


# Keys


def _digest(messages: Sequence[bytes]) -> bytes:
    """What both sides saw until the login ended; binds keys to it."""
    digest = bytes(64)
    for message in messages:
        digest = hashlib.sha512(digest + message).digest()
    return digest


def _signing_key(dialect: Dialect, key: bytes, digest: bytes) -> bytes:
    if dialect < Dialect.SMB_3_0:
        return key
    if dialect < Dialect.SMB_3_1_1:
        return derive_key(key, b"SMB2AESCMAC\0", b"SmbSign\0")
    return derive_key(key, b"SMBSigningKey\0", digest)


def _sealing_keys(
    dialect: Dialect, cipher: CipherAlgorithm, key: bytes, digest: bytes
) -> tuple[bytes, bytes]:
    """The keys for what we send, and for what the server does."""
    if dialect < Dialect.SMB_3_1_1:
        key, label = key[:16], b"SMB2AESCCM\0"
        return derive_key(key, label, b"ServerIn \0"), derive_key(key, label, b"ServerOut\0")
    key, bits = key if cipher.key_bits == 256 else key[:16], cipher.key_bits
    return (
        derive_key(key, b"SMBC2SCipherKey\0", digest, bits),
        derive_key(key, b"SMBS2CCipherKey\0", digest, bits),
    )


def _encrypt(link: Link) -> None:
    if link.sealer is None:
        raise Malformed("it wants encryption, and did not agree on a way")
    link.is_encrypted = True


# The share


def _connect_to_share(link: Link, login: Login, negotiated: _Negotiated) -> None:
    path = encode(f"\\\\{login.host}\\{login.share}")
    body = struct.pack("<HHHH", 9, 0, HEADER_SIZE + 8, len(path))
    try:
        link.tree_id, kind, flags = link.call(Call(Command.TREE_CONNECT, body + path, _read_share))
    except SmbError as error:
        raise share_refusal(error, login.host, login.share, login.user) from error
    if kind != _DISK:
        raise StorageRefused(
            f'share "{login.share}" of "{login.host}" has no files',
            "it is for printers or the like",
        )
    if flags & _ENCRYPT_SHARE and not link.is_encrypted:
        _encrypt(link)
    if not (login.signing or negotiated.security_mode & _SIGNING_REQUIRED):
        link.signer = None


def _read_share(message: memoryview) -> tuple[int, int, int]:
    (tree_id,) = unpack("<I", message, 36)
    kind, _, flags = unpack("<BBI", message, HEADER_SIZE + 2)
    return tree_id, kind, flags


# Whether somebody on the way talked both sides into an old version


def _validate(link: Link, negotiated: _Negotiated, client_id: bytes, mode: int) -> None:
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
