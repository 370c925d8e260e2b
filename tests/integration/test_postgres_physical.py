"""Source `postgres_physical`: servers that start from what it read, increments, and failures."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from pipeline.context import Increment, StageContext
from pipeline.errors import SourceError
from stages.sources._postgres_physical.manifest import origin
from tests.integration.postgres_source import artifact, left_behind, physical, read
from tests.servers.base import HOST, IS_ROOT
from tests.servers.postgres import (
    DEBIAN,
    NEW,
    NEWEST,
    OLD,
    PASSWORD,
    REASON_OLD,
    USER,
    Postgresql,
    can_run_old,
    programs,
    run_as_server,
)

pytestmark = pytest.mark.integration
SUMMARIES = {"summarize_wal": "on"}
SUMS = (
    "SELECT (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(bbalance) FROM "
    "pgbench_branches), (SELECT sum(tbalance) FROM pgbench_tellers), "
    "(SELECT coalesce(sum(delta), 0) FROM pgbench_history)"
)
VERSIONS = [
    pytest.param(OLD, marks=pytest.mark.skipif(not can_run_old(), reason=REASON_OLD)),
    DEBIAN,
    NEWEST,
]


def pgbench(server: Postgresql, *arguments: str) -> list[str]:
    # The one of Debian speaks to all versions.
    command = [str(programs(DEBIAN) / "pgbench"), "-h", str(server.dir), "-p", str(server.port)]
    return [*command, "-U", USER, *arguments, "postgres"]


def environment() -> dict[str, str]:
    return {**os.environ, "PGPASSWORD": PASSWORD}


def fill(server: Postgresql) -> None:
    run_as_server(pgbench(server, "-i", "-q", "-s", "1"), env=environment())


@pytest.fixture(scope="module")
def server() -> Iterator[Postgresql]:
    with Postgresql() as made:
        fill(made)
        yield made


class Busy:
    """pgbench writes as long as the block lasts."""

    def __init__(self, server: Postgresql) -> None:
        self._command = pgbench(server, "-n", "-c", "3", "-T", "60")

    def __enter__(self) -> None:
        self._process = subprocess.Popen(
            self._command, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()


def restored(chunks: list[bytes], server: Postgresql, *, check: bool = True) -> Postgresql:
    """A server, not started, with what was read as its data."""
    copy = Postgresql(server.major, settings=server.settings)
    source = physical(server)
    assert list(source.restore(iter(chunks), artifact(source), copy.data, False)) == []
    copy.own()
    if check:
        verify(copy)
    return copy


def verify(copy: Postgresql) -> None:
    """What the tools of PostgreSQL say of a data directory that was restored."""
    assert os.stat(copy.data).st_mode & 0o777 == 0o700
    tool = copy.bin / "pg_verifybackup"
    if not tool.exists():  # Only the server is there; the one of Debian does not know its WAL.
        tool = programs(DEBIAN) / "pg_verifybackup"
        run_as_server([str(tool), "--no-parse-wal", str(copy.data)])
        return
    assert "successfully verified" in run_as_server([str(tool), str(copy.data)])


def stopped_cleanly(copy: Postgresql) -> None:
    """Stop a server as its administrator would, and have its pages checked."""
    tool = copy.bin / "pg_ctl"
    run_as_server([str(tool), "stop", "-D", str(copy.data), "-m", "fast", "-w"])
    checksums = copy.bin / "pg_checksums"
    if checksums.exists():
        assert "Bad checksums:  0" in run_as_server(
            [str(checksums), "--check", "-D", str(copy.data)]
        )


class TestRestore:
    @pytest.mark.parametrize("major", VERSIONS)
    def test_a_copy_of_a_busy_server_starts_and_is_consistent(self, major: int) -> None:
        with Postgresql(major) as server, ExitStack() as stack:
            fill(server)
            context = StageContext()
            with Busy(server):
                while not server.execute("SELECT count(*) > 5 FROM pgbench_history")[0][0]:
                    time.sleep(0.05)
                chunks = read(physical(server, label="it's mine"), context=context)
            copy = restored(chunks, server)
            stack.callback(copy.stop)
            assert "LABEL: it's mine" in (copy.data / "backup_label").read_text()
            copy.start()
            (sums,) = copy.execute(SUMS)
            assert len(set(sums)) == 1
            assert copy.execute("SELECT count(*) FROM pgbench_accounts") == [(100_000,)]
            stopped_cleanly(copy)
            facts = context.findings.facts
            assert facts["system"]
            assert facts["timeline"] == "1"
            assert facts["start_lsn"] < facts["end_lsn"]
            assert facts["label"] == "it's mine"
            assert (context.findings.server_version or "").startswith(f"{major}.")
            assert context.findings.counts["files"] > 900
            assert left_behind(server) == []

    def test_the_archive_is_one_that_tar_unpacks(self, server: Postgresql, tmp_path: Path) -> None:
        chunks = read(physical(server))
        subprocess.run(["tar", "-x", "-C", tmp_path], input=b"".join(chunks), check=True)
        assert (tmp_path / "backup_manifest").exists()
        assert list((tmp_path / "pg_wal").glob("0000*"))
        assert not (tmp_path / "pg_replslot").exists() or not os.listdir(tmp_path / "pg_replslot")

    def test_pg_basebackup_gives_the_same(self, server: Postgresql) -> None:
        with ExitStack() as stack:
            context = StageContext()
            source = physical(server, method="client", label="by client")
            copy = restored(read(source, context=context), server)
            stack.callback(copy.stop)
            copy.start()
            assert copy.execute(SUMS) == server.execute(SUMS)
            assert context.findings.facts["client"].startswith("pg_basebackup 15.")

    @pytest.mark.parametrize("kind", ["sha256", "none"])
    def test_other_checksums(self, server: Postgresql, kind: str) -> None:
        source = physical(server, manifest_checksums=kind)
        chunks = read(source)
        restored(chunks, server).stop()
        found = source.examine(iter(chunks), StageContext())
        assert found.endswith(
            "with the checksums of its manifest" if kind == "sha256" else "sizes of its manifest"
        )

    def test_without_wal_nothing_of_it_is_there(self, server: Postgresql) -> None:
        chunks = read(physical(server, wal=False))
        copy = restored(chunks, server, check=False)
        assert not list((copy.data / "pg_wal").glob("0000*"))
        copy.stop()

    def test_a_role_that_may_only_replicate_is_enough(self, server: Postgresql) -> None:
        server.execute("CREATE ROLE copier LOGIN REPLICATION PASSWORD 'x'")
        source = physical(server, user="copier", password="x", max_rate="512MiB/s")
        assert source.probe()
        assert read(source)

    def test_a_directory_in_use_or_not_empty_is_left_alone(
        self, server: Postgresql, tmp_path: Path
    ) -> None:
        source = physical(server)
        (tmp_path / "file").touch()
        with pytest.raises(SourceError, match="is not empty"):
            source.restore(iter([b""]), artifact(source), tmp_path, False)
        (tmp_path / "postmaster.pid").touch()
        with pytest.raises(SourceError, match="is in use by a server; stop it first"):
            source.restore(iter([b""]), artifact(source), tmp_path, True)
        assert (tmp_path / "file").exists()


class TestTablespaces:
    @pytest.mark.parametrize("major", [VERSIONS[0], NEWEST])
    def test_they_come_back_beside_the_data(self, major: int) -> None:
        with Postgresql(major) as server, ExitStack() as stack:
            spaces = [server.folder("first"), server.folder("a \\ 2")]
            for number, place in enumerate(spaces):
                server.execute(f"CREATE TABLESPACE s{number} LOCATION '{place}'")
            server.execute(
                "CREATE TABLE far TABLESPACE s0 AS SELECT * FROM generate_series(1, 9999) n"
            )
            context = StageContext()
            source = physical(server)
            chunks = read(source, context=context)
            assert context.findings.counts["tablespaces"] == 2
            assert str(spaces[0]) in context.findings.facts.values()
            assert "checksums of its manifest" in source.examine(iter(chunks), StageContext())
            copy = Postgresql(major)
            stack.callback(copy.stop)
            problems = source.restore(iter(chunks), artifact(source), copy.data, False)
            assert len(problems) == 2
            assert f'that was at "{spaces[0]}" is at "{copy.data}.tablespaces/' in problems[0]
            copy.own()
            verify(copy)
            copy.start()
            assert copy.execute("SELECT sum(n) FROM far") == [(9999 * 5000,)]
            ((where,),) = copy.execute(
                "SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname = 's0'"
            )
            assert Path(where).parent == copy.data.with_name("data.tablespaces")

    def test_pg_basebackup_cannot_do_them(self) -> None:
        with Postgresql() as server:
            server.execute(f"CREATE TABLESPACE s LOCATION '{server.folder('space')}'")
            with pytest.raises(SourceError, match="can only write single tablespace to stdout"):
                read(physical(server, method="client"))


class Series:
    """Reads increments one on the other, as the engine has them made."""

    def __init__(self, server: Postgresql) -> None:
        self.source = physical(server, incremental={"full": "never"})
        self.index = b""

    def next(self) -> list[bytes]:
        kept: list[bytes] = []
        parent = self.index
        base = (lambda: iter([parent[:7000], parent[7000:]])) if parent else None
        context = StageContext(increment=Increment(kept.append, base))
        chunks = read(self.source, context=context)
        self.index = b"".join(kept)
        return chunks


_APPLY = """
import sys
from pathlib import Path
from pipeline.errors import SourceError
from pipeline.stage import Artifact
from schemas.postgres import PostgresPhysicalSource
from stages.sources.postgres_physical import PostgresPhysical
spec = PostgresPhysicalSource(type="postgres_physical", programs=sys.argv[1])
try:
    chunks = iter([sys.stdin.buffer.read()])
    PostgresPhysical(spec).apply(chunks, Artifact("shop", ".tar"), Path(sys.argv[2]))
