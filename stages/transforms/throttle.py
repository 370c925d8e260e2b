"""A limit on the mean rate of a stream."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from pipeline.context import StageContext
from pipeline.stage import CHUNK, Transform
from schemas.transforms import ThrottleTransform

_BURST = 1.0
_STEPS = 8
_SMALLEST = 512


class Throttle(Transform):
    """Delays chunks: a token bucket that holds one second's worth of bytes and starts empty.

    Chunks are cut to an eighth of a second, so that progress is smooth at any rate.
    """

    suffix = ""
    changes_bytes = False
    undo = ""
    memory = CHUNK

    def __init__(self, spec: ThrottleTransform) -> None:
        self._rate = spec.rate
        self._step = min(CHUNK, max(_SMALLEST, spec.rate // _STEPS))

    def apply(self, chunks: Iterable[bytes], context: StageContext) -> Iterator[bytes]:
        due = time.monotonic()
        for chunk in chunks:
            for start in range(0, len(chunk), self._step):
                piece = chunk[start : start + self._step]
                now = time.monotonic()
                due = max(due, now - _BURST) + len(piece) / self._rate
                if due > now:
                    context.teardown.sleep(due - now)
                yield piece

    def invert(self, chunks: Iterable[bytes], context: StageContext) -> Iterator[bytes]:
        yield from chunks


COMPONENT = Throttle
