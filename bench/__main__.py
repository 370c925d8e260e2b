"""`python -m bench [NAME]...`: all measurements, or those that are named."""

from __future__ import annotations

import importlib
import sys

NAMES = (
    "engine",
    "startup",
    "files",
    "entries",
    "storages",
    "postgres",
    "mysql",
    "redis",
    "mongodb",
    "notifiers",
)


def main() -> None:
    """Run them one after the other: two at once would measure each other."""
    for name in sys.argv[1:] or NAMES:
        importlib.import_module(f"bench.{name}").main()


main()
