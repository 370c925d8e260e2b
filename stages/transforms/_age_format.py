"""The age file format, version 1 (c2sp.org/age): keys, header and payload, over `cryptography`.

::

    age-encryption.org/v1
    -> X25519 <share>              one stanza for each recipient, with the file key wrapped for it
    <wrapped file key>
    --- <MAC of the header>
    <16 bytes nonce> <64 KiB chunks, each with a 16 byte tag>
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from pipeline.errors import TransformError

VERSION = b"age-encryption.org/v1\n"
FILE_KEY = 16
TAG = 16
BLOCK = 64 << 10
"""Plain bytes in a chunk of the payload."""
SCRYPT_LOG_N = 18
"""What `age -p` uses: 256 MiB and about a second."""
_MAX_SCRYPT_LOG_N = 20
_MAX_HEADER = 1 << 20
_MAX_STANZAS = 128
_COLUMNS = 64
_WRAP_NONCE = bytes(12)
_ARGUMENTS = re.compile(rb"->((?: [!-~]+)+)")
_WORK_FACTOR = re.compile(r"[1-9][0-9]{0,3}")


class AgeError(TransformError):
    """The stream is not what the format allows."""


class NoIdentityFits(TransformError):
    """The header is well formed, but none of the keys opens it."""


@dataclass(frozen=True)
class Stanza:
    """The file key, wrapped for one recipient."""

    arguments: tuple[str, ...]
    body: bytes


class Recipient(Protocol):
    """Who a stream is encrypted to."""

    def wrap(self, file_key: bytes) -> Stanza: ...


class Identity(Protocol):
    """Who may decrypt a stream."""

    def unwrap(self, stanza: Stanza) -> bytes | None:
        """The file key, or None when the stanza is for somebody else.

        Raises:
            AgeError: the stanza is of our kind, but malformed.
        """


class X25519Recipient:
    """A public key of 32 bytes."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def wrap(self, file_key: bytes) -> Stanza:
        secret = X25519PrivateKey.generate()
        share = secret.public_key().public_bytes_raw()
        try:
            shared = secret.exchange(X25519PublicKey.from_public_bytes(self._key))
        except ValueError:
            raise TransformError("a recipient is not a usable public key") from None
        body = ChaCha20Poly1305(_x25519_key(shared, share, self._key)).encrypt(
            _WRAP_NONCE, file_key, None
        )
        return Stanza(("X25519", _encode(share)), body)


class X25519Identity:
    """A private key of 32 bytes."""

    def __init__(self, key: bytes) -> None:
        self._key = X25519PrivateKey.from_private_bytes(key)
        self.recipient = self._key.public_key().public_bytes_raw()
        """The public key that belongs to it."""

    def unwrap(self, stanza: Stanza) -> bytes | None:
        if stanza.arguments[0] != "X25519":
            return None
        share = _argument(stanza, count=2, size=32)
        try:
            shared = self._key.exchange(X25519PublicKey.from_public_bytes(share))
        except ValueError:
            raise AgeError("the age header is damaged: it has a weak share") from None
        return _open(_x25519_key(shared, share, self.recipient), stanza)


class Passphrase:
    """A passphrase: recipient and identity at once."""

    def __init__(self, passphrase: str, log_n: int = SCRYPT_LOG_N) -> None:
        self._passphrase = passphrase.encode()
        self._log_n = log_n

    def wrap(self, file_key: bytes) -> Stanza:
        salt = os.urandom(16)
        body = ChaCha20Poly1305(self._key(salt, self._log_n)).encrypt(_WRAP_NONCE, file_key, None)
        return Stanza(("scrypt", _encode(salt), str(self._log_n)), body)

    def unwrap(self, stanza: Stanza) -> bytes | None:
        if stanza.arguments[0] != "scrypt":
            return None
        salt = _argument(stanza, count=3, size=16)
        if not _WORK_FACTOR.fullmatch(stanza.arguments[2]):
            raise AgeError("the age header is damaged: its work factor is no number")
        log_n = int(stanza.arguments[2])
        if log_n > _MAX_SCRYPT_LOG_N:
            raise AgeError(f"the passphrase's work factor is above {_MAX_SCRYPT_LOG_N}")
        return _open(self._key(salt, log_n), stanza)

    def _key(self, salt: bytes, log_n: int) -> bytes:
        salt = b"age-encryption.org/v1/scrypt" + salt
        return Scrypt(salt, 32, 1 << log_n, 8, 1).derive(self._passphrase)


