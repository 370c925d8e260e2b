"""The source `mysql`, and both of its methods, through the contract of sources."""

from __future__ import annotations

import functools
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from pipeline.context import StageContext
from pipeline.stage import Source
from schemas.mysql import MysqlSource
from stages.sources.mysql import Mysql
from tests.contracts.source import Case, SourceContract
from tests.servers.mariadb import USER, MariaDb

pytestmark = pytest.mark.integration

ROWS = "SELECT seq, REPEAT(MD5(seq), 32) FROM seq_1_to_{}"
"""About 1 KiB each."""


@functools.cache
def server() -> MariaDb:
    """One for all tests of this file; it ends with the test run."""
    started = MariaDb()
    started.start()
    return started


@functools.cache
def contents() -> str:
    """A database that is not changed: a table that comes first, and one of 6 MiB."""
    name = "contract"
    server().sql(
        f"CREATE DATABASE {name}; USE {name};"
        "CREATE TABLE small (id INT PRIMARY KEY, v VARCHAR(10)); INSERT INTO small VALUES (1,'x');"
        "CREATE TABLE rows_ (id INT PRIMARY KEY, v TEXT) STATS_PERSISTENT=1;"
        f"INSERT INTO rows_ {ROWS.format(6000)}; ANALYZE TABLE rows_"
    )
    return name


def sound(**keys: Any) -> Any:
    def make(_place: Path, _cleanup: ExitStack) -> Source:
        return Mysql(spec(databases=[contents()], **keys))

    return make


def spec(**keys: Any) -> MysqlSource:
    return MysqlSource.model_validate({"type": "mysql", **server().keys(**keys)})


def broken(**keys: Any) -> Any:
    """Somebody ends all connections when the first chunk has arrived, and more are to come."""

    def make(_place: Path, cleanup: ExitStack) -> Source:
        name, holder = two_tables(cleanup)
        source = Killed(spec(databases=[name], **keys))
        source.spared = holder.thread_id()
        return source

    return make


def blocked(**keys: Any) -> Any:
    """The second table is locked by somebody else."""

    def make(_place: Path, cleanup: ExitStack) -> Source:
        return Mysql(spec(databases=[two_tables(cleanup)[0]], lock_wait="1h", **keys))

    return make


def two_tables(cleanup: ExitStack) -> tuple[str, Any]:
    """A database with a table to read and one that cannot be read for now, and who locks it."""
    name = f"d{uuid.uuid4().hex[:8]}"
    server().sql(
        f"CREATE DATABASE {name}; USE {name};"
        f"CREATE TABLE a (id INT PRIMARY KEY, v TEXT); INSERT INTO a {ROWS.format(4000)};"
        f"CREATE TABLE b (id INT PRIMARY KEY)"
    )
    cleanup.callback(server().sql, f"DROP DATABASE {name}")
    holder = cleanup.enter_context(server().session(database=name))
    holder.query("LOCK TABLES b WRITE")
    return name, holder


class Killed(Mysql):
    """All its connections are ended once the first chunk is there."""

    spared: int

    def stream(self, artifact: Any, context: StageContext) -> Iterator[bytes]:
        for chunk in super().stream(artifact, context):
            ours = f"(CONNECTION_ID(), {self.spared})"
            found = server().sql(
                "SELECT ID FROM information_schema.PROCESSLIST "
                f"WHERE USER = '{USER}' AND ID NOT IN {ours}"
            )
            for (number,) in found:
                server().sql(f"KILL {number}")
            yield chunk


def wrong_password(_place: Path, _cleanup: ExitStack) -> Source:
    return Mysql(spec().model_copy(update={"password": None}))


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(
            Case(sound(parallel=1), broken(parallel=1), wrong_password, blocked(parallel=1)),
            id="mysql-one-connection",
        ),
        pytest.param(
            Case(sound(parallel=3), broken(parallel=3), wrong_password, blocked(parallel=3)),
            id="mysql-three-connections",
        ),
        pytest.param(
            Case(
                sound(method="client"),
                broken(method="client"),
                wrong_password,
                blocked(
                    method="client", extra_args=["--skip-lock-tables", "--max-statement-time=0"]
                ),
            ),
            id="mysql-client",
        ),
    ],
)
class TestMysql(SourceContract):
    pass
