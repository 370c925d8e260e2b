"""From a connection to a share: what is agreed on, who we are, how messages are protected."""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import spnego
from spnego.exceptions import SpnegoError

from pipeline.errors import StorageRefused
from stages.storages._smb.calls import HEADER_SIZE, cut, encode, unpack
from stages.storages._smb.crypto import CipherAlgorithm, Signer, derive_key, make_sealer
from stages.storages._smb.errors import login_refusal, share_refusal
from stages.storages._smb.link import CREDIT, Link
from stages.storages._smb.negotiate import (
    SIGNING_ENABLED,
    SIGNING_REQUIRED,
    Negotiated,
    negotiate,
    validate,
)
from stages.storages._smb.types import Call, Command, Dialect, Malformed, SmbError, Status

_GUEST, _ANONYMOUS, _ENCRYPT_SESSION = 1, 2, 4
_ENCRYPT_SHARE = 0x8000
_DISK = 1


@dataclass(frozen=True)
class Login:
    """Who we are, and what we insist on."""

    host: str
    share: str
    user: str
    password: str
    signing: bool
    encrypt: bool


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
        negotiated = link.call(negotiate(client_id, mode))
    except SmbError as error:
        raise StorageRefused(
            f'"{login.host}" does not speak version 2 or 3 of SMB', f"it answered with {error}"
        ) from error
    link.dialect, link.limits = negotiated.dialect, negotiated.limits
    link.has_large_messages = max(negotiated.limits) > CREDIT
    if login.encrypt and negotiated.cipher is None:
        raise StorageRefused(
            f'"{login.host}" cannot encrypt', "remove encrypt, or switch encryption on there"
        )
    _set_up_session(link, login, negotiated, previous_session)
    _connect_to_share(link, login, negotiated)
    if link.dialect < Dialect.SMB_3_1_1 and (link.signer or link.is_encrypted):
        validate(link, negotiated, client_id, mode)


def _mode(login: Login) -> int:
    return SIGNING_REQUIRED if login.signing else SIGNING_ENABLED


# What both sides can do


# Who we are


def _set_up_session(
    link: Link, login: Login, negotiated: Negotiated, previous_session: int
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
    link: Link, login: Login, negotiated: Negotiated, key: bytes, history: list[bytes]
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


def _connect_to_share(link: Link, login: Login, negotiated: Negotiated) -> None:
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
    if not (login.signing or negotiated.security_mode & SIGNING_REQUIRED):
        link.signer = None


def _read_share(message: memoryview) -> tuple[int, int, int]:
    (tree_id,) = unpack("<I", message, 36)
    kind, _, flags = unpack("<BBI", message, HEADER_SIZE + 2)
    return tree_id, kind, flags
