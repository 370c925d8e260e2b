"""What the guide says about databases: its statements are privileges enough, and the lines of
`by-hand.md` are those of real manifests, and bring the data back.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli.main import main
from stages.sources import mongodb
from tests import tree
from tests.integration.mysql_fingerprint import difference, fingerprint
from tests.integration.postgres_source import contents
from tests.markdown import DOCS, blocks
from tests.servers.base import HOST
from tests.servers.mariadb import MariaDb
from tests.servers.postgres import DEBIAN, PASSWORD, USER, Postgresql
from tests.servers.redis import RedisServer

pytestmark = pytest.mark.integration

OBJECT = re.compile(r"[^\s<]+_\d{4}-\d\d-\d\dT\d\d-\d\d-\d\dZ")
LOGIN = {"user": "backup", "password": "secret"}
"""What the guide has."""


def told(page: str, heading: str, language: str, number: int = 0) -> str:
    """A block below a heading of a page."""
    found = [b.text for b in blocks(DOCS / page, language) if b.heading == heading]
    return found[number]


class Kept:
    """A backup that is compressed, encrypted, and kept in a folder."""

    def __init__(self, folder: Path, source: Mapping[str, Any]) -> None:
        self.folder = folder
        self.key = folder / "key.txt"
        self.file = folder / "pipeline.yaml"
        self.by_hand = folder / "by hand"
        self.by_hand.mkdir()
        assert main(["keygen", str(self.key)]) == 0
        public = re.findall(r"age1\w+", self.key.read_text())
        document = {
            "name": "guide",
            "storages": {"disk": {"type": "local", "path": str(folder / "disk")}},
            "backups": {
                "kept": {
                    "source": dict(source),
                    "stages": [{"type": "zstd"}, {"type": "age", "recipients": public}],
                    "fan_out": [{"storage": "disk"}],
                }
            },
        }
        self.file.write_text(json.dumps(document))
        self.file.chmod(0o600)

    def connect(self) -> None:
        assert main(["check", str(self.file), "--connect"]) == 0

    def run(self) -> Kept:
        assert main(["run", str(self.file), "-qq"]) == 0
        return self

    def manifest(self, artifact: str) -> tuple[Path, Any]:
        """The newest manifest of an artifact, and where it lies."""
        folder = self.folder / "disk" / "kept" / artifact
        path = max(folder.glob("*.manifest.json"))
        return folder, json.loads(path.read_text())

    def by_the_book(
        self,
        artifact: str,
        text: str,
        into: str = "",
        database: str = "DATABASE",
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        """Follow a block of `by-hand.md`, whose first line has to be the one of the manifest.

        Args:
            into: what the line has behind that of the manifest.
            database: whose name the reader writes.
        """
        folder, manifest = self.manifest(artifact)
        line = manifest["restore"]
        assert OBJECT.sub("OBJECT", text.splitlines()[0]) == OBJECT.sub("OBJECT", line) + into
        objects = iter(OBJECT.findall(line))
        text = OBJECT.sub(lambda _: str(folder / next(objects)), text)
        text = text.replace("KEY_FILE", str(self.key)).replace("DATABASE", database)
        done = subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", text],
            cwd=self.by_hand,
            env={**environment, "HOME": str(self.folder)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr


# -- MySQL -----------------------------------------------------------------------------------------

MYSQL = """
    CREATE DATABASE shop; USE shop;
    CREATE TABLE orders (id INT PRIMARY KEY, what TEXT); CREATE VIEW latest AS SELECT * FROM orders;
    INSERT INTO orders SELECT seq, REPEAT(MD5(seq), 3) FROM seq_1_to_2000;
    CREATE TRIGGER upper_case BEFORE INSERT ON orders FOR EACH ROW SET NEW.what = UPPER(NEW.what);
    CREATE PROCEDURE counted() SELECT COUNT(*) FROM orders;
    CREATE EVENT cleaned ON SCHEDULE EVERY 1 DAY DO DELETE FROM orders WHERE id < 0;
