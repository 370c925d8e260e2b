"""What the engine itself costs: a chunk through the pipeline to two storages, and its teardown."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from statistics import median
from unittest import mock

import anyio

from pipeline.errors import SourceError
from pipeline.stage import CHUNK
from tests.fakes import FakeSource, FaultyStorage, NullStorage, artifact_run, branch, plan

CHUNKS = 10_000


class _NoDigest:
    """Stands in for SHA-256, which costs 600 µs a chunk and is not the engine's."""

    def update(self, _: bytes) -> None: ...

    def hexdigest(self) -> str:
        return "0" * 64


def chunk_cost() -> float:
    """CPU in µs of one 1 MiB chunk, from a source to two storages that take it."""
    chunk = bytes(CHUNK)
    made = plan(
        FakeSource(chunk for _ in range(CHUNKS)),
        [branch(NullStorage(), "one"), branch(NullStorage(), "two")],
    )
    run = artifact_run(made)
    with mock.patch("pipeline.engine.sha256", _NoDigest):
        started = time.process_time()
        anyio.run(run.run)
        return (time.process_time() - started) / CHUNKS * 1e6


def teardown_time(kind: str) -> float:
    """Milliseconds from the cause to the end of the run, with every thread blocked or busy."""
    cause: list[float] = []

    def endless() -> Iterator[bytes]:
        chunk = bytes(CHUNK)
        for _ in range(100 if kind == "failure" else 10**9):
            yield chunk
        cause.append(time.perf_counter())
        raise SourceError("broken on command")

    hanging = FaultyStorage(NullStorage(), "write", hang=kind == "cancellation")
    hanging.fail = "write" if kind == "cancellation" else ""
    run = artifact_run(plan(FakeSource(endless()), [branch(hanging), branch(NullStorage(), "two")]))

    async def main() -> None:
        with anyio.CancelScope() as scope:
            if kind == "cancellation":

                def cancel() -> None:
                    cause.append(time.perf_counter())
                    anyio.from_thread.run_sync(scope.cancel, token=token)

                token = anyio.lowlevel.current_token()
                threading.Timer(0.5, cancel).start()
            await run.run()

    anyio.run(main)
    return (time.perf_counter() - cause[0]) * 1e3


def main() -> None:
    """Print the figures and what is asked of them."""
    costs = [chunk_cost() for _ in range(5)]
    print("engine, 10,000 chunks of 1 MiB to two storages")
    print(f"  {median(costs):6.1f} µs CPU a chunk (without digests)   target <= 20")
    for kind in ("failure", "cancellation"):
        times = [teardown_time(kind) for _ in range(5)]
        print(f"  {median(times):6.1f} ms teardown after {kind:<12}       target <= 50", flush=True)
