"""Small pieces that streams of chunks are put together from."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from pipeline.errors import StageError
from pipeline.report import Outcome

if TYPE_CHECKING:
    from pipeline.context import StageContext
    from pipeline.stage import Transform

Step = Callable[[Iterator[bytes]], Iterator[bytes]]
"""Takes a stream, gives a stream: `apply` or `invert` of a transform."""


@dataclass
class Meter:
    """How much has passed a place; written by one thread, read by the display."""

    name: str
    bytes: int = 0
    ended: float | None = None
    """When the last of it had passed, or it failed (monotonic); None before."""
    outcome: Outcome = Outcome.INTERRUPTED
    """FAILED only where the failure is its own."""

    @contextmanager
    def running(self) -> Iterator[None]:
        """Note when and how the block ends."""
        try:
            yield
            self.outcome = Outcome.OK
        except StageError as error:
            # One that has a name already comes from a stage before this one.
            self.outcome = Outcome.INTERRUPTED if error.stage else Outcome.FAILED
            raise
        finally:
            self.ended = time.monotonic()


@contextmanager
def chained(chunks: Iterator[bytes], steps: Sequence[Step]) -> Iterator[Iterator[bytes]]:
    """Pass the chunks through all steps, in order; at the end every link is closed, the last one
    first.

    Closing the outermost generator alone would leave the inner ones, and what they hold (children,
    threads), to the garbage collector.
    """
    links = [chunks]
    for step in steps:
        links.append(step(links[-1]))
    try:
        yield links[-1]
    finally:
        for link in reversed(links):
            close = getattr(link, "close", None)
            if close is not None:
                close()


def steps_of(
    transforms: Sequence[Transform], meters: Sequence[Meter], context: StageContext
) -> list[Step]:
    """The steps of `apply`, each counted by its meter."""
    return [
        partial(_applied, transform, meter, context)
        for transform, meter in zip(transforms, meters, strict=True)
    ]


def _applied(
    transform: Transform, meter: Meter, context: StageContext, chunks: Iterator[bytes]
) -> Iterator[bytes]:
    return metered(transform.apply(chunks, context), meter)


def metered(chunks: Iterator[bytes], meter: Meter) -> Iterator[bytes]:
    """Count what passes, and give an error the name of the stage it comes from."""
    with naming(f"stage {meter.name}"), meter.running():
        for chunk in chunks:
            meter.bytes += len(chunk)
            yield chunk


@contextmanager
def naming(stage: str) -> Iterator[None]:
    """Give an error that passes the name of its stage, unless it has one from further inside."""
    try:
        yield
    except StageError as error:
        error.stage = error.stage or stage
        raise
    except Exception as error:
        # An error in the code of a stage, perhaps of a module: people want to know which.
        vars(error).setdefault("stage", stage)
        raise
