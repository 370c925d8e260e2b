"""Small pieces that streams of chunks are put together from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from pipeline.errors import StageError

Step = Callable[[Iterator[bytes]], Iterator[bytes]]
"""Takes a stream, gives a stream: `apply` or `invert` of a transform."""


@dataclass
class Meter:
    """How much has passed a place; written by one thread, read by the display."""

    name: str
    bytes: int = 0


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


def metered(chunks: Iterator[bytes], meter: Meter) -> Iterator[bytes]:
    """Count what passes, and give an error the name of the stage it comes from."""
    with naming(f"stage {meter.name}"):
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
