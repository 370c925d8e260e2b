"""How long the archive takes to answer, warm."""

from __future__ import annotations

import sys
from statistics import median

from bench.measure import ARCHIVE, ROOT, cost


def main() -> None:
    """Print medians of ten starts."""
    example = str(ROOT / "examples" / "storage-local.yaml")
    print("start-up of the archive, warm, median of 10")
    for arguments, target in ((["version"], 0.4), (["check", example], 0.4)):
        command = [sys.executable, str(ARCHIVE), *arguments]
        env = {"PYTHONDONTWRITEBYTECODE": ""}
        times = [cost(command, ROOT, env, quiet=True) for _ in range(11)][1:]
        wall, cpu = median(t.wall for t in times), median(t.cpu for t in times)
        print(f"  {arguments[0]:<8} {wall:5.2f} s wall {cpu:5.2f} s CPU   target <= {target}")
