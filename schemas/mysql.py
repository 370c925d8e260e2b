"""The MySQL and MariaDB sources."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator

from schemas.base import AbsolutePath, ByteSize, Duration, Secret, Spec, Text
from schemas.tls import Tls

Period = Literal["hourly", "daily", "weekly", "ten_days", "monthly", "yearly", "never"]

_CONNECTION = ("--host", "--port", "--user", "--password", "--socket", "--defaults", "--login-path")
_CONNECTION_SHORT = ("-h", "-P", "-u", "-p", "-S")


def _no_connection(arguments: list[str]) -> list[str]:
    for argument in arguments:
        short = not argument.startswith("--") and argument.startswith(_CONNECTION_SHORT)
        if short or argument.startswith(_CONNECTION):
            raise ValueError(
                "must not say where to connect or as whom; there are keys for that, such as host, "
                "user, password and option_file"
            )
    return arguments


ExtraArguments = Annotated[list[str], AfterValidator(_no_connection)]
"""Further arguments of a client program."""


class MysqlServer(Spec):
    """How a MySQL or MariaDB server is reached."""

    suggested: ClassVar[tuple[str, ...]] = ("user", "password")

    host: Text | None = Field(
        None, description="Name or address of the server; default: localhost.", examples=["db.lan"]
    )
    port: int | None = Field(
        None, ge=1, le=65535, description="Its port; default: 3306.", examples=[3306]
    )
    socket: AbsolutePath | None = Field(
        None,
        description="Its Unix socket, instead of host and port.",
        examples=["/run/mysqld/mysqld.sock"],
    )
    user: Text | None = Field(
        None,
        description="Account to log in as; default: the name of the user who runs this.",
        examples=["backup"],
    )
    password: Secret | None = Field(None, description="Its password.")
    option_file: AbsolutePath | None = Field(
        None,
        description="Option file of the MySQL programs; host, port, socket, user, password and "
        "certificates are taken from its group `client` where they are not set here.",
        examples=["/etc/mysql/debian.cnf"],
    )
    tls: Tls | None = Field(
        None, description="Encryption of the connection; off on a Unix socket unless set."
    )

    @model_validator(mode="after")
    def _one_address(self) -> MysqlServer:
        if self.socket is not None and (self.host is not None or self.port is not None):
            raise ValueError("socket has no use beside host or port; keep one of them")
        return self


class MysqlSource(MysqlServer):
    """Databases of a MySQL or MariaDB server as SQL, which the plain client loads.

    All of them show the same moment. Patterns of tables with a dot are matched against
    `database.table`, others against the name of the table.
    """

    type: Literal["mysql"]
    method: Literal["auto", "native", "client"] = Field(
        "auto",
        description="`native` needs no program and is what `auto` does; `client` runs mysqldump or "
        "mariadb-dump.",
    )
    databases: list[Text] | Literal["all"] = Field(
        "all",
        description="Databases to dump, also as glob patterns; `all` is every one but the "
        "server's own.",
        examples=[["shop", "crm_*"]],
    )
    exclude: list[Text] = Field(
        default_factory=list,
        description="Glob patterns of databases that are left out.",
        examples=[["test_*"]],
    )
    artifact: Literal["per_database", "single"] = Field(
        "per_database", description="One artifact for each database, or a single one for all."
    )
    tables: list[Text] = Field(
        default_factory=list,
        description="Dump only tables and views that match one of these glob patterns.",
        examples=[["shop.order*"]],
    )
    exclude_tables: list[Text] = Field(
        default_factory=list,
        description="Glob patterns of tables and views that are left out.",
        examples=[["shop.session*", "*_cache"]],
    )
    schema_only: list[Text] = Field(
        default_factory=list,
        description="Glob patterns of tables whose rows are left out.",
        examples=[["shop.session*"]],
    )
    data_only: list[Text] = Field(
        default_factory=list,
        description="Glob patterns of tables of which only the rows are dumped.",
        examples=[["shop.settings"]],
    )
    triggers: bool = Field(True, description="Dump triggers.")
    routines: bool = Field(True, description="Dump procedures, functions and packages.")
    events: bool = Field(True, description="Dump events.")
    users: bool = Field(
        False,
        description="Also accounts, roles and grants: an artifact `users-and-grants`, to be "
        "restored after the others, or a part of the single one.",
    )
    history: bool = Field(
        True, description="Dump the past rows of system-versioned tables too (MariaDB 10.11)."
    )
    parallel: int = Field(
        2,
        ge=1,
        le=32,
        description="Connections that read tables at the same time; takes memory for each.",
    )
    lock: Literal["auto", "none", "full"] = Field(
        "auto",
        description="`auto` holds a global read lock for a moment where several connections or "
        "a position in the binary log take one; `none` never does; `full` holds it for the "
        "whole dump, so that tables without transactions are consistent too.",
    )
    lock_wait: Duration = Field(
        "30s",
        validate_default=True,
        description="Give up when a lock cannot be had within this time; at least a second.",
    )
    stop_slave: bool = Field(
        False,
        description="On a replica: stop applying changes for the time of the dump, and start "
        "again however it ends.",
    )
    insert_size: ByteSize = Field(
        "1MiB",
        validate_default=True,
        ge=1 << 10,
        le=64 << 20,
        description="Rows are joined to INSERTs of this size.",
    )
    idle_timeout: Duration = Field(
        "1h", validate_default=True, description="Give up when the server is silent for this long."
    )
    program: Text | None = Field(
        None,
        description="With `method: client`: the program; default: what fits the server.",
        examples=["mariadb-dump"],
    )
    extra_args: ExtraArguments = Field(
        default_factory=list,
        description="With `method: client`: more arguments for the program.",
        examples=[["--skip-extended-insert"]],
    )

    @model_validator(mode="after")
    def _belong_together(self) -> MysqlSource:
        if self.databases == []:
            raise ValueError("databases must not be empty; name some, or write all")
        if self.method == "client":
            keys = ("schema_only", "data_only", "users")
            native = next((key for key in keys if getattr(self, key)), None)
            if native is not None:
                raise ValueError(f"{native} needs method native")
        else:
            client = "extra_args" if self.extra_args else "program" if self.program else None
            if client is not None:
                raise ValueError(f"{client} has no use without method client; no program is run")
        return self


class MysqlIncremental(Spec):
    """Increments: only the pages that have changed since an earlier copy."""

    suggested: ClassVar[tuple[str, ...]] = ("full",)

    full: Period = Field(
        "weekly", description="How often a full copy is made: in the first run of each period."
    )
    levels: list[Period] = Field(
        default_factory=list,
        description="Periods of further levels; each builds on the newest copy of a lower one, "
        "all other runs on the newest of all.",
        examples=[["daily"]],
    )
    index_identity: AbsolutePath | None = Field(
        None,
        description="File with an age key of this host: encrypts the note with the position in "
        "the log that lies beside each copy for the next increment.",
        examples=["/etc/nxs-backup/index.key"],
    )


class MysqlPhysicalSource(MysqlServer):
    """A whole MySQL or MariaDB server of this machine, file by file, as an xbstream.

    It is made by mariadb-backup or xtrabackup, which read the files of the server: they have to run
    on its machine, as a user who may read them.
    """

    type: Literal["mysql_physical"]
    program: Text | None = Field(
        None,
        description="The program; default: mariadb-backup or xtrabackup, what fits the server.",
        examples=["mariadb-backup"],
    )
    datadir: AbsolutePath | None = Field(
        None,
        description="Where the server keeps its data; default: what the server says.",
        examples=["/var/lib/mysql"],
    )
    threads: int = Field(1, ge=1, le=64, description="Files that are copied at the same time.")
    kill_long_queries: Duration | None = Field(
        None,
        description="When the lock at the end is not to be had: end queries that run for longer.",
    )
    extra_args: ExtraArguments = Field(
        default_factory=list,
        description="More arguments for the program.",
        examples=[["--slave-info", "--safe-slave-backup"]],
    )
    incremental: MysqlIncremental | None = Field(
        None, description="Keep a series of increments instead of full copies only."
    )
