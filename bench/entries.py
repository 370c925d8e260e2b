"""Memory of the `files` source for trees of very many entries, full and as an increment.

Makes real trees of empty files below the folder for builds, which takes minutes and no space but
inodes: `ENTRIES` says how many. The difference to a small tree is what an entry costs.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.measure import BUILD, ROOT

FEW = 10_000
MANY = int(os.environ.get("ENTRIES", "5000000"))
_FOLDER = 1000
"""Files in a folder."""


def main() -> None:
    """Print what each costs."""
    BUILD.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=BUILD) as place:
        peaks = [_peaks(Path(place, str(files)), files) for files in (FEW, MANY)]
    for name, few, many in zip(("full", "first of a series", "increment"), *peaks, strict=True):
        cost = (many - few) * (1 << 20) / (MANY - FEW)
        print(f"{name}: {few} MiB for {FEW:,} files, {many} MiB for {MANY:,}: {cost:.1f} B a file")


def _peaks(root: Path, files: int) -> list[int]:
    """MiB: full, full with an index, an increment."""
    for folder in range(files // _FOLDER):
        path = root / f"{folder // 100:03d}" / f"{folder % 100:02d}"
        path.mkdir(parents=True)
        descriptor = os.open(path, os.O_RDONLY)
        for number in range(_FOLDER):
            os.close(os.open(f"file-{number:03d}.dat", os.O_CREAT | os.O_WRONLY, dir_fd=descriptor))
        os.close(descriptor)
    index = str(root.with_suffix(".index"))
    runs = [("bench.reader", str(root)), *[("bench.unchanged", str(root), index)] * 2]
    return [_peak(*run) for run in runs]


def _peak(module: str, *arguments: str) -> int:
    command = [sys.executable, "-m", module, *arguments]
    said = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return int(said.split()[-1])
