"""Sources: what is backed up. One model per source, then their union."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator

from schemas.base import AbsolutePath, ByteSize, Command, Spec, Suffix, Text, in_schema
from schemas.incremental import FilesIncremental
from schemas.mongodb import MongodbSource
from schemas.mysql import MysqlPhysicalSource, MysqlSource
from schemas.postgres import PostgresPhysicalSource, PostgresSource
from schemas.programs import Directory, Environment, ExitCodes, Timeout, User
from schemas.redis import RedisSource
from schemas.sqlite import SqliteSource

OnUnreadable = Literal["fail", "warn", "ignore"]


def _matches_something(pattern: str) -> str:
    if "\0" in pattern:
        raise ValueError("must not contain a zero byte")
    if not pattern.removeprefix("!").removeprefix("./").strip("/"):
        raise ValueError("must name something; such as *.tmp or /srv/cache/")
    return pattern


def _is_name(name: str) -> str:
    if not name or "/" in name or "\0" in name or name in (".", ".."):
        raise ValueError("must be the name of a file, without a slash; such as .nobackup")
    return name


Pattern = Annotated[str, AfterValidator(_matches_something)]
"""What is to be matched with names and paths; see `stages/sources/_files/ignore.py`."""
MarkName = Annotated[str, AfterValidator(_is_name), in_schema("^[^/]+$")]
"""The name of an item that marks the directory it is in."""


class FilesSource(Spec):
    """Files and directories, as one PAX tar stream per path."""

    type: Literal["files"]
    paths: list[AbsolutePath] = Field(
        min_length=1,
        description="Absolute paths; globs are expanded when the backup runs.",
        examples=[["/etc", "/srv/www/*"]],
    )
    include: list[Pattern] = Field(
        default_factory=list,
        description="When there are any, only what they match is saved, with all that is in it, "
        "and the directories on the way to it; patterns as for `exclude`, which wins over this.",
        examples=[["*.conf", "/srv/www/"]],
    )
    exclude: list[Pattern] = Field(
        default_factory=list,
        description="Patterns of what is left out, much like those of gitignore. One without a "
        "slash matches every name (`*.tmp`), one that begins with a slash a whole path "
        "(`/srv/*/cache`), any other with a slash a path below the one that is backed up "
        "(`var/cache`, `./tmp`). A slash at the end: directories only. `*`, `?` and `[a-z]` stay "
        "within a name, `**` crosses slashes, a backslash takes the meaning of what follows. `!` "
        "in front brings back what an earlier pattern leaves out; the last one that matches "
        "counts, but a directory that is left out is never entered.",
        examples=[["*.tmp", "cache/", "!important.tmp", "/srv/www/*/log"]],
    )
    exclude_if_present: list[MarkName] = Field(
        default_factory=list,
        description="Names that mark a directory: of one that holds such an item, only the "
        "directory and the mark are saved. Nothing is left out unless you ask for it. A "
        "`CACHEDIR.TAG` counts when it has the signature of https://bford.info/cachedir/.",
        examples=[["CACHEDIR.TAG", ".nobackup"]],
    )
    artifact: Literal["per_path", "single"] = Field(
        "per_path", description="One artifact for each path, or a single one for all of them."
    )
    names: Literal["absolute", "relative"] = Field(
        "absolute",
        description="Member names: the whole path without its leading slash, "
        "or starting at the last part of the path.",
    )
    one_file_system: bool = Field(False, description="Do not descend into other file systems.")
    numeric_owner: bool = Field(False, description="Write user and group numbers only, no names.")
    xattrs: bool = Field(True, description="Save extended attributes and ACLs.")
    readers: int = Field(
        64,
        ge=1,
        le=256,
        description="So many small groups of files are read at once at most. They are when the "
        "source is slow to answer (network, disk), not when it is as fast as memory. More help "
        "with a latency of some milliseconds; 1 reads one file after the other.",
    )
    on_unreadable: OnUnreadable = Field(
        "warn",
        description="An item that cannot be read: fail the backup, "
        "warn (the run is then partial), or ignore (counted only).",
    )
    shards: int = Field(
        1,
        ge=1,
        le=64,
        description="Split each artifact into so many, which as many processes read, compress and "
        "send at the same time; they are restored together. Each process takes memory, and looks "
        "into every directory.",
    )
    incremental: FilesIncremental | None = Field(
        None,
        description="Keep a series of increments instead of full copies only. GNU tar restores "
        "them with --listed-incremental=/dev/null. A path that is no directory is saved each time.",
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> FilesSource:
        if self.shards > 1 and self.incremental is not None:
            raise ValueError("shards and incremental exclude each other; remove one of them")
        return self


class CommandSource(Spec):
    """What a program prints; one artifact, or one for each of several items."""

    suggested: ClassVar[tuple[str, ...]] = ("command", "suffix")

    type: Literal["command"]
    command: Command | None = Field(
        None,
        description="Program and arguments; no shell is involved. With items, `{item}` in an "
        "argument stands for one of them, `{name}` for its name.",
        examples=[["pg_dump", "--format=custom", "shop"]],
    )
    shell: Text | None = Field(
        None,
        description="Instead of `command`: a line for `bash`, which fails when any program of a "
        "pipe fails. Items are in the environment, as `$ITEM` and `$NAME`.",
        examples=["slapcat -n 1 | grep -v '^userPassword'"],
    )
    for_each: list[Text] | None = Field(
        None,
        min_length=1,
        description="Items, each of which the program is run for; they name the artifacts.",
        examples=[["shop", "crm"]],
    )
    list_command: Command | None = Field(
        None,
        description="A program that prints the items instead: one a line, either the item, or its "
        "name, a tab and the item. It may use the same environment, directory and user.",
        examples=[["mysql", "-N", "-e", "SHOW DATABASES"]],
    )
    prints: Literal["stream", "path"] = Field(
        "stream",
        description="`stream`: the output is the backup. `path`: the output is "
        '`{"full_path": "/a/file"}`, as the jobs of type `external` of nxs-backup v3 print it; '
        "the file is removed when the backup is safe, and kept when it failed.",
    )
    user: User = None
    name: Text | None = Field(
        None, description="Artifact name; default: the name of the backup.", examples=["directory"]
    )
    suffix: Suffix = Field(
        "", description="What the stream is, as a file suffix.", examples=[".sql"]
    )
    env: Environment = Field(default_factory=dict)
    cwd: Directory = None
    ok_exit_codes: ExitCodes = Field(default_factory=lambda: [0])
    min_size: ByteSize = Field(
        "1B",
        validate_default=True,
        ge=1,
        description="A smaller output is a failure: an empty dump is no backup.",
    )
    timeout: Timeout = None

    @model_validator(mode="after")
    def _one_of_each(self) -> CommandSource:
        if (self.command is None) == (self.shell is None):
            raise ValueError("either command or shell is needed; set one of them")
        if self.for_each is not None and self.list_command is not None:
            raise ValueError("for_each and list_command exclude each other; remove one of them")
        if self.name is not None and (self.for_each or self.list_command):
            raise ValueError("name has no use with items; they name the artifacts")
        if self.for_each is not None and len(set(self.for_each)) < len(self.for_each):
            raise ValueError("for_each names an item twice; remove one of them")
        return self


class StdinSource(Spec):
    """Standard input of this process, as one artifact."""

    type: Literal["stdin"]
    name: Text | None = Field(
        None, description="Artifact name; default: the name of the backup.", examples=["dump"]
    )
    suffix: Suffix = Field(
        "", description="What the stream is, as a file suffix.", examples=[".sql"]
    )
    min_size: ByteSize = Field(
        "1B", validate_default=True, ge=1, description="A smaller input is a failure."
    )


SourceSpec = Annotated[
    FilesSource
    | CommandSource
    | StdinSource
    | MysqlSource
    | MysqlPhysicalSource
    | PostgresSource
    | PostgresPhysicalSource
    | SqliteSource
    | RedisSource
    | MongodbSource,
    Field(discriminator="type"),
]
