"""The root of the configuration: the file as a whole, its backups and their branches."""

from __future__ import annotations

import re
import socket
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from schemas.base import ByteSize, Duration, Spec
from schemas.notifiers import NotifierSpec
from schemas.retention import RetentionPolicy
from schemas.sources import SourceSpec
from schemas.storages import StorageSpec
from schemas.transforms import TransformSpec

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def _plain_name(name: str) -> str:
    if not _NAME.fullmatch(name) or len(name) > 100:
        raise ValueError(
            "must be a plain name; 1 to 100 letters, digits, '_', '.' and '-', "
            "the first a letter or digit"
        )
    return name


_CRON_PART = re.compile(r"(?:\*|([0-9a-z]+)(?:-([0-9a-z]+))?)(?:/[1-9][0-9]?)?")
_CRON_FIELDS = (
    ("minute", range(60), ""),
    ("hour", range(24), ""),
    ("day of month", range(1, 32), ""),
    ("month", range(1, 13), "jan feb mar apr may jun jul aug sep oct nov dec"),
    ("day of week", range(8), "sun mon tue wed thu fri sat"),
)


def _cron(expression: str) -> str:
    fields = expression.lower().split()
    if len(fields) != len(_CRON_FIELDS):
        names = ", ".join(name for name, _, _ in _CRON_FIELDS)
        raise ValueError(f"must be a cron expression; five fields: {names}")
    for text, (name, numbers, words) in zip(fields, _CRON_FIELDS, strict=True):
        allowed = {*map(str, numbers), *(f"{number:02}" for number in numbers), *words.split()}
        for part in text.split(","):
            match = _CRON_PART.fullmatch(part)
            if match is None or not {value for value in match.groups() if value} <= allowed:
                hint = (
                    f"{numbers.start} to {numbers.stop - 1}, *, lists, ranges and steps such as */5"
                )
                raise ValueError(f"the {name} of the cron expression is wrong; {hint}")
    return expression


Cron = Annotated[str, AfterValidator(_cron)]
"""When to run: minute, hour, day of month, month, day of week."""

Name = Annotated[str, AfterValidator(_plain_name)]
"""A name that becomes part of a path on every storage."""


class Branch(Spec):
    """One storage that receives the stream."""

    storage: str = Field(description="Name of an entry of `storages`.")
    stages: list[TransformSpec] = Field(
        default_factory=list, description="Transforms of this branch only."
    )
    rotate: RetentionPolicy | None = Field(
        None, description="What to keep there; without it nothing is ever removed."
    )
    required: bool = Field(
        True, description="False: when this branch fails the backup is partial, not failed."
    )


class Backup(Spec):
    """A source, the transforms of its stream and the storages that receive it."""

    source: SourceSpec = Field(description="Where the bytes come from.")
    stages: list[TransformSpec] = Field(
        default_factory=list, description="Applied to the stream in this order."
    )
    fan_out: list[Branch] = Field(
        default_factory=list, description="The storages; each receives the same stream."
    )
    schedule: Cron | None = Field(
        None, description="Cron expression, used by `serve`.", examples=["15 3 * * *"]
    )
    notify: list[str] = Field(default_factory=list, description="Names of entries of `notifiers`.")
    buffer: ByteSize = Field(
        "64MiB",
        ge=1,
        validate_default=True,
        description="How far the slowest storage may lag behind before the source has to wait.",
    )
    stall_timeout: Duration = Field(
        "10m",
        validate_default=True,
        description="A storage that accepts nothing for this long has failed.",
    )


class Defaults(Spec):
    """What a backup takes that does not say otherwise."""

    stages: list[TransformSpec] | None = Field(None, description="`stages` of such a backup.")
    fan_out: list[Branch] | None = Field(None, description="`fan_out` of such a backup.")
    schedule: Cron | None = Field(None, description="`schedule` of such a backup.")
    notify: list[str] | None = Field(None, description="`notify` of such a backup.")
    buffer: ByteSize | None = Field(None, ge=1, description="`buffer` of such a backup.")
    stall_timeout: Duration | None = Field(None, description="`stall_timeout` of such a backup.")


class Pipeline(Spec):
    """pipeline.yaml."""

    name: Name = Field(description="Project; part of every event, metric and manifest.")
    host: str = Field(
        default_factory=socket.gethostname,
        min_length=1,
        description="Name of this machine there. Rotation removes only what this host wrote: "
        "set it where host names change, as in containers.",
    )
    include: list[str] = Field(
        default_factory=list, description="More files to merge; globs, relative to this file."
    )
    modules: list[str] = Field(
        default_factory=list,
        description="Python files that add sources, stages, storages and notifiers; relative to "
        "this file. Others must not be able to write them.",
        examples=[["/etc/nxs-backup/modules/etcd.py"]],
    )
    storages: dict[Name, StorageSpec] = Field(
        default_factory=dict,
        description="Where backups are kept; declared once, used by name.",
    )
    notifiers: dict[Name, NotifierSpec] = Field(
        default_factory=dict, description="Who is told; declared once, used by name."
    )
    defaults: Defaults = Field(
        default_factory=Defaults,
        description="Merged under every backup that does not say otherwise.",
    )
    backups: dict[Name, Backup] = Field(
        min_length=1, description="What is backed up, each under its name."
    )

    def backup(self, name: str) -> Backup:
        """The backup with `defaults` merged under what it does not say itself."""
        backup = self.backups[name]
        missing: dict[str, Any] = {
            field: value
            for field, value in self.defaults
            if value is not None and field not in backup.model_fields_set
        }
        return backup.model_copy(update=missing)
