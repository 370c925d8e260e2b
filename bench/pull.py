"""`python -m bench.pull SPEC NAME`: an object of a storage to standard output, and nothing else."""

from __future__ import annotations

import os
import sys

from pipeline.malloc import settle
from tests.contracts.push_object import open_storage


def main(spec: str, name: str) -> None:
    """Read it."""
    settle()  # As the program itself does.
    storage = open_storage(spec)
    for chunk in storage.open(name):
        rest = memoryview(chunk)
        while rest:
            rest = rest[os.write(1, rest) :]
    storage.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
