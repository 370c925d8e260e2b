"""How large the parts of an upload are: pure functions.

An upload has 10,000 parts at most, and nobody knows beforehand how long a stream will be. Parts
start small, because each of them is held in memory, and double every `STEP` parts until the rest of
the way to the largest object fits.
"""

from __future__ import annotations

from dataclasses import dataclass

MAX_PARTS = 10_000
STEP = 700
"""Parts of one size before it doubles. With 700, parts of 5 MiB grow to 1 GiB and reach 5 TiB."""
_LARGEST = 1 << 30


def part_size(number: int, first: int, largest: int) -> int:
    """Bytes of a part.

    Args:
        number: of the part, from 1 on.
        first: size of the first one.
        largest: size from which on they do not grow.
    """
    return max(first, min(first << (number - 1) // STEP, largest))


def capacity(first: int, largest: int) -> int:
    """Bytes that all parts hold together."""
    return sum(
        part_size(before + 1, first, largest) * min(STEP, MAX_PARTS - before)
        for before in range(0, MAX_PARTS, STEP)
    )


def largest_part(first: int, max_size: int) -> int:
    """How far parts must be allowed to grow for an object of `max_size` bytes."""
    largest = first
    while largest < _LARGEST and capacity(first, largest) < max_size:
        largest = min(2 * largest, _LARGEST)
    return largest


def in_flight(size: int, first: int, parallel: int) -> int:
    """How many parts of `size` bytes may be on their way at once.

    As many as fit where `parallel` parts of the first size would; and two, so that one can wait for
    its answer while another one moves.
    """
    return min(parallel, max(2, first * parallel // size))


@dataclass(frozen=True)
class PartPlan:
    """The sizes of the parts of one writer.

    Attributes:
        first: bytes of the first part.
        parallel: how many are on their way at once, while they are small.
        max_size: bytes of the largest object.
    """

    first: int
    parallel: int
    max_size: int

    @property
    def largest(self) -> int:
        return largest_part(self.first, self.max_size)

    @property
    def memory(self) -> int:
        """Bytes held at most: the parts on their way, and the one that is being filled."""
        sizes = {
            part_size(1 + step, self.first, self.largest) for step in range(0, MAX_PARTS, STEP)
        }
        return max(size * (1 + in_flight(size, self.first, self.parallel)) for size in sizes)
