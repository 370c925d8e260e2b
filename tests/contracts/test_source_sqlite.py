"""SQLite: the contract of all sources, and a point in time while others write."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from pipeline.context import StageContext
from pipeline.errors import Aborted, SourceError
from pipeline.stage import CHUNK, Source
from schemas.sqlite import SqliteSource
from stages.sources.sqlite import Sqlite
from tests.contracts.source import Case, SourceContract, start

WRITER = """
import random, sqlite3, sys, time
path, mode, checkpoint = sys.argv[1:]
database = sqlite3.connect(path, isolation_level=None, timeout=60)
database.execute(f"PRAGMA journal_mode = {mode}")
database.execute(f"PRAGMA wal_autocheckpoint = {checkpoint}")
database.execute("PRAGMA synchronous = OFF")
print("ready", flush=True)
number = 0
while True:
    number += 1
    database.execute("BEGIN IMMEDIATE")
    one, other = random.sample(range(2000), 2)
    change = "UPDATE account SET sum = sum + ?, blob = randomblob(900) WHERE id = ?"
    database.execute(change, (-7, one))
    database.execute(change, (7, other))
    database.execute("INSERT INTO entry VALUES (NULL, ?)", (number,))
    database.execute("UPDATE total SET entries = entries + 1")
    if number % 50 == 0:
        database.execute("DELETE FROM entry WHERE number <= ?", (number - 25,))
        database.execute("UPDATE total SET entries = (SELECT count(*) FROM entry)")
    database.execute("COMMIT")
    time.sleep(0.001)