except SourceError as error:
    print(error.message, end="")
"""


_UNSHARE = ("unshare", "--mount", *(() if IS_ROOT else ("--map-root-user",)))


def can_mount() -> bool:
    """Whether this system lets us have mounts of our own, as containers often do not."""
    return not subprocess.run([*_UNSHARE, "true"], stderr=subprocess.DEVNULL).returncode


def applied_onto_mount(chunks: list[bytes], target: Path, mounted: Path) -> str:
    """Bring an increment back where a directory is a mount point; the error, if there is one."""
    script = f'mount --bind "{mounted}" "{mounted}" && exec "$@"'
    command = [*_UNSHARE, "sh", "-c", script, "sh", sys.executable, "-c", _APPLY]
    command += [str(programs(NEW)), str(target)]
    path = {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        command,
        input=b"".join(chunks),
        stdout=subprocess.PIPE,
        env={**os.environ, **path},
        check=True,
    )
    return done.stdout.decode()


def contents(folder: Path) -> dict[str, str]:
    """Digests of all files below a folder, and where links lead."""
    return {
        str(path): os.readlink(path)
        if path.is_symlink()
        else hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


class TestIncrements:
    def test_a_chain_with_a_tablespace_becomes_one_directory_also_a_mounted_one(self) -> None:
        with Postgresql(NEW, settings=SUMMARIES) as server, ExitStack() as stack:
            server.execute(f"CREATE TABLESPACE s LOCATION '{server.folder('space')}'")
            fill(server)
            server.execute("CREATE TABLE far (n int) TABLESPACE s")
            series = Series(server)
            copies = [series.next()]
            for number in range(2):
                server.execute(f"INSERT INTO far SELECT {number} FROM generate_series(1, 1000)")
                run_as_server(pgbench(server, "-n", "-t", "200"), env=environment())
                copies.append(series.next())
            sizes = [sum(map(len, chunks)) for chunks in copies]
            assert max(sizes[1:]) < sizes[0] / 2
            assert "checksums of its manifest" in series.source.examine(
                iter(copies[2]), StageContext()
            )
            copy = Postgresql(NEW)
            stack.callback(copy.stop)
            target, source = copy.data, series.source
            source.restore(iter(copies[0]), artifact(source), target, False)
            assert source.apply(iter(copies[1]), artifact(source), target) == []
            if can_mount():
                before = contents(copy.dir)
                failed = applied_onto_mount(copies[2], target, target / "pg_wal")
                assert failed == f'cannot restore into "{target}": Device or resource busy'
                assert contents(copy.dir) == before
                assert applied_onto_mount(copies[2], target, target) == ""
            else:
                assert source.apply(iter(copies[2]), artifact(source), target) == []
            assert sorted(os.listdir(copy.dir)) == ["data", "data.tablespaces"]
            assert not [path for path in copy.dir.rglob("*") if path.name.endswith(".part")]
            copy.own()
            verify(copy)
            copy.start()
            assert copy.execute(SUMS) == server.execute(SUMS)
            assert copy.execute("SELECT n, count(*) FROM far GROUP BY 1 ORDER BY 1") == [
                (0, 1000),
                (1, 1000),
            ]
            stopped_cleanly(copy)

    def test_the_line_of_the_manifest_restores_a_chain(self, tmp_path: Path) -> None:
        with Postgresql(NEWEST, settings=SUMMARIES) as server, ExitStack() as stack:
            fill(server)
            series = Series(server)
            copies = [series.next()]
            run_as_server(pgbench(server, "-n", "-t", "100"), env=environment())
            copies.append(series.next())
            line = artifact(series.source).extract
            path = f"{server.bin}:{os.environ['PATH']}"
            for chunks in copies:
                subprocess.run(
                    line,
                    shell=True,
                    input=b"".join(chunks),
                    cwd=tmp_path,
                    env={**os.environ, "PATH": path},
                    check=True,
                )
            assert os.listdir(tmp_path) == ["data"]
            copy = Postgresql(NEWEST)
            stack.callback(copy.stop)
            copy.data.rmdir()
            os.rename(tmp_path / "data", copy.data)
            copy.start()
            assert copy.execute(SUMS) == server.execute(SUMS)

    def test_what_an_increment_cannot_be_built_on_is_refused(self) -> None:
        with Postgresql(NEWEST, settings=SUMMARIES) as server:
            series = Series(server)
            series.next()
            source, index = series.source, series.index
            assert source.refuses(artifact(source), iter([index])) is None
            system = index.index(b"System-Identifier")
            other = index[:system] + index[system:].replace(b'": 7', b'": 1', 1)
            with pytest.raises(SourceError, match="damaged"):
                source.refuses(artifact(source), iter([other]))
            server.execute("SELECT pg_switch_wal(); CHECKPOINT")
            progress = f"SELECT summarized_lsn > '{origin(index).start}'"
            progress += " FROM pg_get_wal_summarizer_state()"
            while server.execute(progress) != [(True,)]:
                time.sleep(0.05)
            assert source.refuses(artifact(source), iter([index])) is None
            for summary in (server.data / "pg_wal" / "summaries").iterdir():
                summary.unlink()
            refusal = source.refuses(artifact(source), iter([index])) or ""
            assert "no WAL summaries that reach back" in refusal

    @pytest.mark.parametrize(
        ("major", "said"),
        [
            (DEBIAN, "makes no increments; that takes 17 or newer"),
            (NEWEST, "set `summarize_wal = on`"),
        ],
    )
    def test_a_server_that_makes_none_is_told_apart(self, major: int, said: str) -> None:
        with Postgresql(major) as server:
            series = Series(server)
            for act in (series.source.probe, series.next):
                with pytest.raises(SourceError, match=said):
                    act()


class TestProbe:
    def test_it_tells_what_replication_needs(self, server: Postgresql) -> None:
        facts = "\n".join(physical(server).probe())
        for said in ("PostgreSQL 15.", "wal_level = replica", "max_wal_senders = 10", "timeline 1"):
            assert said in facts
        assert left_behind(server) == []

    @pytest.mark.parametrize(
        ("settings", "said"),
        [
            ({"max_wal_senders": "1"}, r"max_wal_senders.*; raise max_wal_senders"),
            ({"max_replication_slots": "0"}, r"max_replication_slots.*`slot: false`"),
            ({"wal_level": "minimal", "max_wal_senders": "0"}, r"wal_level|max_wal_senders"),
        ],
    )
    def test_a_limit_is_told_before_and_in_a_run(self, settings: dict[str, str], said: str) -> None:
        with Postgresql(settings=settings) as server:
            source = physical(server)
            for act in (source.probe, lambda: read(source)):
                with pytest.raises(SourceError, match=said):
                    act()
            assert left_behind(server) == []

    def test_without_a_slot_one_connection_is_enough(self) -> None:
        limits = {"max_wal_senders": "1", "max_replication_slots": "0"}
        with Postgresql(settings=limits) as server:
            source = physical(server, slot=False)
            assert source.probe()
            assert read(source)

    def test_slots_that_are_all_in_use(self) -> None:
        with Postgresql(settings={"max_replication_slots": "1"}) as server:
            server.execute("SELECT pg_create_physical_replication_slot('other')")
            source = physical(server)
            for act in (source.probe, lambda: read(source)):
                with pytest.raises(SourceError, match="all replication slots are in use; raise"):
                    act()
            assert server.execute("SELECT slot_name FROM pg_replication_slots") == [("other",)]
            assert left_behind(server) == []


class TestFailure:
    @pytest.mark.parametrize("method", ["native", "client"])
    def test_a_server_killed_half_way_is_an_error(self, method: str) -> None:
        with Postgresql() as server:
            fill(server)
            source = physical(server, method=method)
            stream = source.stream(artifact(source), StageContext())
            assert next(stream)
            server.kill()
            with pytest.raises(SourceError, match=r"server closed the connection|reset by peer"):
                list(stream)
            server.start()
            assert left_behind(server) == []

    def test_a_server_that_is_stopped_half_way_is_an_error(self) -> None:
        with Postgresql() as server:
            fill(server)
            source = physical(server)
            stream = source.stream(artifact(source), StageContext())
            assert next(stream)
            stop = [str(server.bin / "pg_ctl"), "stop", "-D", str(server.data), "-m", "fast", "-W"]
            run_as_server(stop)
            with pytest.raises(SourceError, match=r"terminating|server closed the connection"):
                list(stream)

    def test_a_server_that_falls_silent_is_given_up(self) -> None:
        with Postgresql() as server:
            fill(server)
            source = physical(server, idle_timeout="2s")
            stream = source.stream(artifact(source), StageContext())
            assert next(stream)
            server.freeze()
            try:
                with pytest.raises(SourceError, match="silent for 2 s; see `idle_timeout`"):
                    list(stream)
            finally:
                server.thaw()

    def test_a_slow_taker_is_no_silent_server(self, server: Postgresql) -> None:
        source = physical(server, idle_timeout="1s")
        stream = source.stream(artifact(source), StageContext())
        assert next(stream)
        time.sleep(2.5)
        assert list(stream)

    @pytest.mark.parametrize(
        ("keys", "said"),
        [
            ({"password": "wrong"}, "password authentication failed"),
            ({"port": 1}, "cannot connect"),
            ({"user": "nobody", "password": "x"}, "password authentication failed"),
            ({"user": "plain", "password": "x"}, "; ALTER ROLE ... REPLICATION"),
        ],
    )
    def test_what_keeps_us_out_is_said(
        self, server: Postgresql, keys: dict[str, Any], said: str
    ) -> None:
        server.execute("DROP ROLE IF EXISTS plain; CREATE ROLE plain LOGIN PASSWORD 'x'")
        source = physical(server, **keys)
        for act in (source.probe, lambda: read(source)):
            with pytest.raises(SourceError, match=said):
                act()

    def test_pg_hba_that_does_not_let_replication_in(self) -> None:
        refused = pytest.raises(SourceError, match=r"pg_hba\.conf")
        with Postgresql(replication="reject") as server, refused:
            physical(server).probe()

    def test_tls(self) -> None:
        with Postgresql(tls=True) as server:
            source = physical(server)
            assert ", TLS" in source.probe()[0]
            assert "checksums" in source.examine(iter(read(source)), StageContext())
            with pytest.raises(SourceError, match="hostssl lines only, set `tls"):
                physical(server, tls={"mode": "off"}).probe()

    @pytest.mark.parametrize("major", [OLD, DEBIAN] if can_run_old() else [DEBIAN])
    def test_a_damaged_page_fails_the_backup_unless_told_otherwise(self, major: int) -> None:
        with Postgresql(major) as server:
            server.execute("CREATE TABLE damaged AS SELECT generate_series(1, 9999) n; CHECKPOINT")
            ((place,),) = server.execute("SELECT pg_relation_filepath('damaged')")
            with open(server.data / place, "r+b") as file:
                file.seek(8192 + 5000)
                file.write(b"rotten")
            with pytest.raises(SourceError, match=r"checksum verification fail"):
                read(physical(server))
            context = StageContext()
            chunks = read(physical(server, verify_checksums="warn"), context=context)
            assert chunks
            assert context.findings.skipped_total >= 1
            assert "checksum verification failed" in context.findings.skipped[0]
            context = StageContext()
            assert read(physical(server, verify_checksums="off"), context=context)
            assert context.findings.skipped_total == 0

    def test_an_archive_that_was_changed_or_cut_is_told_apart(self, server: Postgresql) -> None:
        source = physical(server)
        whole = b"".join(read(source))
        assert source.examine(iter([whole]), StageContext())
        middle = whole.index(b"pgbench", len(whole) // 8)
        changed = whole[:middle] + b"pgbanch" + whole[middle + 7 :]
        with pytest.raises(SourceError, match="is not what the backup manifest says"):
            source.examine(iter([changed]), StageContext())
        with pytest.raises(SourceError, match=r"cut off|damaged"):
            source.examine(iter([whole[: len(whole) // 2]]), StageContext())

    def test_a_manifest_that_is_too_large_is_an_error(self, server: Postgresql) -> None:
        with pytest.raises(SourceError, match="the backup manifest is too large; raise"):
            read(physical(server, manifest_size="64KiB"))


def test_an_abort_while_a_checkpoint_is_awaited_leaves_nothing(server: Postgresql) -> None:
    server.execute(
        "INSERT INTO pgbench_history SELECT 1, 1, 1, 0, now() FROM generate_series(1, 99999)"
    )
    context = StageContext()
    source = physical(server, checkpoint="spread")
    stream = source.stream(artifact(source), context)
    threading.Timer(1, context.teardown.abort).start()
    with pytest.raises(Exception, match="stopped, because"):
        list(stream)
    deadline = time.monotonic() + 30
    while left_behind(server):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_names_that_tar_knows(server: Postgresql, tmp_path: Path) -> None:
    (tmp_path / "copy.tar").write_bytes(b"".join(read(physical(server))))
    with tarfile.open(tmp_path / "copy.tar") as archive:
        names = archive.getnames()
    assert names[-1] == "backup_manifest"
    assert {"backup_label", "global/pg_control", "PG_VERSION"} < set(names)
    assert HOST not in names
