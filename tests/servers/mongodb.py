"""A real server that speaks MongoDB's protocol: FerretDB 1 with SQLite below it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pymongo

from tests.servers.base import HOST, Server, ServerFailed, free_port
from tests.servers.ftp import make_certificate

USER = "backup"
PASSWORD = "Pa55:w@rd/'%"
_HERE = Path(__file__).parent
_PROGRAM = _HERE.parents[1] / "build" / "ferretdb"


class MongoServer(Server):
    """One server; it has no views, no time series, and no users but those of its own.

    Args:
        tls: whether it listens on a second port with TLS.
        login: whether it asks for a password.
        replica_set: the name of the set it claims to be the primary of.
    """

    name = "mongodb"

    def __init__(self, tls: bool = False, login: bool = False, replica_set: str = "") -> None:
        super().__init__()
        self.login = login
        self.replica_set = replica_set
        self.ca: Path | None = None
        self.tls_port = 0
        if tls:
            self.ca, self._key = make_certificate(self.dir)

    def configure(self) -> None:
        built = subprocess.run([_HERE / "install-ferretdb"], capture_output=True, check=False)
        if built.returncode:
            raise ServerFailed(built.stderr.decode(errors="replace")[-2000:])
        if self.ca:
            self.tls_port = self.tls_port or free_port()

    def command(self) -> list[str]:
        options = [f"--listen-addr={HOST}:{self.port}", "--handler=sqlite"]
        options += [f"--sqlite-url=file:{self.data}/", f"--state-dir={self.data}"]
        options += ["--telemetry=disable", "--debug-addr=-", "--log-level=ERROR"]
        if self.replica_set:
            options += [f"--repl-set-name={self.replica_set}"]
        if self.ca:
            options += [f"--listen-tls={HOST}:{self.tls_port}"]
            options += [f"--listen-tls-cert-file={self.ca}", f"--listen-tls-key-file={self._key}"]
        if self.login:
            options += ["--test-enable-new-auth", "--setup-database=admin"]
            options += [f"--setup-username={USER}", f"--setup-password={PASSWORD}"]
        return [str(_PROGRAM.resolve()), *options]

    def is_ready(self) -> bool:
        with self.client(serverSelectionTimeoutMS=2000) as client:
            try:
                return bool(client.admin.command("ping")["ok"])
            except pymongo.errors.PyMongoError:
                return False

    def client(self, **options: Any) -> Any:
        """A client with all rights."""
        if self.login:
            options |= {"username": USER, "password": PASSWORD}
        return pymongo.MongoClient(HOST, self.port, directConnection=True, **options)

    def __enter__(self) -> MongoServer:
        self.start()
        return self
