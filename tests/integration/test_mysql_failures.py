"""The source `mysql` when something is wrong: a clear error, nothing short, nothing left behind."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.context import StageContext
from pipeline.errors import Aborted, SourceError
from tests.integration.mysql_servers import artifact, database, dump, source
from tests.servers.base import HOST
from tests.servers.mariadb import PASSWORD, MariaDb
from tests.servers.proxy import Proxy

pytestmark = pytest.mark.integration

ROWS = (
    "CREATE TABLE a (id INT PRIMARY KEY, v TEXT);"
    "INSERT INTO a SELECT seq, REPEAT(MD5(seq), 64) FROM seq_1_to_8000;"
    "CREATE TABLE b (id INT PRIMARY KEY, v TEXT); INSERT INTO b VALUES (1,'x');"
)
"""16 MiB, and a table that is read after them."""


@pytest.fixture(scope="module")
def server() -> Iterator[MariaDb]:
    with MariaDb() as started:
        started.sql(f"CREATE DATABASE shop; USE shop; {ROWS}")
        yield started


@pytest.fixture(autouse=True)
def _nothing_is_left(server: MariaDb) -> Iterator[None]:
    """No connection, and no lock: somebody else can write, and change tables."""
    yield
    server.sql("SET lock_wait_timeout=10; ALTER TABLE shop.b COMMENT='free'; FLUSH TABLES")


def begun(server: MariaDb, **keys: Any) -> Iterator[bytes]:
    """A dump whose first chunk is there."""
    ours = source(server, databases=["shop"], parallel=1, **keys)
    stream = ours.stream(ours.artifacts()[0], StageContext())
    assert next(stream)
    return stream


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        ("DROP TABLE shop.b", r'table "shop.b": .*(dropped or renamed|definition)'),
        (
            "ALTER TABLE shop.b ADD COLUMN w INT, ALGORITHM=COPY",
            'table "shop.b": .*altered during the dump',
        ),
        ("RENAME TABLE shop.b TO shop.c", r'table "shop.b": .*dropped or renamed'),
    ],
)
def test_a_table_that_changes_meanwhile_fails_the_dump(
    server: MariaDb, harm: str, said: str
) -> None:
    stream = begun(server)
    server.sql(harm)
    with pytest.raises(SourceError, match=said):
        list(stream)
    server.sql("DROP TABLE IF EXISTS shop.b, shop.c; CREATE TABLE shop.b (id INT, v TEXT)")


@pytest.mark.parametrize("kill", ["KILL", "KILL QUERY"])
def test_a_dump_that_somebody_ends_fails(server: MariaDb, kill: str) -> None:
    stream = begun(server)
    (number,) = server.sql(
        "SELECT ID FROM information_schema.PROCESSLIST WHERE INFO LIKE 'SELECT CONCAT%'"
    )[0]
    server.sql(f"{kill} {number}")
    with pytest.raises(SourceError, match=r"was lost|somebody ended the query"):
        list(stream)


def test_a_server_that_dies_fails_the_dump() -> None:
    with MariaDb() as dying:
        dying.sql(f"CREATE DATABASE shop; USE shop; {ROWS}")
        stream = begun(dying)
        dying.kill()
        with pytest.raises(SourceError, match="was lost"):
            list(stream)


@pytest.mark.parametrize("parallel", [1, 2])
def test_a_connection_that_breaks_fails_the_dump(server: MariaDb, parallel: int) -> None:
    with Proxy(server.port) as proxy:
        ours = source(server, databases=["shop"], parallel=parallel, port=proxy.port)
        stream = ours.stream(ours.artifacts()[0], StageContext())
        assert next(stream)
        proxy.cut()
        with pytest.raises(SourceError, match="was lost"):
            list(stream)


def test_a_server_that_falls_silent_fails_the_dump(server: MariaDb) -> None:
    with Proxy(server.port) as proxy:
        ours = source(server, databases=["shop"], parallel=1, port=proxy.port, idle_timeout="1s")
        stream = ours.stream(ours.artifacts()[0], StageContext())
        assert next(stream)
        proxy.mute()
        with pytest.raises(SourceError, match="was silent for too long; see idle_timeout"):
            list(stream)


def test_an_abort_while_connecting_ends_it(server: MariaDb) -> None:
    with Proxy(server.port) as proxy:
        ours = source(server, databases=["shop"], port=proxy.port, idle_timeout="1h")
        planned = ours.artifacts()[0]
        proxy.mute()  # From here on nothing greets who connects.
        context = StageContext()
        holder = threading.Timer(0.3, context.teardown.abort)
        holder.start()
        with pytest.raises(Aborted):
            list(ours.stream(planned, context))
        holder.join()


def test_limits_of_the_server_do_not_cut_a_dump_off(server: MariaDb) -> None:
    whole, _ = dump(server, databases=["shop"])
    server.sql("SET GLOBAL sql_select_limit=1, GLOBAL max_statement_time=0.001")
    server.sql("SET GLOBAL net_write_timeout=1")
    try:
        limited, _ = dump(server, databases=["shop"])
    finally:
        server.sql(
            "SET GLOBAL sql_select_limit=DEFAULT, GLOBAL max_statement_time=DEFAULT,"
            "GLOBAL net_write_timeout=DEFAULT"
        )
    assert whole == limited


def test_a_reader_that_stalls_for_longer_than_the_server_waits_gets_everything(
    server: MariaDb,
) -> None:
    server.sql("SET GLOBAL net_write_timeout=1")
    try:
        stream = begun(server)
        threading.Event().wait(2.5)
        rest = list(stream)
    finally:
        server.sql("SET GLOBAL net_write_timeout=DEFAULT")
    assert rest[-1].rstrip().endswith(b"-- Dump completed")


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"password": "wrong"}, "denies access: .*; check user and password"),
        ({"port": 1}, "cannot be reached"),
        ({"socket": "/no/such/socket", "host": None, "port": None}, "cannot be reached"),
        ({"databases": ["shop", "none_*"]}, 'there is no database "none_[*]"'),
        ({"databases": "all", "exclude": ["*"]}, "there is no database to dump"),
        ({"option_file": "/no/such/file"}, 'option file "/no/such/file" cannot be read'),
        ({"tables": ["x"]}, "there is no table to dump"),
    ],
)
def test_what_cannot_work_is_told_by_check(
    server: MariaDb, keys: dict[str, Any], said: str
) -> None:
    with pytest.raises(SourceError, match=said) as raised:
        source(server, **keys).probe()
    assert "wrong" not in str(raised.value).replace("wrong password", "")
    assert PASSWORD not in str(raised.value)


def grants(server: MariaDb, *granted: str) -> dict[str, Any]:
    """The login of an account that has these and no more."""
    server.sql("CREATE OR REPLACE USER little IDENTIFIED BY 'x'")
    for grant in granted:
        server.sql(f"GRANT {grant} TO little")
    return {"user": "little", "password": "x", "databases": ["shop"]}


ENOUGH = ("SELECT, SHOW VIEW, TRIGGER, EVENT ON shop.*", "SELECT ON mysql.proc")


@pytest.mark.parametrize(
    ("granted", "said"),
    [
        (["SELECT, SHOW VIEW, TRIGGER ON shop.*"], 'privilege EVENT on "shop" is missing'),
        (["SELECT ON shop.*"], 'privilege SHOW VIEW and TRIGGER and EVENT on "shop" is missing'),
        (["SELECT, SHOW VIEW, TRIGGER, EVENT ON shop.*"], "SELECT on mysql.proc is missing"),
    ],
)
def test_a_missing_privilege_is_named(server: MariaDb, granted: list[str], said: str) -> None:
    with pytest.raises(SourceError, match=said):
        source(server, **grants(server, *granted)).probe()


def test_the_least_privileges_are_enough(server: MariaDb) -> None:
    keys = grants(server, *ENOUGH)
    facts = source(server, **keys).probe()
    assert any("RELOAD is missing" in fact for fact in facts)
    data, _ = dump(server, **keys)
    whole, _ = dump(server, databases=["shop"])
    assert data.split(b"\n")[2:] == whole.split(b"\n")[2:]
    with pytest.raises(SourceError, match="RELOAD is missing; `lock: full` needs it"):
        source(server, **keys, lock="full").probe()


def test_several_connections_need_a_lock_or_the_log() -> None:
    with MariaDb("skip-log-bin") as unlogged:
        unlogged.sql(f"CREATE DATABASE shop; USE shop; {ROWS}")
        _, context = dump(unlogged, **grants(unlogged, *ENOUGH), parallel=2)
        assert any("over one connection" in line for line in context.findings.warnings)
        _, context = dump(unlogged, databases=["shop"], parallel=2)
        assert context.findings.warnings == []
        assert context.findings.facts == {}


def test_a_routine_that_may_not_be_read_is_never_left_out(server: MariaDb) -> None:
    with database(server, "code", "CREATE PROCEDURE p() SELECT 1"):
        keys = grants(server, "SELECT, SHOW VIEW, TRIGGER, EVENT, EXECUTE ON code.*")
        with pytest.raises(SourceError, match="may not be read"):
            dump(server, **{**keys, "databases": ["code"]})


def test_a_broken_view_is_told_and_kept_as_a_comment(server: MariaDb) -> None:
    made = "CREATE TABLE t (x INT); CREATE VIEW v AS SELECT x FROM t; DROP TABLE t"
    with database(server, "views", made):
        data, context = dump(server, databases=["views"])
        assert b"-- CREATE ALGORITHM=UNDEFINED" in data
        server.load(data)
    assert any('view "views.v" is broken' in line for line in context.findings.warnings)


def test_a_global_lock_is_not_waited_for_at_length(server: MariaDb) -> None:
    """And meanwhile nobody else is kept from writing for longer than a moment."""
    with server.session(database="shop") as session:
        session.query("LOCK TABLES b WRITE")
        with pytest.raises(SourceError, match="holds a lock; see `lock_wait`"):
            dump(server, databases=["shop"], lock="full", lock_wait="1s")


def test_a_full_lock_keeps_writers_out_until_the_end(server: MariaDb) -> None:
    made = "CREATE TABLE m (id INT) ENGINE=MyISAM; INSERT INTO m VALUES (1)"
    with database(server, "plain", made):
        _, context = dump(server, databases=["plain"])
        assert any('"plain.m" (MyISAM)' in line for line in context.findings.warnings)
        ours = source(server, databases=["plain"], lock="full")
        stream = ours.stream(ours.artifacts()[0], StageContext())
        next(stream)
        with pytest.raises(Exception, match=r"lock|timeout|1205"):
            server.sql("SET lock_wait_timeout=1; INSERT INTO plain.m VALUES (2)")
        list(stream)
        server.sql("INSERT INTO plain.m VALUES (2)")


def test_an_address_with_a_password_is_refused(server: MariaDb) -> None:
    for url, said in (
        (f"mysql://u:secret@{HOST}/x", "must not hold a password"),
        ("mysql://host:port/x", "not understood"),
        ("postgres://host/x", "not understood"),
    ):
        with pytest.raises(SourceError, match=said) as raised:
            source(server).load(iter([]), artifact("x"), url, False, StageContext())
        assert "secret" not in str(raised.value)


def test_a_dump_that_is_cut_off_does_not_pass_for_whole(server: MariaDb) -> None:
    data, _ = dump(server, databases=["shop"])
    assert "a whole dump" in source(server).examine(iter([data]), StageContext())
    with pytest.raises(SourceError, match="does not end with"):
        source(server).examine(iter([data[:-30]]), StageContext())


def test_a_restore_that_the_server_refuses_fails(server: MariaDb) -> None:
    data, _ = dump(server, databases=["shop"])
    wrong = data.replace(b"INSERT INTO `a`", b"INSERT INTO `nowhere`")
    url = f"mysql://{HOST}:{server.port}/other"
    with pytest.raises(SourceError, match="nowhere"):
        source(server).load(iter([wrong]), artifact("shop"), url, False, StageContext())
    server.sql("DROP DATABASE other")


@pytest.mark.parametrize("way", ["client", "restore"])
def test_the_password_can_be_seen_nowhere(server: MariaDb, tmp_path: Path, way: str) -> None:
    """A program of ours stands in for the client, and writes down what it can be seen with."""
    name = {"client": "mariadb-dump", "restore": "mariadb"}[way]
    seen = tmp_path / "seen"
    program = tmp_path / name
    program.write_text(
        f'#!/bin/sh\ntr "\\0" " " < /proc/$$/cmdline > {seen}; env >> {seen}\n'
        f'exec /usr/bin/{name} "$@"\n'
    )
    program.chmod(0o755)
    if way == "client":
        data, _ = dump(server, databases=["shop"], method="client", program=str(program))
        assert data.rstrip().splitlines()[-1].startswith(b"-- Dump completed")
    else:
        data, _ = dump(server, databases=["shop"], tables=["b"])
        before = os.environ["PATH"]
        os.environ["PATH"] = f"{tmp_path}:{before}"
        try:
            source(server).load(
                iter([data]), artifact("shop"), "mysql:///copied", False, StageContext()
            )
        finally:
            os.environ["PATH"] = before
        server.sql("DROP DATABASE copied")
    assert "--default-character-set" in seen.read_text()
    assert "Pa55" not in seen.read_text()


def test_a_client_that_fails_or_ends_early_is_an_error(server: MariaDb, tmp_path: Path) -> None:
    program = tmp_path / "mariadb-dump"
    for script, said in (
        ('mariadb-dump "$@" | head -c 5000000', "does not end with the line"),
        ('mariadb-dump "$@"; kill -9 $$', "SIGKILL"),
        ("echo no such table >&2; exit 2", "exit code 2: no such table"),
    ):
        program.write_text(
            f"#!/bin/sh\ncase $1 in --version) exec mariadb-dump --version;; esac\n{script}\n"
        )
        program.chmod(0o755)
        with pytest.raises(SourceError, match=said):
            dump(server, databases=["shop"], method="client", program=str(program))


def test_programs_of_the_server_are_there() -> None:
    """The tests above stand or fall with them."""
    assert b"MariaDB" in subprocess.run(["mariadb-dump", "--version"], capture_output=True).stdout
