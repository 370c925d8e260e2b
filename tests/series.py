"""A series of copies of one directory, without an engine: archives and indexes in memory."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pipeline.context import Findings, Increment, StageContext
from pipeline.stage import CHUNK
from schemas.sources import FilesSource
from stages.sources._files import listing
from stages.sources.files import Files
from tests import tree


@pytest.fixture
def quick_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are racy for some milliseconds only, which is how long their clock stands still."""
    monkeypatch.setattr(listing, "RACY_NS", 5_000_000)


RESTORE = [
    "tar",
    "--listed-incremental=/dev/null",
    "--xattrs",
    "--xattrs-include=*",
    "--acls",
    "--warning=no-timestamp",
]


@dataclass
class Copy:
    """One copy, and the index that the next one builds on."""

    archive: bytes
    index: bytes
    findings: Findings


@dataclass
class Series:
    """Takes copies of `root`, each on the one before."""

    root: Path
    options: dict[str, Any] = field(default_factory=dict)
    incremental: dict[str, Any] = field(default_factory=dict)
    copies: list[Copy] = field(default_factory=list)

    @property
    def source(self) -> Files:
        document = {
            "type": "files",
            "paths": [str(self.root)],
            "names": "relative",
            "incremental": self.incremental,
            **self.options,
        }
        return Files(FilesSource.model_validate(document), "shop")

    def copy(self, on: int | None = -1) -> Copy:
        """Take a copy; `on` says which of the copies it builds on, None: a full one."""
        source, kept = self.source, bytearray()
        base = self.copies[on].index if self.copies and on is not None else None
        context = StageContext()
        context.increment = Increment(
            kept.extend, None if base is None else lambda: (chunk for chunk in pieces(base))
        )
        (artifact,) = source.artifacts()
        archive = b"".join(source.stream(artifact, context))
        copy = Copy(archive, bytes(kept), context.findings)
        self.copies.append(copy)
        return copy

    def apply(self, copy: Copy, target: Path) -> list[str]:
        """Restore a copy onto those before it, with our own means."""
        source = self.source
        (artifact,) = source.artifacts()
        if copy is self.copies[0]:
            return list(source.restore(pieces(copy.archive), artifact, target, False))
        return list(source.apply(pieces(copy.archive), artifact, target))


def apply_with_tar(copy: Copy, target: Path) -> list[str]:
    """Restore a copy onto those before it with GNU tar; returns what it complained about."""
    target.mkdir(exist_ok=True)
    command = [*RESTORE, "-C", str(target), "-xpf", "-"]
    done = subprocess.run(command, input=copy.archive, capture_output=True, check=False)
    said = os.fsdecode(done.stderr).splitlines()
    return said if done.returncode == 0 else [*said, f"exit code {done.returncode}"]


def check(series: Series, copy: Copy, place: Path) -> None:
    """Restore the newest copy with GNU tar and our own means, and compare with the tree."""
    name = series.root.name
    assert apply_with_tar(copy, place / "tar") == []
    assert tree.differences(series.root, place / "tar" / name) == []
    assert series.apply(copy, place / "ours") == []
    assert tree.differences(series.root, place / "ours" / name) == []


def let_time_pass() -> None:
    """Until the clock that gives files their times has moved on; see `quick_clock`."""
    time.sleep(0.015)


def members(copy: Copy) -> list[str]:
    """Names in an archive, directories with a slash."""
    with tarfile.open(fileobj=io.BytesIO(copy.archive), errors="surrogateescape") as archive:
        return [member.name + "/" * member.isdir() for member in archive]


def pieces(data: bytes) -> Iterator[bytes]:
    """Chunks, as storages give them."""
    return (data[at : at + CHUNK] for at in range(0, len(data), CHUNK))