def write_header(file_key: bytes, recipients: Sequence[Recipient]) -> bytes:
    """The header, down to the newline before the payload."""
    lines = [VERSION]
    for stanza in (recipient.wrap(file_key) for recipient in recipients):
        lines.append(f"-> {' '.join(stanza.arguments)}\n".encode())
        body = _encode(stanza.body)
        # A last line of less than 64 columns marks the end, so it may have to be empty.
        for start in range(0, len(body) + 1, _COLUMNS):
            lines.append(f"{body[start : start + _COLUMNS]}\n".encode())
    head = b"".join(lines) + b"---"
    return head + b" " + _encode(_header_mac(file_key, head)).encode() + b"\n"


def split_header(data: bytes) -> tuple[bytes, bytes] | None:
    """The header and what follows, or None when more bytes are needed to find its end.

    Raises:
        AgeError: this cannot become a header.
    """
    if not data.startswith(VERSION[: len(data)]):
        raise AgeError("the stream is not encrypted with age, or its header is damaged")
    mac = data.find(b"\n---")
    end = data.find(b"\n", mac + 1) + 1 if mac >= 0 else 0
    if end:
        return data[:end], data[end:]
    if len(data) > _MAX_HEADER:
        raise AgeError("the age header has no end")
    return None


def read_header(header: bytes, identities: Sequence[Identity]) -> bytes:
    """The file key.

    Raises:
        AgeError: the header is malformed, or its MAC does not match.
        NoIdentityFits: none of the keys opens it.
    """
    head, _, mac_text = header.removesuffix(b"\n").rpartition(b"\n---")
    stanzas = list(_parse_stanzas(head.removeprefix(VERSION[:-1])))
    mac = _decode(mac_text[1:], 32)
    if not mac_text.startswith(b" ") or mac is None:
        raise AgeError("the age header is damaged: its MAC is malformed")
    if len(stanzas) > 1 and any(stanza.arguments[0] == "scrypt" for stanza in stanzas):
        raise AgeError("the age header mixes a passphrase with other keys")
    for identity in identities:
        for stanza in stanzas:
            file_key = identity.unwrap(stanza)
            if file_key is not None:
                if not hmac.compare_digest(mac, _header_mac(file_key, head + b"\n---")):
                    raise AgeError("the age header is damaged: its MAC does not match")
                return file_key
    raise NoIdentityFits("no identity fits", "the object was encrypted to other keys")


def payload_cipher(file_key: bytes, nonce: bytes) -> ChaCha20Poly1305:
    """What encrypts the chunks of the payload."""
    return ChaCha20Poly1305(_derive(file_key, nonce, b"payload"))


def _parse_stanzas(text: bytes) -> Iterator[Stanza]:
    lines = iter(text.split(b"\n")[1:])
    number = 0
    for line in lines:
        match = _ARGUMENTS.fullmatch(line)
        number += 1
        if match is None or number > _MAX_STANZAS:
            raise AgeError(f"the age header is damaged at recipient {number}")
        body = b""
        for body_line in lines:
            body += body_line
            if len(body_line) != _COLUMNS:
                break
        else:
            raise AgeError(f"the age header is damaged: recipient {number} has no end")
        decoded = _decode(body)
        if len(body_line) > _COLUMNS or decoded is None:
            raise AgeError(f"the age header is damaged at recipient {number}")
        yield Stanza(tuple(match[1][1:].decode("ascii").split(" ")), decoded)
    if not number:
        raise AgeError("the age header is damaged: it has no recipient")


def _argument(stanza: Stanza, count: int, size: int) -> bytes:
    """The decoded second argument of one of our own stanzas, once its shape was checked."""
    value = _decode(stanza.arguments[1].encode(), size) if len(stanza.arguments) == count else None
    if value is None or len(stanza.body) != FILE_KEY + TAG:
        raise AgeError(f"the age header is damaged: its {stanza.arguments[0]} stanza is malformed")
    return value


def _open(key: bytes, stanza: Stanza) -> bytes | None:
    try:
        return ChaCha20Poly1305(key).decrypt(_WRAP_NONCE, stanza.body, None)
    except InvalidTag:
        return None


def _x25519_key(shared: bytes, share: bytes, recipient: bytes) -> bytes:
    return _derive(shared, share + recipient, b"age-encryption.org/v1/X25519")


def _header_mac(file_key: bytes, head: bytes) -> bytes:
    return hmac.new(_derive(file_key, b"", b"header"), head, hashlib.sha256).digest()


def _derive(key: bytes, salt: bytes, info: bytes) -> bytes:
    return HKDF(hashes.SHA256(), 32, salt, info).derive(key)


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode().rstrip("=")


def _decode(text: bytes, size: int | None = None) -> bytes | None:
    """Unpadded and canonical Base64, of `size` bytes; None when it is anything else."""
    try:
        data = base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None
    right = _encode(data).encode() == text and size in (None, len(data))
    return data if right else None
