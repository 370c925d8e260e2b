"""Starts the archive as a host would, with nothing around it but what a test gives it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

REFUSED = 78
# Runs an archive after some code has replaced a function of its start-up code.
WITH_PATCH = """\
import runpy, sys
archive, patch, *sys.argv[1:] = sys.argv[1:]
sys.argv[0] = archive
sys.path.insert(0, archive)
import _boot
exec(patch, {"_boot": _boot})
runpy.run_path(archive, run_name="__main__")
"""
# Has other code run in the place of the program, with the dependencies of the archive.
_INSTEAD = """\
import sys, types
probe = types.ModuleType("probe")
probe.main = lambda: exec({code!r}, {{"__name__": "probe"}})
sys.modules["probe"] = probe
_boot._ENTRY = "probe"
"""


def start(
    *arguments: str | Path,
    python: str = sys.executable,
    env: dict[str, str] | None = None,
    cache: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run Python with no environment but the one given."""
    environment = dict(env or {})
    if cache:
        environment["NXS_BACKUP_CACHE_DIR"] = str(cache)
    return subprocess.run(
        [python, *arguments], env=environment, capture_output=True, text=True, check=False
    )


def inside(archive: Path, cache: Path, code: str) -> str:
    """What code prints that runs inside the archive."""
    patch = _INSTEAD.format(code=code)
    done = start("-c", WITH_PATCH, archive, patch, cache=cache)
    assert done.returncode == 0, done.stderr
    return done.stdout


def assert_refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """It gave up before the program began, with one clear line."""
    assert done.returncode == REFUSED, done.stderr
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("nxs-backup: ")
    for word in words:
        assert word in done.stderr


def builds(cache: Path) -> list[Path]:
    """What was unpacked into a cache."""
    return [entry for entry in cache.iterdir() if entry.name != ".lock"]
