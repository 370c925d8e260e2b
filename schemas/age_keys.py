"""The text form of age keys: Bech32 with its checksum (BIP 173), as pure functions.

Messages never repeat the text: somebody may have put a private key where a public one belongs.
"""

from __future__ import annotations

from collections.abc import Iterable

RECIPIENT = "age"
IDENTITY = "age-secret-key-"
_KEY_BYTES = 32
_CHARSET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_GENERATORS = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_CHECKSUM = 6


def validate_recipient(text: str) -> str | None:
    """What is wrong with a public key, as the end of a sentence about it, or None."""
    try:
        decode_recipient(text)
    except ValueError as problem:
        return str(problem)
    return None


def decode_recipient(text: str) -> bytes:
    """The 32 bytes of a public key (`age1...`).

    Raises:
        ValueError: with a reason that does not repeat the text.
    """
    if text.lower().startswith(IDENTITY):
        raise ValueError("is a private key; give the public key that belongs to it (age1...)")
    if text.startswith("ssh-"):
        raise ValueError("is an SSH key, which is not supported; make a key with age-keygen")
    if not text.startswith(RECIPIENT + "1"):
        raise ValueError("is not a public key of age; it must start with age1")
    return _decode_key(text, RECIPIENT)


def decode_identity(text: str) -> bytes:
    """The 32 bytes of a private key (`AGE-SECRET-KEY-1...`).

    Raises:
        ValueError: with a reason that does not repeat the text.
    """
    if not text.startswith(IDENTITY.upper() + "1"):
        raise ValueError("is not a private key of age; it must start with AGE-SECRET-KEY-1")
    return _decode_key(text, IDENTITY)


def decode_bech32(text: str) -> tuple[str, bytes]:
    """The lower-case prefix and the data, after the checksum was verified.

    Raises:
        ValueError: with a reason that does not repeat the text.
    """
    if text.lower() != text and text.upper() != text:
        raise ValueError("mixes upper and lower case")
    prefix, separator, encoded = text.lower().rpartition("1")
    values = [_CHARSET.find(character) for character in encoded]
    if not (prefix and separator) or min(values, default=0) < 0:
        raise ValueError("has a character that cannot be part of a key")
    if len(values) < _CHECKSUM or _polymod([*_expand(prefix), *values]) != 1:
        raise ValueError("has a typing mistake or is not complete (its checksum does not match)")
    return prefix, _to_bytes(values[:-_CHECKSUM])


def encode_bech32(prefix: str, data: bytes) -> str:
    """The inverse of `decode_bech32`, in lower case."""
    values = _to_values(data)
    checksum = _polymod([*_expand(prefix), *values, *[0] * _CHECKSUM]) ^ 1
    values += [checksum >> 5 * (_CHECKSUM - 1 - place) & 31 for place in range(_CHECKSUM)]
    return prefix + "1" + "".join(_CHARSET[value] for value in values)


def _decode_key(text: str, expected: str) -> bytes:
    prefix, data = decode_bech32(text)
    if prefix != expected:
        raise ValueError("is a kind of key that is not supported; use one made by age-keygen")
    if len(data) != _KEY_BYTES:
        raise ValueError(f"is not {_KEY_BYTES} bytes long")
    return data


def _expand(prefix: str) -> list[int]:
    codes = [ord(character) for character in prefix]
    return [code >> 5 for code in codes] + [0] + [code & 31 for code in codes]


def _polymod(values: Iterable[int]) -> int:
    checksum = 1
    for value in values:
        top = checksum >> 25
        checksum = (checksum & 0x1FFFFFF) << 5 ^ value
        for place, generator in enumerate(_GENERATORS):
            if top >> place & 1:
                checksum ^= generator
    return checksum


def _to_bytes(values: list[int]) -> bytes:
    """Join groups of 5 bits; what is left over must be short and zero (one text per key)."""
    number = bits = 0
    data = bytearray()
    for value in values:
        number, bits = number << 5 | value, bits + 5
        if bits >= 8:
            bits -= 8
            data.append(number >> bits & 255)
            number &= (1 << bits) - 1
    if bits >= 5 or number:
        raise ValueError("has bits left over")
    return bytes(data)


def _to_values(data: bytes) -> list[int]:
    number = bits = 0
    values: list[int] = []
    for byte in data:
        number, bits = number << 8 | byte, bits + 8
        while bits >= 5:
            bits -= 5
            values.append(number >> bits & 31)
            number &= (1 << bits) - 1
    return [*values, number << (5 - bits) & 31] if bits else values
