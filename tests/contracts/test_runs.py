"""Finish or it never happened, on every storage: the same faults, and what is left in the place."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from datetime import timedelta
from typing import Any

import anyio
import pytest

from pipeline.errors import StorageError, StorageUnavailable
from pipeline.report import ArtifactReport, Outcome
from pipeline.stage import CHUNK, Storage
from stages.rotate import clear_leftovers
from tests.contracts.push_object import open_storage
from tests.contracts.storage_subject import names, put, read
from tests.fakes import (
    TAKEN_AT,
    FakeSource,
    FakeTransform,
    FaultyStorage,
    NullStorage,
    artifact_run,
    branch,
    broken_source,
    plan,
)
from tests.servers import places

pytestmark = pytest.mark.anyio

DATA = [bytes([number]) * CHUNK for number in range(24)]
OLD = "shop/crm/crm_2026-11-22T03-15-00Z.sql"
OBJECT = "shop/crm/crm_2026-11-23T03-15-00Z.sql"
IDENTITY = "01234567"


@pytest.fixture(scope="module", params=["memory", *places.MAKERS])
def keys(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Any]]:
    """The configuration of each storage, one after the other; its server serves all tests."""
    with ExitStack() as stack:
        if request.param == "memory":
            yield {"type": "memory"}
            return
        place = places.MAKERS[request.param](stack, tmp_path_factory.mktemp("runs"))
        if place is None:
            pytest.skip("no server can be run here")
        yield place.keys


@pytest.fixture
def anyio_backend(keys: dict[str, Any]) -> str:
    """One loop for each storage: it is the tests of the engine alone that take both."""
    return "trio" if keys["type"] in ("memory", "local") else "asyncio"


@pytest.fixture(autouse=True)
def storage(keys: dict[str, Any]) -> Iterator[Storage]:
    """A storage that has the backup of yesterday, and nothing else."""
    storage = open_storage(json.dumps(keys))
    put(storage, OLD, [b"the backup of yesterday"])
    put(storage, OLD + ".manifest.json", [b"{}"])
    yield storage
    storage.sweep(storage.unfinished(""))
    storage.delete(names(storage))
    storage.close()


async def finish(source: FakeSource, *branches: object, transform: FakeTransform) -> ArtifactReport:
    run = artifact_run(plan(source, branches, [transform]))  # type: ignore[arg-type]
    with anyio.fail_after(60):
        await run.run()
    return run.report()


def assert_only_the_old_one_is_there(storage: Storage) -> None:
    assert names(storage, "shop") == [OLD, OLD + ".manifest.json"]
    assert list(storage.unfinished("shop")) == []
    assert read(storage, OLD) == b"the backup of yesterday"


async def test_a_good_run_is_complete(storage: Storage) -> None:
    report = await finish(FakeSource(DATA), branch(storage), transform=FakeTransform())
    assert report.outcome is Outcome.OK
    stored = read(storage, OBJECT + ".neg")
    manifest = json.loads(read(storage, OBJECT + ".neg.manifest.json"))
    assert len(stored) == manifest["stored_size"] == 24 * CHUNK
    assert list(storage.unfinished("shop")) == []


@pytest.mark.parametrize("after", [0, 1, 12, 24])
async def test_a_source_that_dies(storage: Storage, after: int) -> None:
    report = await finish(broken_source(after), branch(storage), transform=FakeTransform())
    assert report.outcome is Outcome.FAILED
    assert report.error == "source fake: broken on command"
    assert_only_the_old_one_is_there(storage)


@pytest.mark.parametrize("at_end", [True, False])
async def test_a_transform_that_raises(storage: Storage, at_end: bool) -> None:
    broken = FakeTransform(fail_at_end=True) if at_end else FakeTransform(fail_after=5)
    report = await finish(FakeSource(DATA), branch(storage), transform=broken)
    assert report.outcome is Outcome.FAILED
    assert_only_the_old_one_is_there(storage)


@pytest.mark.parametrize(
    "step", ["write", "flush", "commit", "manifest write", "manifest flush", "manifest commit"]
)
async def test_a_storage_that_refuses(storage: Storage, step: str) -> None:
    faulty = FaultyStorage(storage, step, after=3 * CHUNK)
    if step == "manifest write":
        faulty.after = 0
    branches = [branch(faulty, "faulty", required=False), branch(NullStorage(), "good")]
    report = await finish(FakeSource(DATA), *branches, transform=FakeTransform())
    assert report.outcome is Outcome.PARTIAL
    assert "broken on command" in str(report.branches[0].error)
    assert_only_the_old_one_is_there(storage)


async def test_a_run_that_is_cancelled(storage: Storage) -> None:
    source = FakeSource(DATA, block=True)
    run = artifact_run(plan(source, [branch(storage)], [FakeTransform()]))
    async with anyio.create_task_group() as group:
        group.start_soon(run.run)
        with anyio.fail_after(30):
            while not source.blocked.is_set():
                await anyio.sleep(0.01)
        group.cancel_scope.cancel()
    assert run.report().outcome is Outcome.INTERRUPTED
    assert_only_the_old_one_is_there(storage)


async def test_one_good_branch_beside_a_bad_one_is_complete(storage: Storage) -> None:
    bad = FaultyStorage(NullStorage(), "write", after=3 * CHUNK)
    for required, outcome in ((False, Outcome.PARTIAL), (True, Outcome.FAILED)):
        storage.delete([OBJECT + ".neg", OBJECT + ".neg.manifest.json"])
        branches = [branch(bad, "bad", required), branch(storage, "good")]
        report = await finish(FakeSource(DATA), *branches, transform=FakeTransform())
        assert report.outcome is outcome
        assert [entry.outcome for entry in report.branches] == [Outcome.FAILED, Outcome.OK]
        assert len(read(storage, OBJECT + ".neg")) == 24 * CHUNK


async def test_an_object_is_never_overwritten(storage: Storage) -> None:
    put(storage, OBJECT + ".neg", [b"somebody else's"])
    report = await finish(FakeSource(DATA), branch(storage), transform=FakeTransform())
    assert report.outcome is Outcome.FAILED
    assert "exists" in str(report.branches[0].error)
    assert read(storage, OBJECT + ".neg") == b"somebody else's"
    assert list(storage.unfinished("shop")) == []


async def test_what_a_killed_run_leaves_is_cleared_and_nothing_else(
    storage: Storage,
) -> None:
    """Killed between its two commits: an object that is visible, a manifest that is not."""
    token = f"{IDENTITY}-20261123T031500Z-abcdef"
    foreign = "ffffffff-20261123T031500Z-abcdef"
    put(storage, OBJECT, [b"orphan"], token)
    for name, owner in ((OBJECT + ".manifest.json", token), (OBJECT + ".x", foreign)):
        writer = storage.create(name, owner)
        writer.write(b"half")
        writer.flush()
        del writer
    assert clear_leftovers(storage, "shop", IDENTITY, TAKEN_AT) == [], "it may be alive"
    cleared = clear_leftovers(storage, "shop", IDENTITY, TAKEN_AT + timedelta(seconds=1))
    assert [name.rpartition("/")[2] for name in cleared] == [
        "crm_2026-11-23T03-15-00Z.sql",
        f".crm_2026-11-23T03-15-00Z.sql.manifest.json.{token}.part",
    ]
    assert [info.name for info in storage.list("shop")] == [OLD, OLD + ".manifest.json"]
    assert len(storage.unfinished("shop")) == 1
    with pytest.raises(StorageError):
        read(storage, OBJECT)


# In which order the collector ends a writer and its sockets is its own affair.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("step", ["commit", "manifest commit"])
async def test_a_commit_without_an_answer_leaves_a_mark_for_the_next_run(
    storage: Storage,
    step: str,
) -> None:
    """The connection broke: is the object visible? Nobody knows, and it cannot be removed."""

    class Unreachable(FaultyStorage):
        error = StorageUnavailable

        def delete(self, names: Sequence[str]) -> None:
            raise StorageUnavailable("still gone")

    faulty = Unreachable(storage, step)
    report = await finish(FakeSource(DATA), branch(faulty), transform=FakeTransform())
    assert report.outcome is Outcome.FAILED
    assert f"broken on command in {step}" in str(report.branches[0].error)
    del faulty
    gc.collect()  # Closes what the dead writers hold open, as the end of their process would.
    storage.close()
    put_anyway = [info.name for info in storage.list("shop")]
    assert (OBJECT + ".neg" in put_anyway) is (step == "manifest commit")
    later = TAKEN_AT + timedelta(hours=1)
    assert clear_leftovers(storage, "shop", IDENTITY, later)
    assert_only_the_old_one_is_there(storage)
