"""LZ4 frames with a checksum of the content."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from typing import Any

from pipeline.context import StageContext
from pipeline.errors import TransformError
from pipeline.stage import CHUNK, Transform
from schemas.transforms import Lz4Transform
from stages.transforms._chunks import join_pieces
from stages.transforms._frames import decode_frames


class Lz4(Transform):
    """Compresses with LZ4; the package `lz4` is not part of the installation."""

    suffix = ".lz4"
    undo = "lz4 -d"

    def __init__(self, spec: Lz4Transform) -> None:
        self._level = spec.level
        self.memory = 8 * CHUNK

    def apply(self, chunks: Iterable[bytes], context: StageContext) -> Iterator[bytes]:
        return join_pieces(self._encode(chunks))

    def invert(self, chunks: Iterable[bytes], context: StageContext) -> Iterator[bytes]:
        start = _package().LZ4FrameDecompressor
        return join_pieces(decode_frames(chunks, start, (RuntimeError,), "lz4"))

    def probe(self) -> list[str]:
        _package()
        return ["the package lz4 is installed"]

    def _encode(self, chunks: Iterable[bytes]) -> Generator[bytes, None, None]:
        frame = _package()
        encoder = frame.LZ4FrameCompressor(
            block_size=frame.BLOCKSIZE_MAX1MB,
            compression_level=self._level,
            content_checksum=True,
        )
        yield encoder.begin()
        for chunk in chunks:
            yield encoder.compress(chunk)
        yield encoder.flush()


def _package() -> Any:
    try:
        import lz4.frame
    except ImportError:
        raise TransformError(
            'the package "lz4" is not installed', "install it, or use zstd with level 1"
        ) from None
    return lz4.frame


COMPONENT = Lz4
