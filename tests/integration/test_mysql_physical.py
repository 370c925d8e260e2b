"""The source `mysql_physical` against a real server: copies start, series join, failures show."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pipeline.context import Increment, StageContext
from pipeline.errors import SourceError
from schemas.mysql import MysqlPhysicalSource
from stages.sources._mysql_physical.xbstream import Xbstream
from stages.sources.mysql_physical import MysqlPhysical
from tests.integration.mysql_fingerprint import difference, fingerprint
from tests.servers.mariadb import MariaDb

pytestmark = pytest.mark.integration

INCREMENTAL = {"full": "weekly", "levels": ["daily"]}


@pytest.fixture(scope="module")
def server() -> Iterator[MariaDb]:
    with MariaDb() as started:
        started.sql(
            "CREATE DATABASE shop; USE shop; CREATE TABLE t (id INT PRIMARY KEY, v TEXT);"
            "INSERT INTO t SELECT seq, REPEAT(MD5(seq), 9) FROM seq_1_to_3000;"
            "CREATE TABLE m (id INT PRIMARY KEY) ENGINE=MyISAM; INSERT INTO m VALUES (1)"
        )
        yield started


def source(server: MariaDb, **keys: Any) -> MysqlPhysical:
    spec = MysqlPhysicalSource.model_validate(
        {"type": "mysql_physical", **server.keys(**{"datadir": str(server.data), **keys})}
    )
    return MysqlPhysical(spec)


def copy(source: MysqlPhysical, base: bytes | None = None) -> tuple[bytes, bytes, StageContext]:
    """A copy, its index, and what was found."""
    index: list[bytes] = []
    context = StageContext()
    if source.periods:
        reads = None if base is None else partial(iter, [base])
        context.increment = Increment(index.append, reads)
    data = b"".join(source.stream(source.artifacts()[0], context))
    return data, b"".join(index), context


def server_on(directory: Path) -> MariaDb:
    """A new server on restored data; `with` starts it."""
    server = MariaDb()
    shutil.copytree(directory, server.data, dirs_exist_ok=True)
    return server


def blocks(data: bytes) -> Iterator[bytes]:
    return (data[at : at + 1_000_003] for at in range(0, len(data), 1_000_003))


def test_a_server_starts_from_a_restored_copy(server: MariaDb, tmp_path: Path) -> None:
    ours = source(server, threads=2)
    data, _, context = copy(ours)
    assert context.findings.facts["binlog_file"] == "binlog.000001"
    assert int(context.findings.facts["to_lsn"]) > 0
    assert context.findings.server_version
    assert "files" in ours.examine(blocks(data), StageContext())
    ours.restore(blocks(data), ours.artifacts()[0], tmp_path / "data", False)
    with server_on(tmp_path / "data") as restored:
        assert not difference(fingerprint(server, "shop"), fingerprint(restored, "shop"))


def test_increments_are_small_and_join(server: MariaDb, tmp_path: Path) -> None:
    ours = source(server, incremental=INCREMENTAL)
    assert ours.periods == ("weekly", "daily")
    full, base, _ = copy(ours)
    steps = []
    for number in (1, 2):
        server.sql(f"USE shop; INSERT INTO t SELECT seq+{number}*10000, 'new' FROM seq_1_to_50")
        assert ours.refuses(ours.artifacts()[0], iter([base])) is None
        step, base, context = copy(ours, base)
        assert int(context.findings.facts["from_lsn"]) > 0
        assert len(step) < len(full) / 4
        steps.append(step)
    artifact, target = ours.artifacts()[0], tmp_path / "data"
    ours.restore(blocks(full), artifact, target, False)
    for step in steps:
        ours.apply(blocks(step), artifact, target)
    with server_on(target) as restored:
        assert not difference(fingerprint(server, "shop"), fingerprint(restored, "shop"))


def test_the_line_of_the_manifest_restores_a_series(server: MariaDb, tmp_path: Path) -> None:
    ours = source(server, incremental=INCREMENTAL)
    full, base, _ = copy(ours)
    server.sql("INSERT INTO shop.t VALUES (77777, 'x')")
    step, _, _ = copy(ours, base)
    line = ours.artifacts()[0].extract
    for data in (full, step):
        subprocess.run(
            ["sh", "-ec", line], cwd=tmp_path, input=data, check=True, capture_output=True
        )
    with server_on(tmp_path) as restored:
        assert restored.sql("SELECT v FROM shop.t WHERE id=77777") == [("x",)]


def test_a_copy_of_another_server_or_version_is_no_base(server: MariaDb) -> None:
    ours = source(server, incremental=INCREMENTAL)
    _, base, _ = copy(ours)
    artifact = ours.artifacts()[0]
    other = base.replace(b'"server": "', b'"server": "x')
    assert "another server" in str(ours.refuses(artifact, iter([other])))
    old = base.replace(b'"series": "', b'"series": "9')
    assert "another version" in str(ours.refuses(artifact, iter([old])))
    ahead = base.replace(b'"to_lsn": ', b'"to_lsn": 99999')
    assert "set back" in str(ours.refuses(artifact, iter([ahead])))
    with pytest.raises(SourceError, match="not understood"):
        ours.refuses(artifact, iter([b"{}"]))


def test_a_damaged_or_cut_stream_is_seen(server: MariaDb) -> None:
    ours = source(server)
    data, _, _ = copy(ours)
    at = len(data) // 2
    damaged = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
    for wrong in (damaged, data[:at], data[:-1], b"", b"x" * 100):
        with pytest.raises(SourceError, match="xbstream"):
            ours.examine(blocks(wrong), StageContext())


def test_a_stream_is_read_the_same_in_chunks_of_any_size(server: MariaDb) -> None:
    data, _, _ = copy(source(server))
    names = ("xtrabackup_checkpoints",)
    whole, tiny = Xbstream(names), Xbstream(names, prove=True)
    whole.feed(data)
    step = 977
    for at in range(0, len(data), step):
        tiny.feed(data[at : at + step])
    whole.finish()
    tiny.finish()
    assert (whole.files, whole.contents) == (tiny.files, tiny.contents)
    assert whole.contents["xtrabackup_checkpoints"].startswith(b"backup_type = full")


def test_a_program_that_does_not_say_it_is_done_fails(server: MariaDb, tmp_path: Path) -> None:
    fake = tmp_path / "mariadb-backup"
    fake.write_text('#!/bin/sh\nmariadb-backup "$@" 2>/dev/null\n')
    fake.chmod(0o755)
    with pytest.raises(SourceError, match="does not say"):
        copy(source(server, program=str(fake)))


def test_the_password_is_in_no_argument(server: MariaDb, tmp_path: Path) -> None:
    fake = tmp_path / "mariadb-backup"
    seen = tmp_path / "seen"
    fake.write_text(f'#!/bin/sh\necho "$@" > {seen}; env >> {seen}\nexec mariadb-backup "$@"\n')
    fake.chmod(0o755)
    copy(source(server, program=str(fake)))
    said = seen.read_text()
    assert "--backup" in said
    assert "Pa55" not in said


def test_probe_names_what_is_missing(server: MariaDb) -> None:
    server.sql("CREATE OR REPLACE USER little IDENTIFIED BY 'x'; GRANT PROCESS ON *.* TO little")
    with pytest.raises(SourceError, match="RELOAD and LOCK TABLES and BINLOG MONITOR"):
        source(server, user="little", password="x").probe()
    with pytest.raises(SourceError, match="cannot be read: no such file"):
        source(server, datadir="/no/such/place").probe()
    facts = source(server).probe()
    assert any("mariadb-backup" in fact for fact in facts)
