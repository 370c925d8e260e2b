"""Sources: what is backed up. One model per source, then their union."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from schemas.base import AbsolutePath, ByteSize, Command, Duration, Secret, Spec, Suffix, Text

ExitCode = Annotated[int, Field(ge=0, le=255)]
OnUnreadable = Literal["fail", "warn", "ignore"]


class FilesSource(Spec):
    """Files and directories, as one PAX tar stream per path."""

    type: Literal["files"]
    paths: list[AbsolutePath] = Field(
        min_length=1,
        description="Absolute paths; globs are expanded when the backup runs.",
        examples=[["/etc", "/srv/www/*"]],
    )
    exclude: list[str] = Field(
        default_factory=list,
        description="Glob patterns that are left out. One with a slash is matched against the "
        "whole path, one without against every name.",
        examples=[["*.tmp", "/srv/www/*/cache"]],
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
    on_unreadable: OnUnreadable = Field(
        "warn",
        description="An item that cannot be read: fail the backup, "
        "warn (the run is then partial), or ignore (counted only).",
    )


class CommandSource(Spec):
    """The standard output of a program, as one artifact."""

    type: Literal["command"]
    command: Command = Field(
        description="Program and arguments; no shell is involved.",
        examples=[["pg_dump", "--format=custom", "shop"]],
    )
    name: Text | None = Field(None, description="Artifact name; default: the name of the backup.")
    suffix: Suffix = Field(
        "", description="What the stream is, as a file suffix.", examples=[".sql"]
    )
    env: dict[str, Secret] = Field(
        default_factory=dict,
        description="Environment variables added for the program: the place for secrets.",
    )
    cwd: str | None = Field(None, description="Working directory of the program.")
    ok_exit_codes: list[ExitCode] = Field(
        default_factory=lambda: [0], min_length=1, description="Exit codes that mean success."
    )
    min_size: ByteSize = Field(
        1, ge=1, description="A smaller output is a failure: an empty dump is no backup."
    )
    timeout: Duration | None = Field(None, description="End the program after this time.")


class StdinSource(Spec):
    """Standard input of this process, as one artifact."""

    type: Literal["stdin"]
    name: Text | None = Field(None, description="Artifact name; default: the name of the backup.")
    suffix: Suffix = Field(
        "", description="What the stream is, as a file suffix.", examples=[".sql"]
    )
    min_size: ByteSize = Field(1, ge=1, description="A smaller input is a failure.")


SourceSpec = Annotated[
    FilesSource | CommandSource | StdinSource,
    Field(discriminator="type"),
]
