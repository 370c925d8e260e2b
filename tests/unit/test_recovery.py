"""Whether a success follows a failure: from what lies on the storages, in every order of runs."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta, timezone

import anyio
import pytest

from pipeline import recovery
from pipeline.catalog import read
from pipeline.errors import StorageDenied, StorageUnavailable
from pipeline.naming import MANIFEST_SUFFIX, ObjectName
from pipeline.recovery import Ended, Owner, settle
from pipeline.report import Outcome
from pipeline.stage import ObjectInfo, Storage, Writer
from schemas.storages import MemoryStorage
from stages.rotate import clear_leftovers
from stages.storages.memory import Memory

OK, PARTIAL, FAILED, INTERRUPTED = (
    Outcome.OK,
    Outcome.PARTIAL,
    Outcome.FAILED,
    Outcome.INTERRUPTED,
)
OWNER = Owner("shop", "web-1", "db")
FIRST = datetime(2026, 11, 23, 3, 15, tzinfo=timezone.utc)


@pytest.fixture
def storage(request: pytest.FixtureRequest) -> Storage:
    spec = MemoryStorage(type="memory", path=f"recovery-{request.node.name}")
    made: Storage = Memory(spec)
    return made


def keep(storage: Storage, name: str, data: bytes) -> None:
    writer = storage.create(name, "00000000-20261123T031500Z-000000")
    writer.write(data)
    writer.flush()
    writer.commit()


def back_up(storage: Storage, when: datetime, host: str = "web-1", artifact: str = "crm") -> None:
    """Leave an object and its manifest."""
    name = ObjectName("db", artifact, when, ".sql")
    manifest = {
        "format": "nxs-backup",
        "format_version": 1,
        "program_version": "4",
        "run": "1",
        "project": "shop",
        "host": host,
        "backup": "db",
        "artifact": artifact,
        "taken_at": when.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "object": name.path.rpartition("/")[2],
        "source": {"type": "command"},
        "stored_size": 1,
        "stored_sha256": "0" * 64,
        "plain_size": 1,
        "restore": "cat x",
    }
    keep(storage, name.path, b"x")
    keep(storage, name.path + MANIFEST_SUFFIX, json.dumps(manifest).encode())


class History:
    """Runs one after the other, a day apart."""

    def __init__(self, *storages: Storage) -> None:
        self._storages = {f"s{number}": storage for number, storage in enumerate(storages)}
        self.now = FIRST
        self.problems: list[str] = []

    def run(self, outcome: Outcome, stored: bool | None = None) -> datetime | None:
        """One more; returns what it recovered from."""
        self.now += timedelta(days=1)
        if outcome in (OK, PARTIAL) if stored is None else stored:
            for storage in self._storages.values():
                back_up(storage, self.now)
        ended = Ended("1f0c", outcome, self.now, self.now + timedelta(minutes=7))
        makers = {name: (lambda made=one: made) for name, one in self._storages.items()}
        found, self.problems = anyio.run(settle, makers, OWNER, ended)
        return found


@pytest.mark.parametrize(
    ("runs", "recovered"),
    [
        pytest.param([OK], False, id="the-first-of-all"),
        pytest.param([OK, OK], False, id="never-failed"),
        pytest.param([FAILED, OK], True, id="after-a-failure"),
        pytest.param([OK, FAILED, FAILED, OK], True, id="after-several"),
        pytest.param([INTERRUPTED, OK], True, id="after-an-interruption"),
        pytest.param([FAILED, OK, OK], False, id="only-the-first-success"),
        pytest.param([PARTIAL, OK], False, id="partial-is-no-failure"),
        pytest.param([FAILED, PARTIAL, OK], True, id="nor-does-it-end-one"),
        pytest.param([FAILED, PARTIAL], False, id="nor-is-it-a-recovery"),
        pytest.param([FAILED, PARTIAL, PARTIAL, OK, PARTIAL, OK], False, id="long-over"),
    ],
)
def test_the_first_success_after_a_failure(
    storage: Storage, runs: Sequence[Outcome], recovered: bool
) -> None:
    history = History(storage)
    *_, last = [history.run(outcome) for outcome in runs]
    assert (last is not None) is recovered
    assert history.problems == []


def test_it_is_known_when_the_last_run_failed(storage: Storage) -> None:
    history = History(storage)
    history.run(FAILED)
    history.run(FAILED)
    failed = history.now + timedelta(minutes=7)
    assert history.run(OK) == failed


def test_a_run_that_fails_although_some_artifacts_were_stored_has_failed(storage: Storage) -> None:
    history = History(storage)
    history.run(FAILED, stored=True)
    assert history.run(OK) is not None


def test_one_storage_that_knows_is_enough(storage: Storage) -> None:
    history = History(Gone(storage), storage)
    history.run(FAILED)
    assert history.problems == []
    history = History(storage)
    history.now += timedelta(days=1)
    assert history.run(OK) is not None


def test_a_failure_that_nobody_could_note_is_told(storage: Storage) -> None:
    history = History(Gone(storage))
    history.run(FAILED)
    assert history.problems == ["db: no note of the failure on s0: out of reach"]


def test_what_cannot_be_found_out_is_told(storage: Storage) -> None:
    history = History(Gone(storage))
    assert history.run(OK, stored=False) is None
    assert history.problems == ["db: whether a failure is over is not known on s0: out of reach"]


def test_a_driver_that_breaks_is_told_without_its_words(storage: Storage) -> None:
    class Broken(Kept):
        def list(self, prefix: str) -> Sequence[ObjectInfo]:
            raise ZeroDivisionError("secret")

    history = History(Broken(storage))
    assert history.run(OK, stored=False) is None
    assert history.problems == [
        "db: whether a failure is over is not known on s0: failed with ZeroDivisionError"
    ]


def test_a_storage_that_hangs_is_not_waited_for(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "TIMEOUT", 0.2)
    history = History(Hanging(storage))
    history.run(FAILED)
    assert history.problems == ["db: no note of the failure on s0: no answer within 0.2 s"]


def test_notes_go_with_the_recovery(storage: Storage) -> None:
    history = History(storage)
    history.run(FAILED)
    history.run(FAILED)
    assert len(notes(storage)) == 2
    history.run(OK)
    assert notes(storage) == []


def test_notes_that_may_not_be_removed_do_no_harm(storage: Storage) -> None:
    history = History(Kept(storage))
    history.run(FAILED)
    assert history.run(OK) is not None
    assert history.run(OK) is None
    assert len(notes(storage)) == 1


def test_the_success_of_another_host_is_none_of_ours(storage: Storage) -> None:
    history = History(storage)
    history.run(FAILED)
    back_up(storage, history.now + timedelta(hours=1), host="web-2")
    assert history.run(OK) is not None


def test_the_failure_of_another_host_is_none_of_ours(storage: Storage) -> None:
    ended = Ended("1f0c", FAILED, FIRST, FIRST)
    anyio.run(settle, {"s0": lambda: storage}, Owner("shop", "web-2", "db"), ended)
    assert History(storage).run(OK) is None


def test_nothing_takes_a_note_for_a_backup(storage: Storage) -> None:
    history = History(storage)
    history.run(FAILED)
    assert read(storage, "s0", "db", broken := []) == []
    assert broken == []
    assert clear_leftovers(storage, "db", "00000000", history.now) == []
    assert len(notes(storage)) == 1


def test_a_note_says_whose_it_is(storage: Storage) -> None:
    History(storage).run(FAILED)
    (name,) = notes(storage)
    assert name.endswith("_2026-11-24T03-22-00Z.json")
    assert json.loads(b"".join(storage.open(name))) == {
        "format": "nxs-backup-failure",
        "project": "shop",
        "host": "web-1",
        "backup": "db",
        "run": "1f0c",
    }


def notes(storage: Storage) -> list[str]:
    return [info.name for info in storage.list("db") if "/failed@" in info.name]


class Kept(Storage):
    """Lets nothing be deleted."""

    def __init__(self, inner: Storage) -> None:
        self.inner = inner

    def create(self, name: str, token: str) -> Writer:
        return self.inner.create(name, token)

    def open(self, name: str, offset: int = 0) -> Iterator[bytes]:
        return self.inner.open(name, offset)

    def list(self, prefix: str) -> Sequence[ObjectInfo]:
        return self.inner.list(prefix)

    def delete(self, names: Sequence[str]) -> None:
        raise StorageDenied("not permitted")

    def unfinished(self, prefix: str) -> Sequence[str]:
        return self.inner.unfinished(prefix)

    def sweep(self, names: Sequence[str]) -> None:
        self.inner.sweep(names)

    def probe(self) -> Sequence[str]:
        return []


class Gone(Kept):
    """Does not answer."""

    def create(self, name: str, token: str) -> Writer:
        raise StorageUnavailable("out of reach")

    def list(self, prefix: str) -> Sequence[ObjectInfo]:
        raise StorageUnavailable("out of reach")


class Hanging(Kept):
    """Never answers."""

    def create(self, name: str, token: str) -> Writer:
        threading.Event().wait(60)
        raise StorageUnavailable("out of reach")
