"""Series of increments: what every source that makes them lets a user choose."""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from schemas.base import AbsolutePath, Spec

Period = Literal["hourly", "daily", "weekly", "ten_days", "monthly", "yearly", "never"]
_LENGTHS: tuple[Period, ...] = (
    "hourly",
    "daily",
    "weekly",
    "ten_days",
    "monthly",
    "yearly",
    "never",
)

Compared = Literal["mode", "owner", "inode", "size", "mtime", "ctime", "device"]


class Incremental(Spec):
    """Increments: only what has changed since an earlier copy."""

    suggested: ClassVar[tuple[str, ...]] = ("full",)

    full: Period = Field(
        "weekly", description="How often a full copy is made: in the first run of each period."
    )
    levels: list[Period] = Field(
        default_factory=list,
        description="Periods of further levels, each shorter than the one before. A level builds "
        "on the newest copy of a lower one, all other runs on the newest of all.",
        examples=[["weekly"], ["monthly", "ten_days", "daily"]],
    )
    index_identity: AbsolutePath | None = Field(
        None,
        description="File with an age key of this host: encrypts what lies beside each copy for "
        "the next increment, so that it can be read here without the key of the data.",
        examples=["/etc/nxs-backup/index.key"],
    )

    @model_validator(mode="after")
    def _get_shorter(self) -> Incremental:
        lengths = [_LENGTHS.index(period) for period in (self.full, *self.levels)]
        if any(longer <= shorter for longer, shorter in pairwise(lengths)):
            raise ValueError("each of levels must be shorter than the one before, and than full")
        return self


class FilesIncremental(Incremental):
    """Increments: only the files that have changed since an earlier copy."""

    full: Period = Field(
        "monthly", description="How often a full copy is made: in the first run of each period."
    )
    compare: list[Compared] = Field(
        ["mode", "owner", "inode", "size", "mtime", "ctime"],
        description="What makes a file a changed one; its type always does. Leave out `inode` for "
        "a file system that does not keep them, and `ctime` where something touches it without a "
        "change; then a change of permissions or attributes alone may go unnoticed.",
        examples=[["size", "mtime"]],
    )
    renames: Literal["directories", "all", "none"] = Field(
        "directories",
        description="Recognise what was moved, so that it need not be saved again. With `all`, "
        "files too (rotated logs), by inode, size, mode, owner and time of modification: a file "
        "that was moved, and of which only something else has changed (attributes, or content "
        "behind a time that was set back), is then restored as it was.",
    )

    @field_validator("compare")
    @classmethod
    def _compares_times(cls, value: list[Compared]) -> list[Compared]:
        if not {"mtime", "ctime"} & set(value):
            raise ValueError("must contain mtime or ctime; without a time, changes are not seen")
        return value
