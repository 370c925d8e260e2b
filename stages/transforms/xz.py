"""XZ with CRC64, as `xz` writes it."""

from __future__ import annotations

import lzma
from collections.abc import Generator, Iterable, Iterator

from pipeline.context import StageContext
from pipeline.stage import CHUNK, Transform
from schemas.transforms import XzTransform
from stages.transforms._chunks import join_pieces
from stages.transforms._frames import decode_frames

# What the manual of xz says that each preset needs to compress, in MiB.
_MEMORY = (3, 9, 17, 32, 48, 94, 94, 186, 370, 674)


class Xz(Transform):
    """Compresses with LZMA2 on one core."""

    suffix = ".xz"
    undo = "xz -d"

    def __init__(self, spec: XzTransform) -> None:
        self._preset = spec.level
        self.memory = (_MEMORY[spec.level] << 20) + 2 * CHUNK

    def apply(self, chunks: Iterable[bytes], context: StageContext) -> Iterator[bytes]:
        return join_pieces(self._encode(chunks))

    def invert(self, chunks: Iterable[bytes], context: StageContext) -> Iterator[bytes]:
        return join_pieces(decode_frames(chunks, _decoder, (lzma.LZMAError,), "xz"))

    def _encode(self, chunks: Iterable[bytes]) -> Generator[bytes, None, None]:
        encoder = lzma.LZMACompressor(lzma.FORMAT_XZ, lzma.CHECK_CRC64, preset=self._preset)
        for chunk in chunks:
            yield encoder.compress(chunk)
        yield encoder.flush()


def _decoder() -> lzma.LZMADecompressor:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ)


COMPONENT = Xz
