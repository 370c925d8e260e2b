"""The source `mysql` against real servers: what it dumps comes back as it was."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.context import StageContext
from pipeline.errors import SourceError
from tests.integration.mysql_fingerprint import difference, fingerprint
from tests.integration.mysql_servers import artifact, chunks, database, dump, dump_all, source
from tests.servers.mariadb import HOST, MariaDb

pytestmark = pytest.mark.integration

TORTURE = Path(__file__).with_name("mysql_torture.sql").read_bytes()
LARGE = "max-allowed-packet=64M"


@pytest.fixture(scope="module")
def server() -> Iterator[MariaDb]:
    """With one of everything, and less room for a packet than some of its values need."""
    with MariaDb() as started:
        started.sql("SET GLOBAL max_allowed_packet=67108864")
        started.load(TORTURE)
        started.sql("SET GLOBAL max_allowed_packet=16777216")
        yield started


@pytest.fixture(scope="module")
def copy() -> Iterator[MariaDb]:
    """An empty server to restore to."""
    with MariaDb(LARGE) as started:
        started.sql("SET GLOBAL log_bin_trust_function_creators=1; CREATE USER 'app'@'10.0.0.%'")
        yield started


class TestRoundTrip:
    @pytest.mark.parametrize("parallel", [1, 3])
    def test_everything_comes_back_through_the_plain_client(
        self, server: MariaDb, copy: MariaDb, parallel: int
    ) -> None:
        data, context = dump(server, databases=["torture"], parallel=parallel)
        copy.sql("DROP DATABASE IF EXISTS torture")
        copy.client("mariadb", f"--{LARGE}", stdin=data)
        assert difference(fingerprint(server, "torture"), fingerprint(copy, "torture")) == {}
        counts = context.findings.counts
        assert (counts["tables"], counts["views"], counts["triggers"]) == (29, 9, 4)
        assert (counts["routines"], counts["events"], counts["sequences"]) == (8, 2, 1)
        assert context.findings.facts["binlog_file"].startswith("binlog.")

    def test_mariadb_dump_of_the_same_loses_something(self, server: MariaDb, copy: MariaDb) -> None:
        """That is what the one above is measured with: the comparison can fail."""
        options = ["--single-transaction", "--hex-blob", "--routines", "--events", "-H"]
        data = server.client("mariadb-dump", *options, f"--{LARGE}", "--databases", "torture")
        copy.sql("DROP DATABASE IF EXISTS torture")
        with pytest.raises(AssertionError, match="ERROR"):
            copy.client("mariadb", f"--{LARGE}", stdin=data)
        assert difference(fingerprint(server, "torture"), fingerprint(copy, "torture"))

    def test_through_restore_under_another_name(self, server: MariaDb, copy: MariaDb) -> None:
        data, _ = dump(server, databases=["torture"], exclude_tables=["large"], parallel=2)
        target = source(copy)
        url = f"mysql://{HOST}:{copy.port}/an%20other"
        target.load(iter(chunks(data)), artifact("torture"), url, False, StageContext())
        there = fingerprint(copy, "an other")
        here = fingerprint(server, "torture")
        for kind in ("rows of", "checksum of", "definition of", "trigger", "view"):
            ours = {key: value for key, value in here.items() if key.startswith(kind)}
            ours.pop(f"{kind} large", None)
            theirs = {key: value for key, value in there.items() if key.startswith(kind)}
            # A sequence is shown with the name of its database.
            assert repr(ours) == repr(theirs).replace("`an other`", "`torture`")
        with pytest.raises(SourceError, match="and tables in it; give --overwrite"):
            target.load(iter(chunks(data)), artifact("torture"), url, False, StageContext())
        target.load(iter(chunks(data)), artifact("torture"), url, True, StageContext())
        copy.sql("DROP DATABASE `an other`")

    def test_a_second_dump_of_the_copy_is_the_same(self, server: MariaDb, copy: MariaDb) -> None:
        with database(
            server, "again", "CREATE TABLE t (a INT, b TEXT); INSERT INTO t VALUES (1,2)"
        ):
            first, _ = dump(server, databases=["again"])
            copy.load(first)
            second, _ = dump(copy, databases=["again"])
            copy.sql("DROP DATABASE again")
        assert first.split(b"\n")[2:] == second.split(b"\n")[2:]

    def test_accounts_and_what_they_may_do(self, server: MariaDb, copy: MariaDb) -> None:
        server.sql(
            "CREATE ROLE readers; GRANT SELECT ON torture.* TO readers;"
            "CREATE USER `o'k`@`10.%` IDENTIFIED BY 'p' REQUIRE SSL WITH MAX_USER_CONNECTIONS 3;"
            "GRANT readers TO `o'k`@`10.%`; SET DEFAULT ROLE readers FOR `o'k`@`10.%`;"
            "GRANT INSERT (v) ON torture.mysm TO `o'k`@`10.%`"
        )
        data, context = dump(
            server, databases=["torture"], tables=["mysm"], artifact="single", users=True
        )
        assert context.findings.counts["users"] >= 2
        # Only root may say who may act for others.
        copy.client("mariadb", "--user=root", "--password=", stdin=data)
        for shown in ("GRANTS FOR `o'k`@`10.%`", "CREATE USER `o'k`@`10.%`", "GRANTS FOR readers"):
            assert copy.sql(f"SHOW {shown}") == server.sql(f"SHOW {shown}")
        for each in (server, copy):
            each.sql("DROP USER `o'k`@`10.%`; DROP ROLE readers")
        copy.sql("DROP DATABASE torture")


# Names that break careless quotation, comments, and the commands of the client.
NAMES = st.text(st.sampled_from("abc`'\"\\;-#/* \n%_.ü😀!"), min_size=1, max_size=12).filter(
    lambda name: name.strip() == name and "😀" not in name
)
VALUES = st.one_of(st.none(), st.text(max_size=40), st.binary(max_size=40))
TYPES = {
    "VARCHAR(200) CHARACTER SET utf8mb4": st.text(
        st.characters(exclude_categories=["Cs"]), max_size=60
    ),
    "LONGTEXT CHARACTER SET utf8mb4": st.text(st.sampled_from("a'\\\r\n\0\x1a;`é😀"), max_size=60),
    "BLOB": st.binary(max_size=60),
    "VARBINARY(60)": st.binary(max_size=60),
    "BIT(13)": st.integers(0, 2**13 - 1),
    "BIGINT": st.integers(-(2**63), 2**63 - 1),
    "DOUBLE": st.floats(allow_nan=False, allow_infinity=False).map(lambda number: number + 0.0),
    "FLOAT": st.floats(allow_nan=False, allow_infinity=False, width=32),
    "DECIMAL(30,10)": st.decimals(-(10**19), 10**19, places=10),
    "DATETIME(6)": st.datetimes(),
    "TIME": st.sampled_from(["-838:59:59", "00:00:00", "12:34:56"]),
    "YEAR": st.sampled_from([0, 1901, 2155]),
}


@st.composite
def tables(draw: Any) -> tuple[str, list[tuple[str, str]], list[tuple[Any, ...]]]:
    kinds = draw(st.lists(st.sampled_from(sorted(TYPES)), min_size=1, max_size=6))
    names = draw(
        st.lists(
            NAMES, min_size=len(kinds), max_size=len(kinds), unique_by=lambda name: name.lower()
        )
    )
    row = st.tuples(*(st.one_of(st.none(), TYPES[kind]) for kind in kinds))
    columns = list(zip(names, kinds, strict=True))
    return draw(NAMES), columns, draw(st.lists(row, max_size=8))


class TestProperty:
    @settings(
        max_examples=15,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
        derandomize=True,
    )
    @given(made=tables())
    def test_any_table_comes_back(
        self, server: MariaDb, copy: MariaDb, made: tuple[str, Any, Any]
    ) -> None:
        name, columns, rows = made
        table = "`" + name.replace("`", "``") + "`"
        defined = ", ".join(f"`{n.replace('`', '``')}` {kind}" for n, kind in columns)
        with database(server, "property"):
            session = server.session(database="property", charset="utf8mb4")
            with session as opened, opened.cursor() as cursor:
                cursor.execute("SET sql_mode=''")
                cursor.execute(f"CREATE TABLE {table} ({defined})")
                marks = ", ".join(["%s"] * len(columns))
                insert = f"INSERT INTO {table.replace('%', '%%')} VALUES ({marks})"
                for row in rows:
                    cursor.execute(insert, row)
            data, context = dump(server, databases=["property"])
            assert context.findings.counts.get("rows", 0) == len(rows)
            copy.sql("DROP DATABASE IF EXISTS property")
            copy.load(data)
            assert difference(fingerprint(server, "property"), fingerprint(copy, "property")) == {}


class Writer(threading.Thread):
    """Moves money from one table to another, one transaction after the other, until it is told."""

    def __init__(self, server: MariaDb, name: str) -> None:
        super().__init__()
        self._server = server
        self._name = name
        self.done = threading.Event()
        self.moves = 0

    def run(self) -> None:
        with self._server.session(database=self._name) as session:
            while not self.done.is_set():
                number = self.moves % 500 + 1
                session.query("BEGIN")
                session.query(f"UPDATE a SET v = v - 1 WHERE id = {number}")
                session.query(f"UPDATE z SET v = v + 1 WHERE id = {501 - number}")
                session.query("COMMIT")
                self.moves += 1


INVARIANT = (
    "CREATE TABLE {} (id INT PRIMARY KEY, v BIGINT, pad VARCHAR(800));"
    "INSERT INTO {} SELECT seq, 1000, REPEAT('x', 800) FROM seq_1_to_3000;"
)


@pytest.mark.parametrize("logged", [True, False], ids=["position of the log", "short lock"])
def test_twenty_dumps_under_load_hold_what_must_hold(copy: MariaDb, logged: bool) -> None:
    statements = INVARIANT.format("a", "a") + INVARIANT.format("z", "z")
    started = MariaDb(*([] if logged else ["skip-log-bin"]))
    with started as busy, database(busy, "money", statements) as name:
        writer = Writer(busy, name)
        writer.start()
        moved = set()
        try:
            for _ in range(10):
                data, context = dump(busy, databases=[name], parallel=3)
                assert context.findings.warnings == []
                copy.load(data)
                sums = copy.sql("SELECT SUM(v) FROM money.a; SELECT SUM(v) FROM money.a")
                moved.add(sums[0][0])
                total = "SELECT (SELECT SUM(v) FROM money.a) + (SELECT SUM(v) FROM money.z)"
                assert copy.sql(total) == [(2 * 3000 * 1000,)]
        finally:
            writer.done.set()
            writer.join()
        assert writer.moves > 10
        assert len(moved) > 5, "nothing was written meanwhile"
        copy.sql("DROP DATABASE money")


def test_all_databases_of_a_run_show_the_same_moment(server: MariaDb) -> None:
    table = "CREATE TABLE t (v INT); INSERT INTO t VALUES (1)"
    with database(server, "one", table), database(server, "two", table):
        ours = source(server, databases=["one", "two"])
        first, second = ours.artifacts()
        assert b"(1)" in b"".join(ours.stream(first, StageContext())).replace(b" ", b"")
        server.sql("UPDATE two.t SET v = 2")
        assert b"(1)" in b"".join(ours.stream(second, StageContext())).replace(b" ", b"")
        assert b"(2)" in dump_all(source(server, databases=["two"]))["two"].replace(b" ", b"")
