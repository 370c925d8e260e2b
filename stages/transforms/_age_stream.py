"""The payload of age: STREAM over ChaCha20-Poly1305, 64 KiB at a time (c2sp.org/age, Payload)."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator, Sequence
from itertools import chain

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from stages.transforms._age_format import (
    BLOCK,
    FILE_KEY,
    TAG,
    AgeError,
    Identity,
    Recipient,
    payload_cipher,
    read_header,
    split_header,
    write_header,
)

Buffer = bytes | bytearray | memoryview
_NONCE = 16
_CUT_OFF = "the age stream is cut off"


def encrypt(
    chunks: Iterable[bytes], recipients: Sequence[Recipient]
) -> Generator[bytes, None, None]:
    """Encrypt a stream to all of the recipients."""
    file_key, nonce = os.urandom(FILE_KEY), os.urandom(_NONCE)
    yield write_header(file_key, recipients) + nonce
    seal = payload_cipher(file_key, nonce).encrypt
    for number, (block, last) in enumerate(_blocks(chunks, BLOCK)):
        yield seal(_chunk_nonce(number, last), block, None)


def decrypt(
    chunks: Iterable[bytes], identities: Sequence[Identity]
) -> Generator[bytes, None, None]:
    """Decrypt a stream; what is yielded is authentic, but only complete at a normal end.

    Raises:
        AgeError: the stream is damaged, cut off, or not an age stream.
        NoIdentityFits: none of the identities opens it.
    """
    source = iter(chunks)
    header, rest = _take_header(source)
    file_key = read_header(header, identities)
    nonce, rest = _take(source, rest, _NONCE)
    cipher = payload_cipher(file_key, nonce)
    payload = chain([rest], source) if rest else source
    for number, (block, last) in enumerate(_blocks(payload, BLOCK + TAG)):
        plain, problem = _open_block(cipher, number, block, last)
        yield plain
        if problem is not None:
            raise AgeError(problem)


def _open_block(
    cipher: ChaCha20Poly1305, number: int, block: Buffer, last: bool
) -> tuple[bytes, str | None]:
    """The plain bytes, and what is wrong with the end of the stream."""
    if len(block) < TAG:
        raise AgeError(_CUT_OFF)
    try:
        plain = cipher.decrypt(_chunk_nonce(number, last), block, None)
    except InvalidTag:
        return _open_misplaced(cipher, number, block, last)
    if number and not plain:
        raise AgeError("the age stream ends with an empty chunk, which the format forbids")
    return plain, None


def _open_misplaced(
    cipher: ChaCha20Poly1305, number: int, block: Buffer, last: bool
) -> tuple[bytes, str]:
    """Tell a stream that ends too early or too late from damage: its last block is authentic."""
    try:
        # Only the last block of a stream may be short.
        if len(block) < BLOCK + TAG:
            raise InvalidTag
        plain = cipher.decrypt(_chunk_nonce(number, not last), block, None)
    except InvalidTag:
        what = "damaged or cut off" if last else "damaged"
        raise AgeError(f"the age stream is {what} in chunk {number + 1}") from None
    return plain, _CUT_OFF if last else "something follows the end of the age stream"


def _chunk_nonce(number: int, last: bool) -> bytes:
    return (number << 8 | last).to_bytes(12, "big")


def _blocks(chunks: Iterable[bytes], size: int) -> Iterator[tuple[Buffer, bool]]:
    """Blocks of `size` bytes, each with whether it is the last one.

    The last one is held back until the end is known, so that it is only empty when all is.
    """
    held = bytearray()
    for chunk in chunks:
        view = memoryview(chunk)
        start = 0
        if held:
            start = size - len(held)
            held += view[:start]
            if len(view) <= start:
                continue
            yield held, False
        stop = start + (len(view) - start - 1) // size * size
        for offset in range(start, stop, size):
            yield view[offset : offset + size], False
        held = bytearray(view[stop:])
    yield held, True


def _take_header(source: Iterator[bytes]) -> tuple[bytes, bytes]:
    data = b""
    for chunk in source:
        data += chunk
        parts = split_header(data)
        if parts is not None:
            return parts
    raise AgeError("the age stream is cut off in its header" if data else "the age stream is empty")


def _take(source: Iterator[bytes], data: bytes, size: int) -> tuple[bytes, bytes]:
    while len(data) < size:
        chunk = next(source, None)
        if chunk is None:
            raise AgeError(_CUT_OFF)
        data += chunk
    return data[:size], data[size:]