"""


def make(path: Path, mode: str = "wal", rows: int = 2000, size: int = 2500) -> Path:
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(f"PRAGMA journal_mode = {mode}")
        database.execute("CREATE TABLE account (id INTEGER PRIMARY KEY, sum INTEGER, blob BLOB)")
        database.execute("CREATE TABLE entry (id INTEGER PRIMARY KEY, number INTEGER)")
        database.execute("CREATE INDEX by_number ON entry (number)")
        database.execute("CREATE TABLE total (entries INTEGER)")
        database.execute("INSERT INTO total VALUES (0)")
        database.executemany(
            "INSERT INTO account VALUES (?, 100, zeroblob(?))", ((n, size) for n in range(rows))
        )
    return path


def build(path: Path | str, **keys: Any) -> Sqlite:
    return Sqlite(SqliteSource.model_validate({"type": "sqlite", "paths": [str(path)], **keys}))


def sound(place: Path, _: ExitStack) -> Source:
    path = place / "app.db"
    return build(path if path.exists() else make(path, size=3000))


def cut_off(place: Path, _: ExitStack) -> Source:
    path = make(place / "app.db", "delete", size=3000)
    os.truncate(path, os.path.getsize(path) - 2 * CHUNK)
    # What checks the structure would find it at once.
    return build(path, verify="off")


CASE = Case(
    sound=sound,
    broken=cut_off,
    unusable=lambda place, _: build(place / "not-there.db"),
)


class TestContract(SourceContract):
    @pytest.fixture(params=[pytest.param(CASE, id="sqlite")])
    def case(self, request: pytest.FixtureRequest) -> Case:
        found: Case = request.param
        return found

    def test_a_failure_half_way_is_never_an_end(
        self, case: Case, tmp_path: Path, cleanup: ExitStack
    ) -> None:
        # A small database in rollback mode is read before its first chunk leaves.
        with pytest.raises(SourceError, match=r"malformed|shorter than its header says"):
            list(start(case.broken(tmp_path, cleanup), StageContext())[1])


@contextmanager
def writing(path: Path, mode: str, checkpoint: int = 1000) -> Iterator[None]:
    """Another process that changes the database all the time, and keeps its sums."""
    command = [sys.executable, "-c", WRITER, str(path), mode, str(checkpoint)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
        assert writer.stdout
        assert writer.stdout.readline() == b"ready\n"
        try:
            yield
            assert writer.poll() is None
        finally:
            writer.kill()


def leave_a_log(path: Path) -> None:
    """Changes that are in the log only, and nobody who has it open."""
    with writing(path, "wal", 0):
        deadline = time.monotonic() + 60
        while os.path.getsize(f"{path}-wal") < CHUNK:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def assert_consistent(content: bytes, place: Path) -> int:
    """That it is a point in time; the number of the last change."""
    copy = place / "copy.db"
    copy.write_bytes(content)
    with closing(sqlite3.connect(copy)) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert database.execute("SELECT sum(sum) FROM account").fetchone() == (200_000,)
        entries, last = database.execute("SELECT count(*), max(number) FROM entry").fetchone()
        assert database.execute("SELECT entries FROM total").fetchone() == (entries,)
    copy.unlink()
    return int(last or 0)


@pytest.mark.parametrize(
    ("mode", "checkpoint"),
    [
        pytest.param("wal", 1000, id="log"),
        pytest.param("wal", 5, id="log that is copied back and begun anew all the time"),
        pytest.param("wal", 0, id="log that only grows"),
        pytest.param("delete", 0, id="rollback journal"),
        pytest.param("truncate", 0, id="truncated journal"),
    ],
)
def test_it_is_a_point_in_time_while_others_write(
    tmp_path: Path, mode: str, checkpoint: int
) -> None:
    path = make(tmp_path / "app.db", mode)
    seen = []
    with writing(path, mode, checkpoint):
        for _ in range(40):
            context = StageContext()
            _, stream = start(build(path), context)
            content = b"".join(stream)
            seen.append(assert_consistent(content, tmp_path))
            assert context.expected == len(content)
            assert context.findings.facts == {"journal": "log" if mode == "wal" else "rollback"}
    assert seen == sorted(seen)
    assert seen[-1] > seen[0], "nobody wrote"


def test_writers_do_not_wait_for_a_slow_upload_in_wal_mode(tmp_path: Path) -> None:
    path = make(tmp_path / "app.db", "wal")
    _, stream = start(build(path), StageContext())
    first = next(stream)
    with closing(sqlite3.connect(path, timeout=0)) as other, other:
        other.execute("UPDATE account SET sum = sum + 1")
        other.execute("DROP TABLE entry")
    assert_consistent(first + b"".join(stream), tmp_path)


def test_writers_do_not_wait_for_a_slow_upload_of_a_small_one(tmp_path: Path) -> None:
    path = make(tmp_path / "app.db", "delete")
    _, stream = start(build(path), StageContext())
    first = next(stream)
    with closing(sqlite3.connect(path, timeout=0)) as other, other:
        other.execute("UPDATE account SET sum = sum + 1")
    assert_consistent(first + b"".join(stream), tmp_path)


def test_a_large_one_in_rollback_mode_keeps_its_lock_to_the_end(tmp_path: Path) -> None:
    path = make(tmp_path / "app.db", "delete", size=12_000)
    _, stream = start(build(path), StageContext())
    first = next(stream)
    with (
        closing(sqlite3.connect(path, timeout=0)) as other,
        pytest.raises(sqlite3.OperationalError, match="locked"),
        other,
    ):
        other.execute("UPDATE account SET sum = sum + 1")
    assert_consistent(first + b"".join(stream), tmp_path)


def test_a_log_that_nobody_has_open_is_part_of_it(tmp_path: Path) -> None:
    path = make(tmp_path / "app.db", "wal")
    leave_a_log(path)
    assert_consistent(b"".join(start(build(path), StageContext())[1]), tmp_path)


def test_a_lock_that_stays_is_named(tmp_path: Path) -> None:
    path = make(tmp_path / "app.db", "delete")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(SourceError, match="busy_timeout"):
            list(start(build(path, busy_timeout="100ms"), StageContext())[1])


def test_a_damaged_database_is_no_backup(tmp_path: Path) -> None:
    path = make(tmp_path / "app.db", "delete")
    with open(path, "r+b") as file:
        file.seek(4096 * 3)
        file.write(b"\xff" * 4096)
    with pytest.raises(SourceError, match="is damaged"):
        list(start(build(path), StageContext())[1])


def test_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    path.write_bytes(b"no database, but long enough for one" * 200)
    with pytest.raises(SourceError, match="is not a database"):
        list(start(build(path, verify="off"), StageContext())[1])


def test_an_empty_file_gives_too_little(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    path.touch()
    artifact, stream = start(build(path), StageContext())
    assert sum(map(len, stream)) < artifact.min_size


def test_each_match_is_an_artifact_and_logs_are_not(tmp_path: Path) -> None:
    with closing(sqlite3.connect(make(tmp_path / "a.db"))) as user:
        user.execute("SELECT * FROM total").fetchall()
        make(tmp_path / "b.db")
        assert (tmp_path / "a.db-wal").exists()
        names = [artifact.name for artifact in build(tmp_path / "*").artifacts()]
    assert [name.rpartition("-")[2] for name in names] == ["a.db", "b.db"]


def test_a_link_leads_to_the_log_of_the_database_itself(tmp_path: Path) -> None:
    path = make(tmp_path / "app.db", "wal")
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "elsewhere" / "link.db"
    link.symlink_to(path)
    leave_a_log(path)
    assert_consistent(b"".join(start(build(link), StageContext())[1]), tmp_path)


def test_an_abort_ends_a_wait_for_a_lock(tmp_path: Path) -> None:
    path = make(tmp_path / "app.db", "wal")
    context = StageContext()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        _, stream = start(build(path, busy_timeout="1s"), context)
        with context.teardown.calling(lambda: None):
            context.teardown.abort()
        with pytest.raises(Aborted):
            list(stream)


def test_verify_tells_a_whole_database(tmp_path: Path) -> None:
    path = make(tmp_path / "app.db")
    source = build(path)
    chunks = list(start(source, StageContext())[1])
    assert source.examine(iter(chunks), StageContext()).endswith("pages")
    with pytest.raises(SourceError):
        source.examine(iter([chunks[0][:-7], *chunks[1:]]), StageContext())
