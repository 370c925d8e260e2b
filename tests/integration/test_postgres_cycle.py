"""PostgreSQL through the whole program: run, list, verify, restore."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.integration.postgres_source import contents
from tests.servers.base import HOST
from tests.servers.postgres import NEWEST, PASSWORD, USER, Postgresql, run_as_server

pytestmark = pytest.mark.integration
ROOT = Path(__file__).resolve().parents[2]


class Program:
    """Runs the program with a configuration, in a folder of its own."""

    def __init__(self, folder: Path, server: Postgresql, source: str) -> None:
        self.folder = folder
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "DB_PASSWORD": PASSWORD,
            "PATH": f"{server.bin}:{os.environ['PATH']}",
        }
        where = f'host: {HOST}, port: {server.port}, password: "${{DB_PASSWORD}}"'
        self.file = folder / "pipeline.yaml"
        self.file.write_text(
            "name: shop\n"
            f"storages: {{disk: {{type: local, path: {folder}/disk}}}}\n"
            "backups:\n"
            "  db:\n"
            f"    source: {{{source}, {where}, programs: {server.bin}}}\n"
            "    stages: [{type: zstd}]\n"
            "    fan_out: [{storage: disk, rotate: {last: 9}}]\n"
        )
        self.file.chmod(0o600)

    def run(self, command: str, *arguments: str, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "pipeline", command, str(self.file), *arguments],
            env=self.environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == code, (done.stdout, done.stderr)
        assert PASSWORD not in done.stdout + done.stderr
        return done.stdout + done.stderr

    def manifests(self) -> list[Any]:
        files = sorted(self.folder.glob("disk/**/*.manifest.json"))
        return [json.loads(file.read_text()) for file in files]


def test_dumps_and_roles_there_and_back(tmp_path: Path) -> None:
    with Postgresql() as server, Postgresql() as other:
        server.execute("CREATE ROLE seller PASSWORD 'x'")
        server.execute("CREATE DATABASE crm OWNER seller")
        server.execute("CREATE TABLE t AS SELECT n FROM generate_series(1, 1000) n", "crm")
        server.execute("ALTER TABLE t OWNER TO seller", "crm")
        program = Program(tmp_path, server, "type: postgres")
        program.run("check", "--connect")
        program.run("run")
        found = {each["artifact"]: each for each in program.manifests()}
        assert set(found) == {"globals", "postgres", "crm"}
        assert found["crm"]["source"]["server_version"].startswith("15.")
        assert found["crm"]["source"]["facts"]["client"].startswith("pg_dump 15.")
        assert "| pg_restore --create --dbname=postgres" in found["crm"]["restore"]
        said = program.run("verify")
        assert "a whole dump of roles" in said
        to = f"postgres://{USER}@{HOST}:{other.port}"
        for artifact, address in (("globals", to), ("crm", to), ("crm", f"{to}/second")):
            program.run("restore", "--backup", "db", "--artifact", artifact, "--to", address)
        assert contents(other, "crm") == contents(server, "crm") == contents(other, "second")
        owner = "SELECT tableowner FROM pg_tables WHERE tablename = 't'"
        assert other.execute(owner, "crm") == [("seller",)]
        again = ["restore", "--backup", "db", "--artifact", "crm", "--to", f"{to}/second"]
        assert "is not empty" in program.run(again[0], *again[1:], code=1)
        program.run(again[0], *again[1:], "--overwrite")
        file = tmp_path / "crm.dump"
        program.run("restore", "--backup", "db", "--artifact", "crm", "--to", str(file))
        assert file.read_bytes().startswith(b"PGDMP")


def test_a_series_of_increments_there_and_back(tmp_path: Path) -> None:
    with Postgresql(NEWEST, settings={"summarize_wal": "on"}) as server:
        server.execute("CREATE TABLE t AS SELECT 0 AS run FROM generate_series(1, 1000)")
        source = "type: postgres_physical, incremental: {full: yearly}"
        program = Program(tmp_path, server, source)
        for run in range(1, 4):
            program.run("run")
            server.execute(f"INSERT INTO t SELECT {run} FROM generate_series(1, 1000)")
        manifests = sorted(program.manifests(), key=lambda each: each["level"])
        assert [each["level"] for each in manifests] == [0, 1, 2]
        assert [each.get("parent") for each in manifests[1:]] == [
            each["object"] for each in manifests[:-1]
        ]
        assert manifests[1]["stored_size"] < manifests[0]["stored_size"] / 2
        facts = manifests[0]["source"]["facts"]
        assert {"system", "timeline", "start_lsn", "end_lsn", "label"} <= set(facts)
        program.run("verify", "--at", "all")
        copy = Postgresql(NEWEST)
        try:
            copy.data.rmdir()
            program.run("restore", "--backup", "db", "--to", str(copy.data))
            copy.own()
            verified = run_as_server([str(copy.bin / "pg_verifybackup"), str(copy.data)])
            assert "successfully verified" in verified
            copy.start()
            counts = "SELECT run, count(*) FROM t GROUP BY 1 ORDER BY 1"
            assert copy.execute(counts) == [(run, 1000) for run in range(3)]
        finally:
            copy.stop()


def test_a_server_that_dies_leaves_nothing_on_the_storage(tmp_path: Path) -> None:
    with Postgresql() as server:
        server.execute(
            "CREATE TABLE t AS SELECT repeat(md5(n::text), 9) FROM generate_series(1, 200000) n"
        )
        program = Program(tmp_path, server, "type: postgres_physical, max_rate: 8MiB/s")
        running = subprocess.Popen(
            [sys.executable, "-m", "pipeline", "run", str(program.file)],
            env=program.environment,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        while not list(tmp_path.glob("disk/**/.*.part")):
            assert running.poll() is None
        server.kill()
        _, said = running.communicate(timeout=60)
        assert running.returncode == 1
        assert "server closed the connection" in said or "reset by peer" in said
        assert not [path for path in tmp_path.glob("disk/**/*") if path.is_file()]
