"""An increment of a tree with the `files` source, dropped: for `bench/files.py`.

`python -m bench.unchanged ROOT INDEX` makes a full copy when there is no INDEX yet and leaves it
there; then it builds on that. Prints seconds of wall time, seconds of processor time, and what is
unchanged.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

from pipeline.context import Increment, StageContext
from schemas.incremental import FilesIncremental
from schemas.sources import FilesSource
from stages.sources.files import Files


def _whole(data: bytes) -> Iterator[bytes]:
    yield data


root, index = sys.argv[1], Path(sys.argv[2])
source = Files(FilesSource(type="files", paths=[root], incremental=FilesIncremental()))
context, kept = StageContext(), bytearray()
old = index.read_bytes() if index.exists() else None
context.increment = Increment(kept.extend, None if old is None else lambda: _whole(old))
wall, cpu = time.perf_counter(), time.process_time()
(artifact,) = source.artifacts()
for _ in source.stream(artifact, context):
    pass
wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
if old is None:
    index.write_bytes(kept)
print(wall, cpu, context.findings.counts.get("unchanged", 0))
