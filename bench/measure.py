"""Runs commands and tells what they cost. Ratios of pairs count: machines are noisy."""

from __future__ import annotations

import os
import resource
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build" / "bench"
ARCHIVE = ROOT / "dist" / "nxs-backup.pyz"


@dataclass(frozen=True)
class Cost:
    """Of one run of a command with all its children."""

    wall: float
    """Seconds."""
    cpu: float
    """Seconds, user and system."""


def cost(
    command: Sequence[str], cwd: Path, env: dict[str, str] | None = None, quiet: bool = False
) -> Cost:
    """Run a command that must succeed; `quiet` drops its warnings."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **(env or {})},
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL if quiet else None,
    )
    wall = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(wall, cpu)


@dataclass(frozen=True)
class Comparison:
    """Medians of our cost, of the rival's, and of the ratio of each pair."""

    ours: Cost
    rival: Cost
    wall_ratio: float
    cpu_ratio: float


def compare(ours: Callable[[], Cost], rival: Callable[[], Cost], pairs: int = 3) -> Comparison:
    """Run both in turn, A B A B, after one uncounted run of each."""
    ours(), rival()
    counted = [(ours(), rival()) for _ in range(pairs)]
    return Comparison(
        ours=Cost(median(a.wall for a, _ in counted), median(a.cpu for a, _ in counted)),
        rival=Cost(median(b.wall for _, b in counted), median(b.cpu for _, b in counted)),
        wall_ratio=median(a.wall / b.wall for a, b in counted),
        cpu_ratio=median(a.cpu / b.cpu for a, b in counted),
    )


def peak() -> int:
    """MiB of memory that this process has had at most."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) >> 10


def show(name: str, rival: str, found: Comparison, target: str) -> None:
    """One comparison as a few lines."""
    print(f"{name}")
    print(f"  ours   {found.ours.wall:8.2f} s wall {found.ours.cpu:8.2f} s CPU")
    print(f"  rival  {found.rival.wall:8.2f} s wall {found.rival.cpu:8.2f} s CPU   {rival}")
    print(
        f"  ratio  {found.wall_ratio:8.3f} wall   {found.cpu_ratio:8.3f} CPU     target {target}",
        flush=True,
    )
