"""`version`: what this program is, and what is inside."""

from __future__ import annotations

import argparse
import json
import platform
import sys
from pathlib import Path
from typing import Any

from pipeline.version import VERSION


def run(options: argparse.Namespace) -> int:
    """Print the version; returns the exit code."""
    if options.json:
        print(json.dumps(describe(), indent=2))
    else:
        print(f"nxs-backup {VERSION}")
    return 0


def describe() -> dict[str, Any]:
    """Version, interpreter, and for the archive its build id and dependencies."""
    found: dict[str, Any] = {
        "version": VERSION,
        "python": platform.python_version(),
        "executable": sys.executable,
    }
    build = Path(__file__).parents[2] / "nxs_build_info.json"
    if build.is_file():
        found["build"] = json.loads(build.read_text(encoding="utf-8"))
    return found
