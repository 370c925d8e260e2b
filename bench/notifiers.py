"""What notifiers that are dead add to the time of a run: everyone at once, dead in each manner."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from subprocess import run as execute

from bench.measure import ARCHIVE
from tests.everyone import configuration, notifiers
from tests.servers.dead import MANNERS, DeadServer

PAIRS = 3
SECONDS = (1.2, 4.0)
"""How long the source takes. Not less than a second: a run keeps its lock for that long anyway."""


def wall(config: Path) -> tuple[float, int]:
    """Seconds of a run, and its exit code."""
    started = time.perf_counter()
    done = execute(
        [sys.executable, str(ARCHIVE), "run", "-qq", str(config)],
        capture_output=True,
        check=False,
    )
    return time.perf_counter() - started, done.returncode


def main() -> None:
    """Print how much longer a run takes than one that tells nobody."""
    print("notifiers, 11 of them that are dead, against none: seconds added to a run (<= 1.0)")
    with tempfile.TemporaryDirectory() as folder:
        for seconds in SECONDS:
            for manner in MANNERS:
                with DeadServer(manner) as dead:
                    _show(Path(folder), manner, seconds, dead.port)


def _show(folder: Path, manner: str, seconds: float, port: int) -> None:
    source = {"type": "command", "command": ["sh", "-c", f"echo data; sleep {seconds:g}"]}
    configs = []
    for name, told in (("none", {}), ("dead", notifiers(port, port))):
        configs.append(folder / f"{name}.yaml")
        configs[-1].write_text(configuration(told, source, str(folder / "backups")))
        configs[-1].chmod(0o600)
    wall(configs[1])
    none, dead = zip(*((wall(configs[0]), wall(configs[1])) for _ in range(PAIRS)), strict=True)
    added = median(b - a for (a, _), (b, _) in zip(none, dead, strict=True))
    codes = sorted({code for _, code in (*none, *dead)})
    print(f"  {manner:<9} run of {seconds:g} s   {added:+6.2f} s   exit codes {codes}", flush=True)
