"""Sizes of chunks: most codecs say what they have in pieces of any size."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator

from pipeline.stage import CHUNK


def join_pieces(pieces: Generator[bytes, None, None]) -> Iterator[bytes]:
    """Make chunks of about 1 MiB out of pieces of any size, some of them perhaps empty.

    Only the last one is smaller, and none is larger than 3 MiB. Closing it closes `pieces`.
    """
    held: list[bytes] = []
    size = 0
    try:
        for piece in pieces:
            for part in _split(piece):
                held.append(part)
                size += len(part)
                if size >= CHUNK:
                    yield _whole(held)
                    held, size = [], 0
        if size:
            yield _whole(held)
    finally:
        pieces.close()


def cut_evenly(chunks: Iterable[bytes], size: int) -> Iterator[bytes]:
    """The same stream in blocks of `size` bytes; only the last one may be shorter."""
    held: list[bytes] = []
    missing = size
    for chunk in chunks:
        start = 0
        while len(chunk) - start >= missing:
            held.append(chunk[start : start + missing])
            start += missing
            yield _whole(held)
            held, missing = [], size
        if start < len(chunk):
            held.append(chunk[start:])
            missing -= len(chunk) - start
    if held:
        yield _whole(held)


def _split(piece: bytes) -> Iterable[bytes]:
    """A frame that several threads compressed ends in one piece of many mebibytes."""
    if len(piece) <= 2 * CHUNK:
        return (piece,)
    return (piece[start : start + CHUNK] for start in range(0, len(piece), CHUNK))


def _whole(held: list[bytes]) -> bytes:
    return held[0] if len(held) == 1 else b"".join(held)
