"""The source `mysql_physical` through the contract of sources."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from pipeline.context import StageContext
from pipeline.stage import Source
from schemas.mysql import MysqlPhysicalSource
from stages.sources.mysql_physical import MysqlPhysical
from tests.contracts.source import Case, SourceContract, start
from tests.servers.mariadb import USER, MariaDb

pytestmark = pytest.mark.integration


@functools.cache
def server() -> MariaDb:
    """One for all tests of this file; it ends with the test run."""
    started = MariaDb()
    started.start()
    started.sql("CREATE DATABASE a; CREATE TABLE a.t (id INT PRIMARY KEY)")
    return started


def spec(**keys: Any) -> MysqlPhysicalSource:
    return MysqlPhysicalSource.model_validate({"type": "mysql_physical", **server().keys(**keys)})


def sound(_place: Path, _cleanup: ExitStack) -> Source:
    return MysqlPhysical(spec())


class Killed(MysqlPhysical):
    """Its connections are ended once the first chunk is there."""

    def stream(self, artifact: Any, context: StageContext) -> Iterator[bytes]:
        for chunk in super().stream(artifact, context):
            for (number,) in server().sql(
                "SELECT ID FROM information_schema.PROCESSLIST "
                f"WHERE USER = '{USER}' AND ID <> CONNECTION_ID()"
            ):
                server().sql(f"KILL {number}")
            yield chunk


def broken(_place: Path, _cleanup: ExitStack) -> Source:
    return Killed(spec())


def blocked(place: Path, _cleanup: ExitStack) -> Source:
    """The program stops in the middle, and does not end."""
    program = place / "mariadb-backup"
    program.write_text('#!/bin/sh\nmariadb-backup "$@" | head -c 3000000\nexec sleep 3600\n')
    program.chmod(0o755)
    return MysqlPhysical(spec(program=str(program)))


def wrong_password(_place: Path, _cleanup: ExitStack) -> Source:
    return MysqlPhysical(spec().model_copy(update={"password": None}))


@pytest.mark.parametrize(
    "case",
    [pytest.param(Case(sound, broken, wrong_password, blocked), id="mysql_physical")],
)
class TestMysqlPhysical(SourceContract):
    def test_the_same_content_is_the_same_bytes(
        self, case: Case, tmp_path: Path, cleanup: ExitStack
    ) -> None:
        # Not the same bytes: a server never stands still. But nobody may disturb the next one.
        for _ in range(2):
            _, stream = start(case.sound(tmp_path, cleanup), StageContext())
            assert MysqlPhysical(spec()).examine(stream, StageContext()).startswith("a whole")
