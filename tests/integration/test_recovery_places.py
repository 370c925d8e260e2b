"""The note of a failure on every storage: taken, seen, no backup, and removed in the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime, timedelta, timezone
from pathlib import Path

import anyio
import pytest
from pydantic import TypeAdapter

from pipeline import catalog
from pipeline.recovery import Ended, Owner, settle
from pipeline.registry import make_storage
from pipeline.report import Outcome
from pipeline.stage import Storage
from schemas.storages import StorageSpec
from tests.servers import places

OWNER = Owner("shop", "web-1", "db")
BEGAN = datetime(2026, 11, 23, 3, 15, tzinfo=timezone.utc)


@pytest.fixture(params=places.MAKERS)
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    with ExitStack() as stack:
        place = places.MAKERS[request.param](stack, tmp_path)
        if place is None:
            pytest.skip("no server can be run here")
        made = make_storage(TypeAdapter(StorageSpec).validate_python(place.keys))
        yield made
        made.close()


def ended(outcome: Outcome, day: int) -> Ended:
    start = BEGAN + timedelta(days=day)
    return Ended("1f0c", outcome, start, start + timedelta(minutes=7))


def test_a_failure_is_noted_and_forgotten(storage: Storage) -> None:
    makers = {"place": lambda: storage}
    for day in (0, 1):
        assert anyio.run(settle, makers, OWNER, ended(Outcome.FAILED, day)) == (None, [])
    assert len(storage.list("db")) == 2
    assert catalog.read(storage, "place", "db") == []
    last = BEGAN + timedelta(days=1, minutes=7)
    assert anyio.run(settle, makers, OWNER, ended(Outcome.OK, 2)) == (last, [])
    assert storage.list("db") == []
    assert storage.unfinished("db") == []
