"""The tables of docs/migration.md: all keys of v3, and keys of ours that exist."""

from __future__ import annotations

import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

import pytest
from pydantic import BaseModel

from pipeline.convert.keys import TABLES, TYPES, Key, table
from schemas.pipeline import Pipeline
from schemas.v3.model import Config, Job, Notifications, Source, StorageConnect

PAGE = Path(__file__).parents[2] / "docs" / "migration.md"
MODELS: dict[str, type[BaseModel]] = {
    "The file as a whole": Config,
    "notifications": Notifications,
    "storage_connects[]": StorageConnect,
    "jobs[]": Job,
    "jobs[].sources[]": Source,
}
ELSEWHERE = {"notifications", "storage_connects[]", "jobs[]", "sources[]"}
"""What has a table of its own."""


def members(annotation: Any) -> Iterator[Any]:
    """The alternatives of an annotation, without what stands around them."""
    if get_origin(annotation) is Annotated:
        yield from members(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, types.UnionType):
        for each in get_args(annotation):
            yield from members(each)
    else:
        yield annotation


def keys_of(model: type[BaseModel]) -> Iterator[str]:
    """Every key of a v3 block, with the blocks it is in; as v3 spells it, in lower case."""
    for name, field in model.model_fields.items():
        for member in members(field.annotation):
            if member is types.NoneType:
                continue
            is_list = get_origin(member) is list
            inner = next(members(get_args(member)[0])) if is_list else member
            if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
                yield name
            elif f"{name}[]" in ELSEWHERE or name in ELSEWHERE:
                continue
            else:
                for below in keys_of(inner):
                    yield f"{name}[].{below}" if is_list else f"{name}.{below}"


@pytest.mark.parametrize("title", TABLES)
def test_every_key_of_v3_is_in_its_table_once(title: str) -> None:
    listed = [key.old.lower() for key in TABLES[title] if f"{key.old}[]" not in ELSEWHERE]
    listed = [old for old in listed if old not in ELSEWHERE]
    assert sorted(listed) == sorted(keys_of(MODELS[title]))


def exists(way: list[str], annotation: Any) -> bool:
    """Whether a way leads through the models."""
    return any(_exists_in(way, member) for member in members(annotation))


def _exists_in(way: list[str], member: Any) -> bool:
    if not way:
        return True
    head, *rest = way
    if head == "[]" and get_origin(member) is list:
        return exists(rest, get_args(member)[0])
    if head == "*" and get_origin(member) is dict:
        return exists(rest, get_args(member)[1])
    if isinstance(member, type) and issubclass(member, BaseModel):
        field = member.model_fields.get(head)
        return field is not None and exists(rest, field.annotation)
    return False


ALL = [key for keys in TABLES.values() for key in keys]


@pytest.mark.parametrize("key", ALL, ids=lambda key: key.old)
def test_every_key_of_ours_exists(key: Key) -> None:
    assert key.new or key.note
    for new in key.new:
        assert exists(new.replace("[]", ".[]").split("."), Pipeline), new


def test_a_way_that_leads_nowhere_is_noticed() -> None:
    assert not exists(["backups", "*", "source", "hots"], Pipeline)
    assert not exists(["storages", "host"], Pipeline)


@pytest.mark.parametrize("title", TABLES)
def test_the_page_has_the_tables(title: str) -> None:
    heading = title if title.startswith("The") else f"`{title}`"
    assert f"### {heading}\n\n{table(TABLES[title])}\n" in PAGE.read_text()


def test_the_page_has_the_types() -> None:
    lines = "\n".join(f"| `{old}` | `{new}` |" for old, new in TYPES.items())
    assert f"| v3 | here |\n|---|---|\n{lines}\n" in PAGE.read_text()
