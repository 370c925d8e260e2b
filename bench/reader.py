"""Reads a tree with the `files` source and drops the archive: for `bench/files.py`.

Prints seconds of wall time, seconds of processor time, files, and MiB of memory at most.
"""

from __future__ import annotations

import sys
import time

from bench.measure import peak
from pipeline.context import StageContext
from schemas.sources import FilesSource
from stages.sources.files import Files

source = Files(FilesSource(type="files", paths=[sys.argv[1]]))
context = StageContext()
wall, cpu = time.perf_counter(), time.process_time()
for artifact in source.artifacts():
    for _ in source.stream(artifact, context):
        pass
wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
print(wall, cpu, context.findings.counts["files"], peak())
