"""What all jobs of databases share: where a server is, who logs in, options that say so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.convert.notes import Notes
from schemas.problems import Path
from schemas.v3.model import Connect, Job, Source

Block = dict[str, Any]


@dataclass(frozen=True)
class Where:
    """A source of a job, its place in the v3 file, and the name of our backup."""

    job: Job
    source: Source
    path: Path
    backup: str
    rate: int | None
    """Bytes per second of `disk_rate`."""

    @property
    def connect(self) -> Connect:
        return self.source.connect

    def key(self, name: str) -> Path:
        """In the v3 configuration."""
        return (*self.path, "connect", name)

    def place(self, key: str) -> Path:
        """In our document."""
        return ("backups", self.backup, key)

    @property
    def extra(self) -> list[str]:
        """v3 splits at every blank, and knows no quotes."""
        return self.source.db_extra_keys.split()

    @property
    def extra_key(self) -> Path:
        return (*self.path, "db_extra_keys")


def databases(where: Where, notes: Notes) -> list[str]:
    """`target_dbs`; all of them where v3 would have dumped nothing."""
    if where.source.target_dbs:
        return list(where.source.target_dbs)
    notes.danger(where.path, "without target_dbs, v3 saved nothing and called it well")
    return list(where.source.targets) or ["all"]


def host_and_port(where: Where, usual: str, notes: Notes) -> Block:
    """The address of a server; a port that is the usual one is left out."""
    block: Block = {}
    if where.connect.db_host:
        block["host"] = notes.text(where.key("db_host"), where.connect.db_host)
    port = where.connect.db_port
    if port not in ("", usual):
        block["port"] = int(port) if port.isdigit() else notes.text(where.key("db_port"), port)
    return block


def login(block: Block, where: Where, user: str, notes: Notes) -> None:
    """Add user and password to a block."""
    if user:
        block["user"] = notes.text(where.key("db_user"), user)
    password = where.connect.db_password
    if not password:
        return
    key = where.key("db_password")
    block["password"] = notes.secret(key, password, where.backup, "password")
    if where.job.type in ("postgresql", "postgresql_basebackup", "mongodb", "redis"):
        message = "every user of the machine could read the password in the list of processes"
    else:
        message = "the password was written to a temporary file in /tmp for each dump"
    notes.danger(key, message)


def certificate(where: Where, notes: Notes) -> None:
    """Say that the certificate of the server is checked now."""
    notes.danger(where.key("db_host"), "the certificate of the server was not checked")
    notes.decide(
        where.key("db_host"),
        "the certificate of the server is checked now: set tls: {ca: FILE} for an authority of "
        "your own, tls: {mode: prefer} where the network can be trusted",
        where.place("source"),
    )


def without_login(
    options: Sequence[str], long: Sequence[str], short: Sequence[str], where: Where, notes: Notes
) -> list[str]:
    """Options without those that say where to connect, or as whom: there are keys for that."""
    kept = []
    value_follows = False
    for option in options:
        if value_follows and not option.startswith("-"):
            value_follows = False
            continue
        is_short = not option.startswith("--") and option.startswith(tuple(short))
        is_login = is_short or option.partition("=")[0] in long or option.startswith("--defaults")
        value_follows = is_login and (option in short or option in long)
        if is_login:
            message = "an option that says where to connect, or as whom, was left out"
            notes.decide(where.extra_key, message, where.place("source"))
        else:
            kept.append(option)
    return kept
