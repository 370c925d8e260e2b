"""What a storage lets us do is found out, told apart by who needs it, and leaves nothing behind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pipeline.cli.check import facts_of_storage
from pipeline.errors import ObjectMissing, StorageDenied, StorageRefused, StorageUnavailable
from pipeline.tryout import try_out
from schemas.storages import MemoryStorage
from stages.storages import memory
from tests.contracts.storage_subject import everything
from tests.fakes import FaultyStorage

STEPS = {"listed": "list", "read": "open", "deleted": "delete", "swept": "unfinished"}


@pytest.fixture
def inner() -> Iterator[memory.Memory]:
    yield memory.Memory(MemoryStorage(type="memory", path="tried"))
    memory.clear()


class Denying(FaultyStorage):
    error = StorageDenied


def test_everything_works_and_nothing_is_left(inner: memory.Memory) -> None:
    rights = try_out(inner)
    assert rights.facts() == ["objects can be written, listed, read, deleted, swept"]
    assert everything(inner) == []


@pytest.mark.parametrize("what", STEPS)
def test_what_is_denied_is_a_warning_that_names_who_needs_it(
    inner: memory.Memory, what: str
) -> None:
    rights = try_out(Denying(inner, STEPS[what]))
    assert list(rights.denied) == [what]
    assert what not in rights.can
    (warning,) = rights.facts()[1:]
    assert warning.startswith(f"warning: objects cannot be {what}: broken on command")
    assert warning.endswith("that") or "dead runs" in warning


@pytest.mark.parametrize("step", ["create", "write", "flush", "commit"])
def test_who_cannot_write_cannot_back_up(inner: memory.Memory, step: str) -> None:
    with pytest.raises(StorageDenied):
        try_out(Denying(inner, step))
    assert everything(inner) == []


@pytest.mark.parametrize("error", [StorageUnavailable, ObjectMissing])
@pytest.mark.parametrize("step", ["list", "open"])
def test_a_storage_that_fails_or_loses_objects_is_no_question_of_rights(
    inner: memory.Memory, step: str, error: type[StorageRefused]
) -> None:
    storage = FaultyStorage(inner, step)
    storage.error = error
    with pytest.raises(error):
        try_out(storage)
    assert everything(inner) == []


@pytest.mark.parametrize("what", ["listed", "read", "deleted"])
def test_rotation_needs_more_than_writing(inner: memory.Memory, what: str) -> None:
    storage = Denying(inner, STEPS[what])
    with pytest.raises(StorageDenied, match=f"cannot be {what}.*rotate needs that"):
        facts_of_storage(storage, rotates=True)
    assert any("warning" in fact for fact in facts_of_storage(storage, rotates=False))
