"""`python -m bench.push SPEC NAME`: standard input to an object of a storage, and nothing else."""

from __future__ import annotations

import io
import sys

from pipeline.malloc import settle
from pipeline.stage import CHUNK
from tests.contracts.push_object import open_storage


def main(spec: str, name: str) -> None:
    """Write it."""
    settle()  # As the program itself does.
    storage = open_storage(spec)
    writer = storage.create(name, "01234567-20261123T031500Z-abcdef")
    stream = io.BufferedReader(io.FileIO(0), 1)
    while chunk := stream.read(CHUNK):
        writer.write(chunk)
    writer.flush()
    writer.commit()
    storage.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
