"""What the probes of storages say in the same words."""

from __future__ import annotations

from pipeline.report import format_size


def readable_size(size: int) -> str:
    """A number of bytes for people: `79.9 GiB`."""
    return format_size(size)