"""


@pytest.fixture(scope="module")
def mariadb() -> Iterator[MariaDb]:
    with MariaDb() as server:
        server.sql(MYSQL)
        yield server


def test_mysql(mariadb: MariaDb, tmp_path: Path) -> None:
    mariadb.sql(told("databases.md", "MySQL and MariaDB", "sql"))
    kept = Kept(tmp_path, {"type": "mysql", "host": HOST, "port": mariadb.port, **LOGIN})
    kept.connect()
    kept.run()
    before = fingerprint(mariadb, "shop")
    shutil.copy(mariadb.option_file(), tmp_path / ".my.cnf")
    mariadb.sql("DROP DATABASE shop")
    kept.by_the_book("shop", told("by-hand.md", "MySQL and MariaDB", "sh"))
    assert not difference(before, fingerprint(mariadb, "shop"))


def test_mysql_file_by_file(mariadb: MariaDb, tmp_path: Path) -> None:
    mariadb.sql(told("databases.md", "MySQL and MariaDB, file by file", "sql"))
    keys = {"socket": str(mariadb.socket), "datadir": str(mariadb.data), **LOGIN}
    kept = Kept(tmp_path, {"type": "mysql_physical", **keys})
    kept.connect()
    kept.run().by_the_book("kept", told("by-hand.md", "MySQL and MariaDB, file by file", "sh"))
    restored = MariaDb()
    shutil.rmtree(restored.data)
    shutil.move(kept.by_hand, restored.data)
    with restored:
        assert not difference(fingerprint(mariadb, "shop"), fingerprint(restored, "shop"))


# -- PostgreSQL ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgresql]:
    with Postgresql(DEBIAN) as server:
        server.execute("CREATE ROLE seller")
        server.execute("CREATE DATABASE shop OWNER seller")
        server.execute(
            "CREATE TABLE orders AS SELECT i, md5(i::text) FROM generate_series(1, 999) i", "shop"
        )
        yield server


def shell_of(server: Postgresql) -> dict[str, str]:
    """What the client programs go by."""
    login = {"PGHOST": HOST, "PGPORT": str(server.port), "PGUSER": USER, "PGPASSWORD": PASSWORD}
    return {**os.environ, **login, "PATH": f"{server.bin}:{os.environ['PATH']}"}


def test_postgres(postgres: Postgresql, tmp_path: Path) -> None:
    for statement in told("databases.md", "PostgreSQL", "sql").strip().split("\n"):
        postgres.execute(statement)
    keys = {"host": HOST, "port": postgres.port, "programs": str(postgres.bin), **LOGIN}
    source = {"type": "postgres", "databases": ["shop"], "role_passwords": False, **keys}
    before = contents(postgres, "shop")
    kept = Kept(tmp_path, source)
    kept.connect()
    kept.run()
    postgres.execute("DROP DATABASE shop")
    postgres.execute("DROP ROLE seller")
    for artifact, number in (("globals", 0), ("shop", 1)):
        text = told("by-hand.md", "PostgreSQL", "sh", number)
        kept.by_the_book(artifact, text, environment=shell_of(postgres))
    assert contents(postgres, "shop") == before
    owner = "SELECT rolname::text FROM pg_database d JOIN pg_roles r ON r.oid = datdba"
    assert postgres.execute(f"{owner} WHERE datname = 'shop'") == [("seller",)]


@pytest.mark.parametrize(("kind", "number"), [("plain", 2), ("copy", 3)])
def test_postgres_in_other_formats(
    postgres: Postgresql, tmp_path: Path, kind: str, number: int
) -> None:
    keys = {"host": HOST, "port": postgres.port, "programs": str(postgres.bin)}
    source = {"type": "postgres", "databases": ["shop"], "globals": False, "format": kind}
    kept = Kept(tmp_path, {**source, **keys, "user": USER, "password": PASSWORD}).run()
    drill = f"drill_{kind}"
    postgres.execute(f"CREATE DATABASE {drill}")
    text = told("by-hand.md", "PostgreSQL", "sh", number)
    kept.by_the_book("shop", text, database=drill, environment=shell_of(postgres))
    assert contents(postgres, drill) == contents(postgres, "shop")


def test_postgres_file_by_file(postgres: Postgresql, tmp_path: Path) -> None:
    postgres.execute("DROP ROLE IF EXISTS backup")
    postgres.execute(told("databases.md", "PostgreSQL, file by file", "sql"))
    keys = {"host": HOST, "port": postgres.port, **LOGIN}
    kept = Kept(tmp_path, {"type": "postgres_physical", **keys})
    kept.connect()
    kept.run().by_the_book("kept", told("by-hand.md", "PostgreSQL, file by file", "sh"))
    restored = Postgresql(DEBIAN)
    shutil.rmtree(restored.data)
    shutil.move(kept.by_hand, restored.data)
    with restored:
        assert contents(restored, "shop") == contents(postgres, "shop")


# -- others ----------------------------------------------------------------------------------------


def test_redis(tmp_path: Path) -> None:
    (rule,) = [b.text for b in blocks(DOCS / "databases.md", "text") if "ACL SETUSER" in b.text]
    with RedisServer("enable-debug-command yes", login=False) as server, server.client() as client:
        client.execute_command(*rule.split())
        client.mset({f"key {number}": "x" * number for number in range(500)})
        kept = Kept(tmp_path, {"type": "redis", "host": HOST, "port": server.port, **LOGIN})
        kept.connect()
        kept.run()
        before = server.digest()
    kept.by_the_book("kept", told("by-hand.md", "Redis", "sh"), into=" > dump.rdb")
    restored = RedisServer("enable-debug-command yes", login=False)
    shutil.copy(kept.by_hand / "dump.rdb", restored.data)
    with restored:
        assert restored.digest() == before


def test_sqlite(tmp_path: Path) -> None:
    path = tmp_path / "data.db"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE notes (body)")
        database.executemany("INSERT INTO notes VALUES (?)", [(str(n),) for n in range(2000)])
    kept = Kept(tmp_path, {"type": "sqlite", "paths": [str(path)]})
    kept.connect()
    artifact = str(path).strip("/").replace("/", "-")
    kept.run().by_the_book(artifact, told("by-hand.md", "SQLite", "sh"), into=" > data.db")
    with sqlite3.connect(kept.by_hand / "data.db") as back:
        assert back.execute("SELECT count(*), max(body) FROM notes").fetchone() == (2000, "999")


def test_mongodb() -> None:
    """Its program is not among Debian's: the line is compared, and not run."""
    (extract,) = re.findall(r'extract="([^"]+)"', Path(mongodb.__file__).read_text())
    assert told("by-hand.md", "MongoDB", "sh").rstrip().endswith(f"| zstd -d | {extract}")


