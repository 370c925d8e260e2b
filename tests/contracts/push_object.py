"""A process of its own that writes an object; the contract tests measure it, or kill it.

``python -m tests.contracts.push_object SPEC NAME TOKEN MIB [hang]`` with SPEC as JSON. It prints by
how many bytes its memory grew while it wrote, and then while it read; with ``hang`` it waits to be
killed after it has printed the first, before the commit.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import sys
import time

from pydantic import TypeAdapter

from pipeline.stage import CHUNK, Storage
from schemas.storages import StorageSpec


def open_storage(spec: str) -> Storage:
    """The storage of a specification in JSON."""
    model = TypeAdapter(StorageSpec).validate_python(json.loads(spec))
    component = importlib.import_module(f"stages.storages.{model.type}").COMPONENT
    storage: Storage = component(model)
    return storage


def peak_memory() -> int:
    """The most memory this process has had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def _warm_up(storage: Storage, name: str, token: str) -> None:
    """Import and connect. With another object: not all can go on with one after a flush."""
    writer = storage.create(f"{name}.warm", token)
    writer.write(os.urandom(CHUNK))
    writer.flush()
    writer.abort()


def main(spec: str, name: str, token: str, mib: str, then: str = "commit") -> None:
    storage = open_storage(spec)
    _warm_up(storage, name, token)
    writer = storage.create(name, token)
    before = peak_memory()
    for _ in range(int(mib)):
        writer.write(os.urandom(CHUNK))
    writer.flush()
    print(peak_memory() - before, flush=True)
    while then == "hang":
        time.sleep(60)
    writer.commit()
    before = peak_memory()
    for chunk in storage.open(name):
        del chunk
    print(peak_memory() - before, flush=True)
    storage.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
