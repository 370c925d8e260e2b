"""Decoding of streams that are rows of frames: zstd frames, gzip members, xz streams."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from typing import Protocol

from pipeline.errors import TransformError
from pipeline.stage import CHUNK

_FED = 1 << 17
"""Bytes given to a decoder at once: it copies what follows the end of its frame."""


class Decoder(Protocol):
    """What the decompressors of `lzma`, `lz4.frame` and `compression.zstd` have in common."""

    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes | None: ...

    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


def decode_frames(
    chunks: Iterable[bytes],
    start: Callable[[], Decoder],
    failures: tuple[type[Exception], ...],
    kind: str,
) -> Generator[bytes, None, None]:
    """Decode frame after frame, each with a decoder of its own; the pieces may be empty.

    A cut exactly between two frames cannot be seen here; the stored size in the manifest tells.

    Args:
        failures: what a decoder raises for damaged data.
        kind: the name of the format, for messages.

    Raises:
        TransformError: the stream is damaged, ends inside a frame, or has no frame at all.
    """
    decoder: Decoder | None = None
    seen = False
    for chunk in chunks:
        for offset in range(0, len(chunk), _FED):
            data = chunk[offset : offset + _FED]
            while data or (decoder is not None and not decoder.needs_input):
                decoder = start() if decoder is None else decoder
                seen = True
                try:
                    piece = decoder.decompress(data, CHUNK)
                except failures as problem:
                    raise TransformError(f"the {kind} stream is damaged: {problem}") from None
                yield piece
                data, decoder = (
                    (decoder.unused_data or b"", None) if decoder.eof else (b"", decoder)
                )
    if decoder is not None:
        raise TransformError(f"the {kind} stream is cut off")
    if not seen:
        raise TransformError(f"the {kind} stream is empty")