def test_what_a_program_printed(tmp_path: Path) -> None:
    source = {"type": "command", "command": ["echo", "dn: cn=admin"], "suffix": ".ldif"}
    text = told("by-hand.md", "What a program printed", "sh")
    kept = Kept(tmp_path, source).run()
    kept.by_the_book("kept", text, into=" > directory.ldif")
    assert (kept.by_hand / "directory.ldif").read_text() == "dn: cn=admin\n"


# -- files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("heading", ["Files", "Files, in a series of increments"])
def test_files(tmp_path: Path, heading: str) -> None:
    site = tmp_path / "site"
    (site / "posts").mkdir(parents=True)
    for number in range(3):
        (site / "posts" / f"{number}.txt").write_text(f"post {number}\n" * 100)
    index = {"index_identity": str(tmp_path / "index.key")}
    assert main(["keygen", index["index_identity"]]) == 0
    series = {"incremental": index} if "series" in heading else {}
    kept = Kept(tmp_path, {"type": "files", "paths": [str(site)], **series}).run()
    if series:
        (site / "posts" / "1.txt").unlink()
        (site / "posts" / "new.txt").write_text("new\n")
        time.sleep(1.1)  # names of objects tell seconds apart
        kept.run()
    artifact = str(site).strip("/").replace("/", "-")
    kept.by_the_book(artifact, told("by-hand.md", heading, "sh"))
    assert tree.differences(site, kept.by_hand / str(site)[1:]) == []


def test_the_line_is_found_in_the_manifest(tmp_path: Path) -> None:
    kept = Kept(tmp_path, {"type": "command", "command": ["echo", "x"]}).run()
    folder, manifest = kept.manifest("kept")
    shown = blocks(DOCS / "by-hand.md", "sh")[0].text
    name = OBJECT.findall(manifest["object"])[0]
    line = OBJECT.sub(str(folder / name), shown).replace(".sql.zst", ".zst")
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == manifest["restore"]
