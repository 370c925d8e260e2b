"""The manifest that lies beside every object: what it is, and how to get it back (DESIGN section 6,
fixed).

Its JSON Schema is published as `schemas/manifest.schema.json`. A reader must accept unknown keys: a
newer program may have written them.
"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, PlainSerializer

FORMAT_VERSION = 1


def _utc(when: datetime) -> str:
    return when.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


UtcTime = Annotated[AwareDatetime, PlainSerializer(_utc, return_type=str)]


class ManifestStage(BaseModel):
    """A transform the stream went through."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    type: str
    suffix: str = ""
    undo: str = Field("", description="Shell command of a standard tool that undoes it.")


class ManifestSource(BaseModel):
    """Where the stream came from."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    type: str
    server_version: str | None = None
    facts: dict[str, str] = Field(
        default_factory=dict,
        description="What else the server told: a binary log position, an LSN, a label...",
    )


class ManifestIndex(BaseModel):
    """The index of a copy that increments can build on."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    object: str = Field(description="Name of the index, beside this manifest.")
    stored_size: int = Field(ge=0)
    stored_sha256: str = Field(pattern="^[0-9a-f]{64}$")


class ManifestShard(BaseModel):
    """The place of an artifact among those that only together are a backup."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    of: str = Field(description="What they are together.")
    number: int = Field(ge=1)
    count: int = Field(ge=1)


class Manifest(BaseModel):
    """One stored object of one artifact."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    format: Literal["nxs-backup"] = "nxs-backup"
    format_version: int = Field(FORMAT_VERSION, ge=1)
    program_version: str
    run: str = Field(description="Id of the run; the same on every storage.")
    project: str
    host: str
    backup: str
    artifact: str
    taken_at: UtcTime = Field(description="Start of the backup, UTC; what rotation goes by.")
    object: str = Field(description="Name of the object, beside this manifest.")
    suffix: str = Field("", description="Suffix of the plain stream, such as `.tar`.")
    source: ManifestSource
    stages: list[ManifestStage] = Field(default_factory=list, description="In the order applied.")
    stored_size: int = Field(ge=0, description="Bytes of the object.")
    stored_sha256: str = Field(pattern="^[0-9a-f]{64}$", description="SHA-256 of the object.")
    plain_size: int = Field(ge=0, description="Bytes of the stream before any stage.")
    plain_sha256: str | None = Field(
        None, pattern="^[0-9a-f]{64}$", description="Absent when the object is encrypted."
    )
    counts: dict[str, int] = Field(default_factory=dict)
    skipped: list[str] = Field(default_factory=list, description="Items that could not be read.")
    skipped_total: int = 0
    warnings: list[str] = Field(default_factory=list)
    parent: str | None = Field(None, description="Object an increment builds on.")
    level: int = Field(0, ge=0, description="0 is a full copy.")
    index: ManifestIndex | None = Field(None, description="What the next increment builds on.")
    shard: ManifestShard | None = Field(
        None, description="Set when other artifacts of the same time belong to it."
    )
    restore: str = Field(description="Shell line that restores it with standard tools.")
