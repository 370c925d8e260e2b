"""A real Redis server; sentinels and clusters are made of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import redis

from tests.servers.base import HOST, Server, find_program, free_port
from tests.servers.ftp import make_certificate

PASSWORD = "Pa55 word"
USER = "backup"
LEAST = "+sync +psync +replconf +info +ping"
"""What the user of a backup must be allowed."""


class RedisServer(Server):
    """One server that keeps nothing on disk.

    Args:
        options: lines of its configuration.
        tls: whether it listens on a second port with TLS.
        login: whether it asks for a password.
    """

    name = "redis"

    def __init__(self, *options: str, tls: bool = False, login: bool = True) -> None:
        super().__init__()
        self.options = options
        self.login = login
        self.ca: Path | None = None
        self.tls_port = 0
        self.socket = self.dir / "s"
        if tls:
            self.ca, self._key = make_certificate(self.dir)

    def configure(self) -> None:
        lines = [
            f"port {self.port}",
            f"bind {HOST}",
            f"dir {self.data}",
            f"unixsocket {self.socket}",
        ]
        lines += ['save ""', "appendonly no", "repl-diskless-sync-delay 0", "daemonize no"]
        if self.login:
            lines += [f'requirepass "{PASSWORD}"', f'user {USER} on ">{PASSWORD}" {LEAST}']
        if self.ca:
            self.tls_port = self.tls_port or free_port()
            lines += [f"tls-port {self.tls_port}", f"tls-cert-file {self.ca}"]
            lines += [f"tls-key-file {self._key}", "tls-auth-clients no"]
        (self.dir / "redis.conf").write_text("\n".join([*lines, *self.options]) + "\n")

    def command(self) -> list[str]:
        return [find_program("redis-server"), str(self.dir / "redis.conf")]

    def is_ready(self) -> bool:
        with self.client() as client:
            try:
                return bool(client.ping())
            except redis.ConnectionError:
                return False

    def client(self, **options: Any) -> Any:
        """A client with all rights."""
        secret = PASSWORD if self.login else None
        return redis.Redis(host=HOST, port=self.port, password=secret, **options)

    def digest(self) -> bytes:
        """One value that stands for all databases, keys, types and values."""
        with self.client() as client:
            found: bytes = client.execute_command("DEBUG", "DIGEST")
            return found

    def __enter__(self) -> RedisServer:
        self.start()
        return self


class Sentinel(RedisServer):
    """A sentinel that watches one primary as `mymaster`."""

    name = "sentinel"

    def __init__(self, primary: RedisServer) -> None:
        super().__init__(login=False)
        self.primary = primary

    def configure(self) -> None:
        (self.dir / "redis.conf").write_text(
            f"port {self.port}\nbind {HOST}\ndir {self.data}\n"
            f"sentinel monitor mymaster {HOST} {self.primary.port} 1\n"
            f"sentinel auth-pass mymaster {PASSWORD}\n".replace(PASSWORD, f'"{PASSWORD}"')
        )

    def command(self) -> list[str]:
        return [*super().command(), "--sentinel"]
