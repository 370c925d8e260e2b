"""Prints what the README says of the archive: sizes, and what a start costs.

CPU time is of user and system together, the least of several starts: other load on the machine only
adds to it.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.conftest import CONFIGURATION
from tests.e2e.portability.systems import RELEASE

COLD, WARM = 5, 25


@dataclass(frozen=True)
class Start:
    """What one start took, in seconds."""

    cpu: float
    wall: float


def start(cache: Path, *arguments: str | Path) -> Start:
    """Run Python to its end."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run(
        [sys.executable, *arguments],
        env={"PATH": os.environ["PATH"], "NXS_BACKUP_CACHE_DIR": str(cache)},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic() - begun
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Start(used, wall)


def best(starts: list[Start]) -> str:
    """The least of each."""
    cpu, wall = min(s.cpu for s in starts), min(s.wall for s in starts)
    return f"{cpu:.2f} s of CPU, {wall:.2f} s"


def main() -> None:
    """Measure, and print the lines of a table."""
    universal = RELEASE / "nxs-backup.pyz"
    print("\n| what | figure | asked for |\n|---|---|---|")
    print(f"| one file for every Python and platform | {size(universal)} | at most 43 MB |")
    slim = sorted(RELEASE.glob("nxs-backup-*.pyz"))
    each = ", ".join(f"{path.stem.removeprefix('nxs-backup-')} {size(path)}" for path in slim)
    print(f"| one for each platform | {each} | at most 14 MB |")
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "pipeline.yaml")
        config.write_text(CONFIGURATION)
        config.chmod(0o600)
        caches = [Path(folder, f"cache-{number}") for number in range(COLD)]
        first = [start(cache, universal, "version") for cache in caches]
        print(f"| first start | {best(first)} | 1 s of CPU |")
        for name, arguments in (("version", ["version"]), ("check", ["check", str(config)])):
            start(caches[0], universal, *arguments)
            warm = [start(caches[0], universal, *arguments) for _ in range(WARM)]
            asked = "0.05 s" if name == "version" else "0.25 s of CPU"
            print(f"| `{name}`, warm | {best(warm)} | {asked} |")
        bare = [start(caches[0], "-c", "pass") for _ in range(WARM)]
        print(f"| Python alone, for comparison | {best(bare)} | |")
        unpacked = sum(path.stat().st_size for path in caches[-1].rglob("*") if path.is_file())
        print(f"| unpacked, for one Python | {unpacked / 1e6:.0f} MB | |")


def size(path: Path) -> str:
    """In megabytes of 1,000,000 bytes."""
    return f"{path.stat().st_size / 1e6:.1f} MB"


if __name__ == "__main__":
    main()
