"""A storage under test, and what the suites do with it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from pydantic import SecretStr

from pipeline.stage import Storage
from schemas.base import Spec

TOKEN = "01234567-20261123T031500Z-abcdef"
OTHER_TOKEN = "89abcdef-20261123T031501Z-fedcba"
NAME = "shop/crm/crm_2026-11-23T03-15-00Z.sql.zst"

Stall = tuple[Storage, Callable[[], None]]


@dataclass
class Subject:
    """A storage under test, in a place of its own that is empty."""

    spec: Spec
    storage: Storage
    again: Callable[[], Storage]
    """Another storage object for the same place."""
    stalling: Callable[[], AbstractContextManager[Stall]]
    """The storage, and what makes its server (if it has one) answer no more."""

    def spec_json(self) -> str:
        """For the processes that are started for it: secrets are written out."""
        return json.dumps(_revealed(self.spec.model_dump(exclude_unset=True)))


def _revealed(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, dict):
        return {key: _revealed(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_revealed(each) for each in value]
    return value


def put(storage: Storage, name: str, chunks: Iterable[bytes], token: str = TOKEN) -> None:
    writer = storage.create(name, token)
    for chunk in chunks:
        writer.write(chunk)
    writer.flush()
    writer.commit()


def read(storage: Storage, name: str) -> bytes:
    return b"".join(storage.open(name))


def names(storage: Storage, prefix: str = "") -> list[str]:
    return [info.name for info in storage.list(prefix)]


def everything(storage: Storage) -> list[str]:
    return [*names(storage), *storage.unfinished("")]


def push_object(subject: Subject, mib: int, *more: str) -> list[str]:
    """The command line of a process that writes an object there."""
    module = "tests.contracts.push_object"
    return [sys.executable, "-m", module, subject.spec_json(), NAME, TOKEN, str(mib), *more]
