"""Source `postgres` against real servers: what comes back, and what failures look like."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.context import StageContext
from pipeline.errors import SourceError
from tests.integration.postgres_source import (
    artifact,
    contents,
    definition,
    left_behind,
    logical,
    read,
    roles,
)
from tests.servers.base import HOST
from tests.servers.postgres import DEBIAN, NEWEST, PASSWORD, USER, Postgresql

pytestmark = pytest.mark.integration
TORTURE = (Path(__file__).parent / "postgres_torture.sql").read_text()
SECRET = PASSWORD.rpartition(" ")[2].encode()
BIG_ROWS = 150_000
ROLES = """
CREATE ROLE staff;
CREATE ROLE seller LOGIN PASSWORD 'x' CONNECTION LIMIT 3 IN ROLE staff;
ALTER ROLE seller SET work_mem = '8MB';
"""


def furnished(major: int) -> Iterator[Postgresql]:
    with Postgresql(major, settings={"wal_level": "logical"}) as server:
        server.execute(ROLES)
        for statement in ("CREATE DATABASE shop", "ALTER DATABASE shop SET timezone = 'UTC'"):
            server.execute(statement)
        server.execute(TORTURE, "shop")
        server.execute("CREATE DATABASE big")
        server.execute(
            "CREATE TABLE big AS SELECT n AS id, repeat(md5(n::text), 4) AS note "
            f"FROM generate_series(1, {BIG_ROWS}) n",
            "big",
        )
        yield server


@pytest.fixture(scope="module")
def server() -> Iterator[Postgresql]:
    yield from furnished(DEBIAN)


@pytest.fixture(scope="module", params=[DEBIAN, NEWEST])
def each(request: pytest.FixtureRequest, server: Postgresql) -> Iterator[Postgresql]:
    if request.param == server.major:
        yield server
    else:
        yield from furnished(request.param)


@pytest.fixture(scope="module")
def empty(each: Postgresql) -> Iterator[Postgresql]:
    with Postgresql(each.major, settings={"wal_level": "logical"}) as made:
        yield made


def url(server: Postgresql, database: str = "") -> str:
    return f"postgres://{USER}@{HOST}:{server.port}/{database}"


def load(source: Any, target: Postgresql, name: str, to: str, overwrite: bool = False) -> list[str]:
    chunks = iter(read(source, name))
    problems = source.load(
        chunks, artifact(source, name), url(target, to), overwrite, StageContext()
    )
    return list(problems)


class TestRestore:
    def test_roles_then_a_database_with_all_that_is_in_it(
        self, each: Postgresql, empty: Postgresql
    ) -> None:
        source = logical(each)
        assert load(source, empty, "globals", "") == []
        assert roles(empty) == roles(each)
        assert load(source, empty, "shop", "") == []
        assert definition(empty, "shop") == definition(each, "shop")
        assert contents(empty, "shop") == contents(each, "shop")
        assert len(contents(each, "shop")) >= 10

    def test_into_a_database_of_another_name_that_it_makes(
        self, each: Postgresql, empty: Postgresql
    ) -> None:
        assert load(logical(each), empty, "shop", "other") == []
        assert contents(empty, "other") == contents(each, "shop")

    def test_what_is_there_is_replaced_only_when_that_is_said(
        self, each: Postgresql, empty: Postgresql
    ) -> None:
        source = logical(each)
        load(source, empty, "shop", "again")
        empty.execute("DELETE FROM heir", "again")
        with pytest.raises(SourceError, match=r'database "again" is not empty; .*--overwrite'):
            load(source, empty, "shop", "again")
        assert load(source, empty, "shop", "again", overwrite=True) == []
        assert contents(empty, "again") == contents(each, "shop")

    def test_a_dump_as_sql(self, each: Postgresql, empty: Postgresql) -> None:
        assert load(logical(each, format="plain"), empty, "shop", "sql") == []
        assert contents(empty, "sql") == contents(each, "shop")

    def test_a_restore_that_fails_leaves_no_half(self, server: Postgresql) -> None:
        source = logical(server)
        server.execute("CREATE DATABASE half")
        chunks = read(source, "shop")
        cut = [b"".join(chunks)[:-5000]]
        with pytest.raises(SourceError, match="pg_restore"):
            source.load(iter(cut), artifact(source), url(server, "half"), False, StageContext())
        assert contents(server, "half") == {"large objects": None}

    @pytest.mark.parametrize(
        ("address", "said"),
        [
            ("mysql://root@localhost/", "is not understood"),
            ("postgres://me:secret@localhost/shop", "a password in an address"),
            ("postgres://me@localhost/shop?options=-c", '"options", which is not understood'),
            ("postgres://[::1", "is not understood"),
        ],
    )
    def test_an_address_that_cannot_be_used(
        self, server: Postgresql, address: str, said: str
    ) -> None:
        source = logical(server)
        with pytest.raises(SourceError, match=said) as raised:
            source.load(iter([b"x"]), artifact(source), address, False, StageContext())
        assert "secret" not in str(raised.value)


class TestExport:
    @pytest.mark.parametrize("kind", ["csv", "binary"])
    def test_tables_come_back(self, each: Postgresql, empty: Postgresql, kind: str) -> None:
        tables = ["parent*", "child", "heir", "big"]
        source = logical(each, format="copy", copy_format=kind, tables=tables, databases=["shop"])
        context = StageContext()
        read(source, context=context)
        assert context.findings.counts == {"tables": 5, "rows": 500 + 99 + 1}
        assert load(source, empty, "shop", f"copied_{kind}") == []
        before, after = contents(each, "shop"), contents(empty, f"copied_{kind}")
        assert {name: before[name] for name in after if name != "large objects"} == {
            name: digest for name, digest in after.items() if name != "large objects"
        }
        assert {"child", "heir", "parent_old", "parent_new", "parent_id_seq"} < set(after)
        indexes = "SELECT indexdef FROM pg_indexes WHERE tablename ~ '^(parent|child)' ORDER BY 1"
        checks = "SELECT conrelid::regclass::text, pg_get_constraintdef(oid) FROM pg_constraint "
        checks += "WHERE conrelid::regclass::text ~ '^(parent|child|heir)' ORDER BY 1, 2"
        for query in (indexes, checks):
            assert empty.execute(query, f"copied_{kind}") == each.execute(query, "shop")

    def test_psql_loads_what_was_unpacked(self, server: Postgresql, tmp_path: Path) -> None:
        source = logical(server, format="copy", databases=["shop"], tables=["parent*"])
        with tarfile.open(fileobj=io.BytesIO(b"".join(read(source)))) as archive:
            names = archive.getnames()
            archive.extractall(tmp_path, filter="data")
        assert names == [
            "load.sql",
            "before.sql",
            "data/public.parent_new.csv",
            "data/public.parent_old.csv",
            "after.sql",
        ]
        server.execute("CREATE DATABASE by_hand")
        environment = {**os.environ, "PGPASSWORD": PASSWORD}
        psql = [str(server.bin / "psql"), "-X", "-q", "-h", HOST, "-p", str(server.port)]
        psql += ["-U", USER, "-d", "by_hand", "-f", "load.sql"]
        subprocess.run(psql, cwd=tmp_path, env=environment, check=True, stdout=subprocess.DEVNULL)
        assert contents(server, "by_hand")["parent_new"] == contents(server, "shop")["parent_new"]

    def test_odd_names_and_values_are_kept(self, server: Postgresql) -> None:
        server.execute("CREATE DATABASE odd; ")
        server.execute(
            'CREATE SCHEMA "a.b"; CREATE TABLE "a.b"."c/d ""é" ("x y" text, n int); '
            """INSERT INTO "a.b"."c/d ""é" VALUES (E'\\n', 1), ('', 2), (NULL, 3), ('\\.', 4)""",
            "odd",
        )
        source = logical(server, format="copy", databases=["odd"])
        assert load(source, server, "odd", "odd2") == []
        assert contents(server, "odd2") == contents(server, "odd")
        with tarfile.open(fileobj=io.BytesIO(b"".join(read(source, "odd")))) as archive:
            assert "data/a%2Eb.c%2Fd%20%22%C3%A9.csv" in archive.getnames()

    def test_it_is_of_one_moment(self, server: Postgresql) -> None:
        server.execute("CREATE DATABASE moving")
        server.execute(
            "CREATE TABLE a (n int); CREATE TABLE z (n int); INSERT INTO a VALUES (1000);"
            "INSERT INTO z VALUES (0); CREATE TABLE m AS SELECT repeat('x', 900) AS x "
            "FROM generate_series(1, 20000)",
            "moving",
        )
        source = logical(server, format="copy", databases=["moving"])
        stop = threading.Event()

        def move() -> None:
            with server.connect("moving") as connection:
                while not stop.is_set():
                    connection.execute(
                        "BEGIN; UPDATE a SET n = n - 1; UPDATE z SET n = n + 1; COMMIT"
                    )

        mover = threading.Thread(target=move)
        mover.start()
        try:
            load(source, server, "moving", "moved")
        finally:
            stop.set()
            mover.join()
        sum_of_both = "SELECT (SELECT sum(n) FROM a) + (SELECT sum(n) FROM z)"
        assert server.execute(sum_of_both, "moved") == [(1000,)]

    def test_rows_that_a_policy_hides_are_an_error(self, server: Postgresql) -> None:
        server.execute("GRANT SELECT ON child TO seller", "shop")
        keys: dict[str, Any] = {"user": "seller", "password": "x", "databases": ["shop"]}
        source = logical(server, format="copy", tables=["child"], globals=False, **keys)
        with pytest.raises(SourceError, match="row-level security"):
            read(source)

    @pytest.mark.parametrize("keys", [{"tables": ["none*"]}, {"schemas": ["none"]}])
    def test_no_table_is_a_failure(self, server: Postgresql, keys: dict[str, Any]) -> None:
        with pytest.raises(SourceError, match="no table is chosen"):
            read(logical(server, format="copy", databases=["shop"], **keys))


class TestChoice:
    def test_every_database_but_templates(self, server: Postgresql) -> None:
        names = [each.name for each in logical(server).artifacts()]
        assert names[0] == "globals"
        assert {"postgres", "shop", "big"} < set(names)
        assert not {"template0", "template1"} & set(names)

    def test_names_and_excludes(self, server: Postgresql) -> None:
        source = logical(server, databases=["shop", "big"], exclude=["b*"], globals=False)
        assert [each.name for each in source.artifacts()] == ["shop"]

    @pytest.mark.parametrize(
        ("keys", "said"),
        [
            ({"databases": ["shop", "none"]}, 'there is no database "none".*there are: big'),
            ({"exclude": ["*"]}, "no database is left"),
        ],
    )
    def test_what_is_not_there_is_a_failure(
        self, server: Postgresql, keys: dict[str, Any], said: str
    ) -> None:
        with pytest.raises(SourceError, match=said):
            logical(server, **keys).artifacts()

    def test_schemas_tables_and_extra_arguments_reach_pg_dump(self, server: Postgresql) -> None:
        keys: dict[str, Any] = {"databases": ["shop"], "format": "plain"}
        text = b"".join(read(logical(server, tables=["parent*"], exclude_tables=["*_old"], **keys)))
        assert b"CREATE TABLE public.parent_new" in text
        assert b"parent_old" not in text.replace(b"'parent_old'", b"")
        text = b"".join(
            read(logical(server, schemas=["odd*"], extra_args=["--no-comments"], **keys))
        )
        assert b'tab""le.x' in text
        assert b"CREATE TABLE public.parent" not in text
        with pytest.raises(SourceError, match="no matching tables were found"):
            read(logical(server, tables=["none"], **keys))

    def test_passwords_of_roles_can_be_left_out(self, server: Postgresql) -> None:
        assert b"SCRAM-SHA-256" in b"".join(read(logical(server), "globals"))
        assert b"SCRAM-SHA-256" not in b"".join(
            read(logical(server, role_passwords=False), "globals")
        )

    def test_a_role_that_may_not_read_passwords_is_told_before_the_run(
        self, server: Postgresql
    ) -> None:
        source = logical(server, user="seller", password="x")
        for act in (source.artifacts, source.probe):
            with pytest.raises(SourceError, match=r"may not read the passwords.*role_passwords"):
                act()


class TestProbe:
    def test_it_tells_server_databases_and_clients(self, each: Postgresql) -> None:
        facts = "\n".join(logical(each).probe())
        assert f"PostgreSQL {each.major}." in facts
        assert "databases: big, " in facts
        assert f"pg_dump {each.major}." in facts
        assert f"pg_dumpall {each.major}." in facts

    def test_without_a_client_that_is_new_enough_it_names_the_package(self) -> None:
        with Postgresql(NEWEST) as server:
            source = logical(server, programs="/usr/lib/postgresql/15/bin")
            for act in (source.probe, source.artifacts):
                with pytest.raises(SourceError) as raised:
                    act()
                assert 'no "pg_dump" for PostgreSQL 18 is installed' in str(raised.value)
                assert "only for 15." in str(raised.value)
                assert "install the package postgresql-client-18" in str(raised.value)

    def test_the_client_is_found_without_being_told_where(self, server: Postgresql) -> None:
        facts = logical(server, programs=None).probe()
        assert any('is "/usr/lib/postgresql/15/bin/pg_dump"' in fact for fact in facts)


class TestFailure:
    @pytest.mark.parametrize("kind", ["custom", "plain", "copy"])
    def test_a_server_killed_half_way_is_an_error(self, kind: str) -> None:
        with Postgresql() as server:
            server.execute(
                "CREATE TABLE big AS SELECT repeat(md5(n::text), 4) AS note "
                f"FROM generate_series(1, {BIG_ROWS}) n"
            )
            source = logical(server, format=kind)
            stream = source.stream(artifact(source, "postgres"), StageContext())
            assert next(stream)
            server.kill()
            with pytest.raises(SourceError, match=r"server closed the connection|reset by peer"):
                list(stream)

    def test_a_program_killed_half_way_is_an_error(self, server: Postgresql) -> None:
        source = logical(server)
        stream = source.stream(artifact(source, "big"), StageContext())
        assert next(stream)
        (pid,) = [pid for pid, line in command_lines() if b"pg_dump\0" in line]
        os.kill(pid, 9)
        with pytest.raises(SourceError, match='"pg_dump" was ended by SIGKILL'):
            list(stream)

    @pytest.mark.parametrize(
        ("body", "said"),
        [
            ("exit 0", "is not a dump in the custom format"),
            ("head -c 3000000 /dev/zero; exit 0", "is not a dump in the custom format"),
            ("printf PGDMP; head -c 3000000 /dev/zero; echo lost >&2; exit 1", "exit code 1: lost"),
        ],
        ids=["nothing", "something-else", "much-then-an-error"],
    )
    def test_a_program_that_does_not_do_its_work_is_an_error(
        self, server: Postgresql, tmp_path: Path, body: str, said: str
    ) -> None:
        program = tmp_path / "pg_dump"
        version = "echo 'pg_dump (PostgreSQL) 15.3'; exit 0"
        program.write_text(f'#!/bin/sh\n[ "$1" = --version ] && {{ {version}; }}\n{body}\n')
        program.chmod(0o755)
        source = logical(server, programs=str(tmp_path), globals=False)
        with pytest.raises(SourceError, match=said):
            read(source)

    def test_sql_without_its_last_line_is_cut_off(self, server: Postgresql) -> None:
        source = logical(server, format="plain")
        whole = b"".join(read(source))
        assert source.examine(iter([whole]), StageContext()) == "a whole dump as SQL"
        with pytest.raises(SourceError, match="lacks its end mark"):
            source.examine(iter([whole[:-700]]), StageContext())

    @pytest.mark.parametrize(
        ("keys", "said"),
        [
            ({"password": "wrong"}, "password authentication failed.*; see `user` and `password`"),
            ({"port": 1}, "cannot connect: .*refused"),
            ({"tls": {"mode": "require"}}, "does not support SSL.*turn TLS on"),
            ({"database": "none"}, 'database "none" does not exist'),
        ],
    )
    def test_what_keeps_us_from_connecting_is_said(
        self, server: Postgresql, keys: dict[str, Any], said: str
    ) -> None:
        source = logical(server, **keys)
        for act in (source.artifacts, source.probe):
            with pytest.raises(SourceError, match=said):
                act()

    def test_a_table_that_stays_locked_is_given_up(self, server: Postgresql) -> None:
        with server.connect("shop") as other:
            other.execute("BEGIN; LOCK TABLE child IN ACCESS EXCLUSIVE MODE")
            for kind in ("custom", "copy"):
                source = logical(server, format=kind, lock_wait="1s", databases=["shop"])
                with pytest.raises(SourceError, match=r"(lock|statement) timeout"):
                    read(source)
        assert left_behind(server) == []

    @pytest.mark.parametrize("kind", ["custom", "copy"])
    def test_a_server_that_falls_silent_is_given_up(self, kind: str) -> None:
        with Postgresql() as server:
            server.execute(
                "CREATE TABLE big AS SELECT repeat(md5(n::text), 9) FROM generate_series(1,30000) n"
            )
            source = logical(server, format=kind, lock_wait="1s", idle_timeout="2s")
            stream = source.stream(artifact(source, "postgres"), StageContext())
            assert next(stream)
            server.freeze()
            try:
                with pytest.raises(SourceError, match="silent for 2 s; see `idle_timeout`"):
                    list(stream)
            finally:
                server.thaw()


class TestSecrets:
    @pytest.mark.parametrize("kind", ["custom", "plain"])
    def test_the_password_is_in_no_command_line(self, server: Postgresql, kind: str) -> None:
        source = logical(server, format=kind)
        stream = source.stream(artifact(source, "big"), StageContext())
        assert next(stream)
        lines = [line for _, line in command_lines()]
        assert any(b"pg_dump\0" in line for line in lines)
        assert not any(SECRET in line for line in lines)
        assert list(stream)

    def test_a_passfile_is_enough(self, server: Postgresql, tmp_path: Path) -> None:
        file = tmp_path / "pass"
        escaped = PASSWORD.replace("\\", "\\\\").replace(":", "\\:")
        file.write_text(f"*:*:*:*:{escaped}\n")
        file.chmod(0o600)
        source = logical(server, password=None, passfile=str(file))
        assert read(source)
        assert source.probe()


@pytest.fixture(scope="module")
def encrypted() -> Iterator[Postgresql]:
    with Postgresql(tls=True) as made:
        made.execute(
            "CREATE TABLE big AS SELECT repeat(md5(n::text), 4) AS note "
            f"FROM generate_series(1, {BIG_ROWS}) n"
        )
        yield made


class TestTls:
    @pytest.mark.parametrize("kind", ["custom", "copy"])
    def test_everything_goes_through_it(self, encrypted: Postgresql, kind: str) -> None:
        source = logical(encrypted, format=kind)
        assert ", TLS" in source.probe()[0]
        assert sum(map(len, read(source, "postgres"))) > BIG_ROWS * 128

    def test_a_server_that_insists_is_told_apart(self, encrypted: Postgresql) -> None:
        with pytest.raises(SourceError, match=r"no encryption; .*hostssl lines only, set `tls"):
            logical(encrypted, tls={"mode": "off"}).probe()

    def test_a_certificate_of_an_unknown_authority_is_refused(self, encrypted: Postgresql) -> None:
        with pytest.raises(SourceError, match=r"certificate verify failed; .*`tls.ca`"):
            logical(encrypted, tls={"mode": "verify"}).probe()


def command_lines() -> Iterator[tuple[int, bytes]]:
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                yield int(entry), Path(f"/proc/{entry}/cmdline").read_bytes()
            except OSError:
                continue
