"""Zstandard, in frames of 64 MiB: each can be decompressed by itself, all of them by `zstd -d`."""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterable, Iterator

from pipeline.context import StageContext
from pipeline.stage import Transform
from schemas.transforms import ZstdTransform
from stages.transforms._chunks import join_pieces
from stages.transforms._frames import decode_frames
from stages.transforms._pool import cores

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

FRAME = 64 << 20
"""Plain bytes in a frame."""
_LONG_WINDOW_LOG = 26
"""A window as large as a frame finds everything; `zstd -d` takes up to 27 without an option."""
_JOB = 1 << 20
"""What a worker thread compresses by itself."""
_OVERLAP = 7
"""How much of a window it sees of what came before: a quarter; so nothing is lost by small jobs."""
_STATES = ((1, 1, 6), (2, 1, 8), (6, 2, 10), (8, 2, 20), (12, 4, 48), (15, 4, 72), (19, 8, 92))
"""Up to which level: MiB of window and of tables of one encoder (measured)."""


class Zstd(Transform):
    """Compresses with Zstandard; with `threads`, the library's own worker threads do it."""

    suffix = ".zst"
    undo = "zstd -d"

    def __init__(self, spec: ZstdTransform) -> None:
        self._spec = spec
        self._threads = default_threads(cores()) if spec.threads is None else spec.threads
        self.memory = _memory(spec.level, self._threads, spec.long)

    def apply(self, chunks: Iterable[bytes], context: StageContext) -> Iterator[bytes]:
        return join_pieces(self._encode(chunks))

    def invert(self, chunks: Iterable[bytes], context: StageContext) -> Iterator[bytes]:
        pieces = decode_frames(chunks, zstd.ZstdDecompressor, (zstd.ZstdError,), "zstd")
        return join_pieces(pieces)

    def _encode(self, chunks: Iterable[bytes]) -> Generator[bytes, None, None]:
        encoder = zstd.ZstdCompressor(options=self._options())
        left = FRAME
        begun = False
        for chunk in chunks:
            rest = memoryview(chunk)
            while rest:
                part, rest = rest[:left], rest[left:]
                left -= len(part)
                mode = encoder.CONTINUE if left else encoder.FLUSH_FRAME
                yield encoder.compress(part, mode)
                begun, left = True, left or FRAME
        # An empty stream is one empty frame; after a whole frame no empty one is needed.
        if left < FRAME or not begun:
            yield encoder.flush(encoder.FLUSH_FRAME)

    def _options(self) -> dict[int, int]:
        parameter = zstd.CompressionParameter
        options: dict[int, int] = {
            parameter.compression_level: self._spec.level,
            parameter.checksum_flag: 1,
            parameter.nb_workers: self._threads,
        }
        if self._threads and not self._spec.long:
            options[parameter.job_size] = _JOB
            options[parameter.overlap_log] = _OVERLAP
        if self._spec.long:
            options[parameter.enable_long_distance_matching] = 1
            options[parameter.window_log] = _LONG_WINDOW_LOG
        return options


def default_threads(processors: int) -> int:
    """Worker threads where the configuration does not say; with two cores the other one is busy:
    files gain an eighth of the time there, dumps of a server on the same machine lose as much.
    """
    return 0 if processors <= 2 else min(processors - 1, 4)


def _memory(level: int, threads: int, long: bool) -> int:
    """Bytes at most (measured); with `long`, jobs are of four windows."""
    window, tables = next(row[1:] for row in _STATES if level <= row[0])
    if long:
        jobs = 4 * window * (threads + 8) if threads else 0
        return (tables * (threads + 1) + 2 + jobs << 20) + FRAME + (24 << 20)
    if threads:
        return (tables // 2 + window) * threads + 8 << 20
    return tables + 2 << 20


COMPONENT = Zstd
