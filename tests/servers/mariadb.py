"""A real MariaDB server, and its own programs as clients."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pymysql  # type: ignore[import-untyped]
from pymysql.constants import CLIENT  # type: ignore[import-untyped]

from tests.servers.base import HOST, IS_ROOT, Server, ServerFailed, find_program
from tests.servers.ftp import make_certificate

USER = "nxs"
PASSWORD = "Pa55 'word\"\\#"
"""With everything that an option file or a careless quotation would stumble over."""


@functools.cache
def _new_data() -> Path:
    """A data directory as a new installation has it; made once for all servers of a test run."""
    place = Path(tempfile.mkdtemp(prefix="nxs-mariadb-template-"))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    install = [find_program("mariadb-install-db"), "--no-defaults", f"--datadir={place}/data"]
    install += ["--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve"]
    install += [f"--innodb-log-file-size={8 << 20}"]
    install += ["--user=root"] * IS_ROOT
    done = subprocess.run(install, capture_output=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise ServerFailed(f"mariadb-install-db: {(done.stdout + done.stderr).decode()[-2000:]}")
    return place / "data"


class MariaDb(Server):
    """mariadbd with a small memory, a binary log, and a user who may do everything.

    Args:
        tls: whether it has a certificate (for localhost and 127.0.0.1).
        options: more options of the server, without the leading dashes.
    """

    name = "mariadb"

    def __init__(self, *options: str, tls: bool = False) -> None:
        super().__init__()
        self.options = options
        self.ca: Path | None = None
        if tls:
            self.ca, self._key = make_certificate(self.dir)
        # Short, as the address of a socket has to be.
        self.socket = self.dir / "s"

    def configure(self) -> None:
        if not (self.data / "mysql").exists():
            shutil.copytree(_new_data(), self.data, dirs_exist_ok=True)
        secret = PASSWORD.replace("\\", "\\\\").replace("'", "''")
        (self.dir / "init.sql").write_text(
            f"CREATE OR REPLACE USER '{USER}'@'%' IDENTIFIED BY '{secret}';\n"
            f"GRANT ALL ON *.* TO '{USER}'@'%' WITH GRANT OPTION;\n"
        )

    def command(self) -> list[str]:
        tls = [f"--ssl-cert={self.ca}", f"--ssl-key={self._key}"] if self.ca else []
        return [
            find_program("mariadbd"),
            "--no-defaults",
            f"--datadir={self.data}",
            f"--socket={self.socket}",
            f"--port={self.port}",
            f"--bind-address={HOST}",
            f"--tmpdir={self.dir}",
            f"--pid-file={self.dir}/pid",
            f"--init-file={self.dir}/init.sql",
            "--skip-name-resolve",
            "--log-bin=binlog",
            f"--server-id={self.port}",
            "--innodb-buffer-pool-size=48M",
            f"--innodb-log-file-size={8 << 20}",
            "--innodb-flush-log-at-trx-commit=0",
            "--performance-schema=OFF",
            *tls,
            *(f"--{option}" for option in self.options),
        ]

    def is_ready(self) -> bool:
        with socket.create_connection((HOST, self.port), 1) as connection:
            connection.settimeout(5)
            return len(connection.recv(5)) == 5

    def keys(self, **more: Any) -> dict[str, Any]:
        """What a configuration says about it."""
        return {"host": HOST, "port": self.port, "user": USER, "password": PASSWORD, **more}

    @contextmanager
    def session(self, **options: Any) -> Iterator[Any]:
        """A connection of its own."""
        connection = pymysql.connect(
            host=HOST,
            port=self.port,
            user=options.pop("user", USER),
            password=options.pop("password", PASSWORD),
            autocommit=True,
            client_flag=CLIENT.MULTI_STATEMENTS,
            ssl_disabled=True,
            **options,
        )
        try:
            yield connection
        finally:
            connection.close()

    def sql(self, statements: str, database: str | None = None) -> list[tuple[Any, ...]]:
        """Execute statements; the rows of the last one."""
        with self.session(database=database) as connection, connection.cursor() as cursor:
            cursor.execute(statements)
            rows = cursor.fetchall()
            while cursor.nextset():
                rows = cursor.fetchall()
            return list(rows)

    def option_file(self) -> Path:
        """An option file with the login, that the server's own programs read."""
        path = self.dir / "client.cnf"
        secret = PASSWORD.replace("\\", "\\\\").replace('"', '\\"')
        path.write_text(
            f'[client]\nhost={HOST}\nport={self.port}\nprotocol=tcp\nuser={USER}\npassword="{secret}"\n'
        )
        path.chmod(0o600)
        return path

    def client(self, program: str, *arguments: str, stdin: bytes = b"") -> bytes:
        """Run one of its programs to the end; its output."""
        command = [find_program(program), f"--defaults-file={self.option_file()}", *arguments]
        done = subprocess.run(
            command,
            input=stdin,
            capture_output=True,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
        )
        if done.returncode:
            raise AssertionError(f"{program}: {done.stderr.decode(errors='replace')}")
        return done.stdout

    def load(self, dump: bytes, database: str | None = None) -> None:
        """Load SQL with the plain client and no option of ours."""
        self.client("mariadb", *([database] if database else []), stdin=dump)

    def __enter__(self) -> MariaDb:
        self.start()
        return self
