"""How messages are signed and encrypted ([MS-SMB2] 3.1.4)."""

from __future__ import annotations

import hmac
import struct
from abc import ABC, abstractmethod
from collections.abc import Sequence
from enum import IntEnum

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESCCM
from cryptography.hazmat.primitives.cmac import CMAC

from stages.storages._smb.types import Malformed
from stages.storages._tcp import Buffer

_TAG = 16
_BLOCK = 16
TRANSFORM_SIZE = 52
"""Bytes before an encrypted message."""
TRANSFORM_MARK = b"\xfdSMB"


class SigningAlgorithm(IntEnum):
    """By the numbers that a negotiation uses."""

    HMAC_SHA256 = 0
    AES_CMAC = 1
    AES_GMAC = 2

    @property
    def label(self) -> str:
        return self.name.replace("_", "-")


class CipherAlgorithm(IntEnum):
    """By the numbers that a negotiation uses."""

    AES_128_CCM = 1
    AES_128_GCM = 2
    AES_256_CCM = 3
    AES_256_GCM = 4

    @property
    def label(self) -> str:
        return self.name.replace("_", "-")

    @property
    def key_bits(self) -> int:
        return 256 if self >= CipherAlgorithm.AES_256_CCM else 128

    @property
    def is_gcm(self) -> bool:
        return self in (CipherAlgorithm.AES_128_GCM, CipherAlgorithm.AES_256_GCM)


def derive_key(key: bytes, label: bytes, context: bytes, bits: int = 128) -> bytes:
    """NIST SP 800-108, in counter mode with HMAC-SHA256; one round is enough for 256 bits."""
    message = struct.pack(">I", 1) + label + b"\0" + context + struct.pack(">I", bits)
    return hmac.digest(key, message, "sha256")[: bits // 8]


class Signer:
    """Makes the signatures of one session, for both directions."""

    def __init__(self, algorithm: SigningAlgorithm, key: bytes) -> None:
        self.algorithm = algorithm
        self._key = key

    def sign(self, parts: Sequence[Buffer], message_id: int, from_server: bool) -> bytes:
        """The signature of a message in parts, whose own field for it is zero."""
        if self.algorithm == SigningAlgorithm.AES_GMAC:
            return self._gmac(parts, struct.pack("<QI", message_id, from_server))
        if self.algorithm == SigningAlgorithm.AES_CMAC:
            cmac = CMAC(algorithms.AES(self._key))
            for part in parts:
                cmac.update(bytes(part))
            return cmac.finalize()
        digest = hmac.new(self._key, digestmod="sha256")
        for part in parts:
            digest.update(part)
        return digest.digest()[:_TAG]

    def _gmac(self, parts: Sequence[Buffer], nonce: bytes) -> bytes:
        encryptor = Cipher(algorithms.AES(self._key), modes.GCM(nonce)).encryptor()
        for part in parts:
            encryptor.authenticate_additional_data(part)
        encryptor.finalize()
        return encryptor.tag


class Sealer(ABC):
    """Encrypts what one session sends, and decrypts what it receives."""

    nonce_size: int

    def __init__(
        self, algorithm: CipherAlgorithm, session_id: int, key: bytes, server_key: bytes
    ) -> None:
        self.algorithm = algorithm
        self._session_id = session_id
        self._key = key
        self._server_key = server_key
        self._sent = 0

    @abstractmethod
    def _encrypt(
        self, nonce: bytes, parts: Sequence[Buffer], header: bytes
    ) -> tuple[Buffer, bytes]:
        """Encrypted bytes, and the tag."""

    @abstractmethod
    def _decrypt(self, nonce: bytes, tag: bytes, data: memoryview, header: bytes) -> Buffer:
        """Raises InvalidTag."""

    def seal(self, parts: Sequence[Buffer]) -> list[Buffer]:
        """An encrypted message, in parts again."""
        self._sent += 1  # No nonce is used twice: each session has keys of its own.
        nonce = self._sent.to_bytes(self.nonce_size, "little")
        size = sum(map(len, parts))
        header = struct.pack("<16sIHHQ", nonce, size, 0, 1, self._session_id)
        data, tag = self._encrypt(nonce, parts, header)
        return [TRANSFORM_MARK + tag + header, data]

    def unseal(self, message: memoryview) -> memoryview:
        """What is in an encrypted message.

        Raises:
            Malformed: it was not encrypted with our key, or was changed on its way.
        """
        if len(message) < TRANSFORM_SIZE:
            raise Malformed("an encrypted message is too short")
        tag, header = bytes(message[4:20]), bytes(message[20:TRANSFORM_SIZE])
        try:
            data = self._decrypt(header[: self.nonce_size], tag, message[TRANSFORM_SIZE:], header)
        except InvalidTag:
            raise Malformed("an encrypted message was changed on its way") from None
        return memoryview(data)


class GcmSealer(Sealer):
    """Without joining what it encrypts."""

    nonce_size = 12

    def _encrypt(
        self, nonce: bytes, parts: Sequence[Buffer], header: bytes
    ) -> tuple[Buffer, bytes]:
        encryptor = Cipher(algorithms.AES(self._key), modes.GCM(nonce)).encryptor()
        encryptor.authenticate_additional_data(header)
        out, at = bytearray(sum(map(len, parts)) + _BLOCK - 1), 0
        view = memoryview(out)
        for part in parts:
            at += encryptor.update_into(part, view[at:])
        encryptor.finalize()
        return view[:at], encryptor.tag

    def _decrypt(self, nonce: bytes, tag: bytes, data: memoryview, header: bytes) -> Buffer:
        decryptor = Cipher(algorithms.AES(self._server_key), modes.GCM(nonce, tag)).decryptor()
        decryptor.authenticate_additional_data(header)
        out = bytearray(len(data) + _BLOCK - 1)
        size = decryptor.update_into(data, out)
        decryptor.finalize()
        return memoryview(out)[:size]


class CcmSealer(Sealer):
    """All that SMB 3.0 has."""

    nonce_size = 11

    def _encrypt(
        self, nonce: bytes, parts: Sequence[Buffer], header: bytes
    ) -> tuple[Buffer, bytes]:
        sealed = AESCCM(self._key, _TAG).encrypt(nonce, b"".join(parts), header)
        return memoryview(sealed)[:-_TAG], sealed[-_TAG:]

    def _decrypt(self, nonce: bytes, tag: bytes, data: memoryview, header: bytes) -> Buffer:
        return AESCCM(self._server_key, _TAG).decrypt(nonce, bytes(data) + tag, header)


def make_sealer(
    algorithm: CipherAlgorithm, session_id: int, key: bytes, server_key: bytes
) -> Sealer:
    kind = GcmSealer if algorithm.is_gcm else CcmSealer
    return kind(algorithm, session_id, key, server_key)
