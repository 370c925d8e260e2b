"""An increment of a tree with the `files` source, dropped: for `bench/files.py`.

`python -m bench.unchanged ROOT INDEX` makes a full copy when there is no INDEX yet and leaves it
there; then it builds on that. Prints seconds of wall time, seconds of processor time, what is
unchanged, and MiB of memory at most.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

from bench.measure import peak
from pipeline.context import Increment, StageContext
from schemas.incremental import FilesIncremental
from schemas.sources import FilesSource
from stages.sources.files import Files


def _pieces(path: Path) -> Iterator[bytes]:
    with open(path, "rb") as file:
        while piece := file.read(64 << 10):
            yield piece


root, index = sys.argv[1], Path(sys.argv[2])
source = Files(FilesSource(type="files", paths=[root], incremental=FilesIncremental()))
context, is_first = StageContext(), not index.exists()
wall, cpu = time.perf_counter(), time.process_time()
with open(index if is_first else "/dev/null", "wb") as kept:
    base = None if is_first else lambda: _pieces(index)
    context.increment = Increment(lambda piece: kept.write(piece) and None, base)
    (artifact,) = source.artifacts()
    for _ in source.stream(artifact, context):
        pass
wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
print(wall, cpu, context.findings.counts.get("unchanged", 0), peak())
