"""The PostgreSQL sources."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator

from schemas.base import AbsolutePath, ByteRate, ByteSize, Duration, Secret, Spec, Text
from schemas.incremental import Incremental
from schemas.tls import Tls

_OURS = ("--file", "--format", "--dbname", "--host", "--port", "--username", "--password", "--jobs")
_OURS_SHORT = ("-f", "-F", "-d", "-h", "-p", "-U", "-W", "-j")


def _only_additions(arguments: list[str]) -> list[str]:
    for argument in arguments:
        name = argument.partition("=")[0]
        short = not argument.startswith("--") and argument.startswith(_OURS_SHORT)
        if short or name in _OURS:
            raise ValueError(
                "must not say where to connect, or where and how to write; "
                "there are keys for that, such as host, databases and format"
            )
    return arguments


ExtraArguments = Annotated[list[str], AfterValidator(_only_additions)]
"""Further arguments of a client program."""


class PostgresServer(Spec):
    """How a PostgreSQL server is reached."""

    suggested: ClassVar[tuple[str, ...]] = ("user", "password")

    host: Text = Field(
        "localhost",
        description="Name or address of the server, or the folder of its Unix socket.",
        examples=["db.internal", "/var/run/postgresql"],
    )
    port: int = Field(5432, ge=1, le=65535, description="Its port; part of the socket's name too.")
    user: Text = Field("postgres", description="Role to log in as.", examples=["backup"])
    password: Secret | None = Field(
        None,
        description="Its password. Without one: `passfile`, else the environment variable "
        "PGPASSWORD, else ~/.pgpass.",
    )
    passfile: AbsolutePath | None = Field(
        None,
        description="File with passwords, one `host:port:database:user:password` a line.",
        examples=["/etc/nxs-backup/pgpass"],
    )
    tls: Tls | None = Field(
        None, description="Encryption of the connection; has no meaning for a Unix socket."
    )
    programs: AbsolutePath | None = Field(
        None,
        description="Folder with pg_dump and the other client programs. Default: of all that are "
        "installed, those that fit the version of the server.",
        examples=["/usr/lib/postgresql/17/bin"],
    )
    database: Text = Field("postgres", description="Database to connect to for looking around.")


class PostgresSource(PostgresServer):
    """Databases of a PostgreSQL server, one dump each; roles and tablespaces as one of their own.

    `format: copy` is an export of data: tables as files that other programs read, in one snapshot,
    with the definition of the tables. It is no replacement for a dump, which has everything.
    """

    type: Literal["postgres"]
    databases: list[Text] | Literal["all"] = Field(
        "all",
        description="Databases to dump; `all` is every one that allows connections.",
        examples=[["shop", "crm"]],
    )
    exclude: list[Text] = Field(
        default_factory=list,
        description="Glob patterns of databases that are left out.",
        examples=[["test_*"]],
    )
    format: Literal["custom", "plain", "copy"] = Field(
        "custom",
        description="`custom` is for pg_restore, `plain` is SQL for psql, `copy` is a tar archive "
        "with a file for each table.",
    )
    copy_format: Literal["csv", "binary"] = Field(
        "csv",
        description="With `format: copy`: CSV with a header line, or the binary format of "
        "PostgreSQL, which a server of another version may not read.",
    )
    globals: bool = Field(
        True, description="Also roles, their settings, and tablespaces: an artifact `globals`."
    )
    role_passwords: bool = Field(
        True, description="Save the hashes of passwords; only a superuser may read them."
    )
    schemas: list[Text] = Field(
        default_factory=list,
        description="Dump only these schemas: patterns as in psql, with `format: copy` globs.",
        examples=[["public"]],
    )
    tables: list[Text] = Field(
        default_factory=list,
        description="Dump only these tables, such as `shop.order*`.",
        examples=[["shop.order*"]],
    )
    exclude_tables: list[Text] = Field(
        default_factory=list,
        description="Tables that are left out, such as `shop.session*`.",
        examples=[["shop.session*"]],
    )
    lock_wait: Duration = Field(
        "5m",
        validate_default=True,
        description="Give up when a table cannot be locked for reading within this time.",
    )
    idle_timeout: Duration | None = Field(
        None,
        description="Give up when the server, or the program that asks it, is silent for this "
        "long. Default: 10m with `format: copy`; 1h for pg_dump and pg_dumpall, which say nothing "
        "while they read a large catalog or wait for locks. It has to be longer than `lock_wait`.",
    )
    extra_args: ExtraArguments = Field(
        default_factory=list,
        description="More arguments for pg_dump.",
        examples=[["--no-comments", "--exclude-table-data=audit.*"]],
    )

    @property
    def silence(self) -> float:
        """Seconds of silence that are an error; waiting for a lock is none."""
        usual = 600.0 if self.format == "copy" else 3600.0
        return self.idle_timeout or max(usual, self.lock_wait + 60)

    @model_validator(mode="after")
    def _belong_together(self) -> PostgresSource:
        if self.databases == []:
            raise ValueError("databases must not be empty; name some, or write all")
        if self.format == "copy" and self.extra_args:
            raise ValueError("extra_args has no use with format copy; no program is run")
        if self.idle_timeout is not None and self.idle_timeout <= self.lock_wait:
            raise ValueError("idle_timeout must be longer than lock_wait; waiting is no failure")
        return self


class PostgresPhysicalSource(PostgresServer):
    """A whole PostgreSQL server, file by file, ready to start from: a base backup as one tar."""

    type: Literal["postgres_physical"]
    method: Literal["native", "client"] = Field(
        "native",
        description="`native` speaks the replication protocol itself; `client` runs pg_basebackup, "
        "which cannot do servers with tablespaces.",
    )
    checkpoint: Literal["fast", "spread"] = Field(
        "fast",
        description="Start with an immediate checkpoint, or wait for one that is spread out.",
    )
    label: Text = Field("nxs-backup", max_length=1000, description="Label of the backup.")
    max_rate: ByteRate | None = Field(
        None,
        ge=32 << 10,
        le=1 << 30,
        description="The server sends at most so much, from 32KiB/s to 1GiB/s.",
    )
    wal: bool = Field(
        True,
        description="Include the WAL that the copy needs to start. Without it a WAL archive is "
        "needed too.",
    )
    slot: bool = Field(
        True,
        description="Hold back that WAL on the server with a temporary replication slot, which "
        "takes a second connection. Without it a long backup of a busy server may fail.",
    )
    manifest_checksums: Literal["crc32c", "sha224", "sha256", "sha384", "sha512", "none"] = Field(
        "crc32c",
        description="Checksum of each file in the backup manifest, computed by the server, and "
        "compared with what was received.",
    )
    manifest_size: ByteSize = Field(
        "32MiB",
        validate_default=True,
        ge=64 << 10,
        description="The backup manifest, about 200 bytes for each file of the server, is kept in "
        "memory; larger than this is an error.",
    )
    verify_checksums: Literal["fail", "warn", "off"] = Field(
        "fail",
        description="Pages whose checksum is wrong on the server: fail the backup, warn (the run "
        "is then partial), or do not look.",
    )
    idle_timeout: Duration = Field(
        "1h",
        validate_default=True,
        description="Give up when the server is silent for this long; a spread checkpoint takes "
        "minutes.",
    )
    incremental: Incremental | None = Field(
        None,
        description="Keep a series of increments instead of full backups only; PostgreSQL 17 or "
        "newer with `summarize_wal = on`, and pg_combinebackup where they are restored.",
    )

    @model_validator(mode="after")
    def _belong_together(self) -> PostgresPhysicalSource:
        if self.incremental and self.method == "client":
            raise ValueError("incremental needs method native")
        if self.method == "client" and self.verify_checksums == "warn":
            raise ValueError("verify_checksums warn needs method native; use fail or off")
        return self
