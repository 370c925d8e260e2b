"""The commands of the guide, run as they stand there, by somebody who has just unpacked this."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.e2e.conftest import ROOT
from tests.e2e.program import Program
from tests.markdown import DOCS, blocks
from tests.servers.base import HOST
from tests.servers.mariadb import MariaDb
from tests.servers.s3 import ACCESS_KEY, BUCKET, REASON, SECRET_KEY, Versitygw, can_run
from tests.servers.sshd import USER, Sshd

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

TABLE = """
    CREATE DATABASE shop; USE shop;
    CREATE TABLE orders (id INT PRIMARY KEY, what VARCHAR(100)) ENGINE=InnoDB;
    INSERT INTO orders SELECT seq, CONCAT('order ', seq) FROM seq_1_to_5000;
"""


class Reader:
    """A machine with a home of its own, on which somebody follows the text."""

    def __init__(self, program: Program) -> None:
        self.home = program.folder
        self.bin = self.home / "bin"
        self.bin.mkdir()
        self.answer("python3", f'exec {sys.executable} "$@"')
        self.environment = {
            **program.environment,
            "PATH": f"{self.bin}:{program.environment['PATH']}",
            "PYTHON": sys.executable,
        }

    def answer(self, name: str, line: str) -> None:
        """A program in front of the one of that name, in place of whoever answers its questions."""
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{line}\n")
        path.chmod(0o755)

    def follow(self, page: Path, words: Mapping[str, str] | None = None, where: Path = ROOT) -> str:
        """Run every block of shell; returns what was printed.

        Args:
            words: what the reader writes in place of something; each is there.
            where: the folder to start in.
        """
        text = "".join(block.text for block in blocks(page, "sh"))
        for there, own in (words or {}).items():
            assert there in text
            text = text.replace(there, own)
        done = subprocess.run(
            ["bash", "-euxo", "pipefail"],
            input=text,
            cwd=where,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=500,
        )
        assert done.returncode == 0, done.stdout[-5000:]
        return done.stdout


def shown(page: Path, name: str) -> str:
    """The line of a page that gives a variable a value."""
    (line,) = re.findall(rf"\n{name}=.*\n", page.read_text())
    return str(line)


@pytest.fixture
def reader(program: Program) -> Reader:
    return Reader(program)


@pytest.fixture(scope="module")
def server() -> Iterator[MariaDb]:
    with MariaDb() as started:
        started.sql(TABLE)
        yield started


@pytest.fixture
def database(server: MariaDb, reader: Reader) -> MariaDb:
    """A server whose administrator the reader is."""
    server.sql("DROP DATABASE IF EXISTS shop_drill")
    login = reader.home / ".my.cnf"
    login.write_text(server.option_file().read_text())
    login.chmod(0o600)
    return server


@pytest.fixture
def nas(reader: Reader) -> Iterator[Sshd]:
    """An SSH server that lets the reader in, as if a password had been typed."""
    with Sshd() as server:
        (server.data / ".ssh").mkdir()
        (server.data / ".ssh" / "authorized_keys").symlink_to("../../authorized_keys")
        server.own()
        ssh = "exec /usr/bin/ssh -F none -o BatchMode=yes"
        reader.answer(
            "ssh",
            f'case " $* " in *" -i "*) {ssh} "$@" ;; *) {ssh} -i {server.key} "$@" ;; esac',
        )
        yield server


@pytest.mark.skipif(not can_run(), reason=REASON)
def test_from_zero_to_a_trusted_backup(reader: Reader, database: MariaDb, nas: Sshd) -> None:
    page = DOCS / "ten-minutes.md"
    with Versitygw() as s3:
        values = {
            "DB_HOST": HOST,
            "DB_PORT": str(database.port),
            "DB_PASSWORD": "Pa55-word",
            "S3_ENDPOINT": s3.endpoint,
            "S3_BUCKET": BUCKET,
            "S3_ACCESS_KEY": ACCESS_KEY,
            "S3_SECRET_KEY": SECRET_KEY,
            "NAS_HOST": HOST,
            "NAS_PORT": str(nas.port),
            "NAS_USER": USER,
            "NAS_PATH": str(nas.data / "backups"),
        }
        said = reader.follow(
            page, {shown(page, name): f"\n{name}={shlex.quote(values[name])}\n" for name in values}
        )
        stored = [key["Key"] for key in s3.client().list_objects_v2(Bucket=BUCKET)["Contents"]]
    assert [name.rpartition(".")[2] for name in sorted(stored)] == ["age", "json"] * (
        len(stored) // 2
    )
    assert len(list((nas.data / "backups" / "shop-db" / "shop").glob("*.age"))) == 2
    assert said.count("proved") == len(stored) // 2 + 2
    rows = "SELECT COUNT(*), MIN(what), MAX(id) FROM {}.orders"
    assert database.sql(rows.format("shop_drill")) == database.sql(rows.format("shop"))
    assert "INSERT INTO" in (reader.home / "backup" / "shop.sql").read_text()


def test_the_first_backup(reader: Reader, pyz: Path) -> None:
    reader.answer("nxs-backup", f'exec {sys.executable} {pyz} "$@"')
    said = reader.follow(DOCS / "first-backup.md")
    assert said.rstrip().endswith("something that must not be lost")


DRILL = """\
    name: shop
    host: web-1
    storages:
      nas: {type: local, path: "{here}/nas"}
      disk: {type: local, path: "{here}/disk"}
    defaults:
      stages: [{type: zstd}, {type: age, recipients_file: key.pub}]
      fan_out: [{storage: nas, rotate: {last: 3}}, {storage: disk}]
      schedule: "15 3 * * *"
    backups:
      sites:
        source: {type: files, paths: ["{here}/site"]}
      shop:
        source: {type: mysql, option_file: "{here}/.my.cnf", databases: [shop]}
"""


def test_the_drill(reader: Reader, database: MariaDb, program: Program) -> None:
    reader.answer("nxs-backup", f'exec {" ".join(program.command())} "$@"')
    (reader.home / "site").mkdir()
    (reader.home / "site" / "index.html").write_text("hello")
    reader.follow(DOCS / "keys.md", where=reader.home)
    config = program.configure(DRILL)
    program.ok("run", config)
    for page in ("how-it-works.md", "plan.md", "rotation.md"):
        reader.follow(DOCS / page, where=reader.home)
    places = {"/srv/drill": f"{reader.home}/drill", "/srv/elsewhere": f"{reader.home}/elsewhere"}
    said = reader.follow(DOCS / "restore-drill.md", places, where=reader.home)
    assert said.count("proved") == 4
    for place in ("drill", "elsewhere"):
        back = reader.home / place / str(reader.home / "site")[1:] / "index.html"
        assert back.read_text() == "hello"
    rows = "SELECT COUNT(*), MIN(what), MAX(id) FROM {}.orders"
    assert database.sql(rows.format("shop_drill")) == database.sql(rows.format("shop"))
