"""The root of the configuration: the file as a whole, its backups and their branches."""

from __future__ import annotations

import re
import socket
from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator

from schemas.base import ByteSize, Duration, Spec, in_schema
from schemas.log import LogSpec
from schemas.metrics import Metrics, Traces
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
    _refuse_never(expression)
    return expression


def _refuse_never(expression: str) -> None:
    field = _wrong_field(expression)
    if field == "day of month":
        minute, hour, day, _, weekday = expression.split()
        if _wrong_field(f"{minute} {hour} {day} * {weekday}") is None:
            raise ValueError("never fires; its months have no such day, as with 30 February")
    if field is not None:
        raise ValueError(
            f"the {field} of the cron expression is wrong; a range goes from low to high"
        )


def _wrong_field(expression: str) -> str | None:
    from cronsim import CronSim, CronSimError  # only a file with a schedule has to wait for it

    try:
        CronSim(expression, datetime(2000, 1, 1))
    except CronSimError as error:
        return str(error).removeprefix("Bad ").replace("-", " ")
    return None


Cron = Annotated[str, AfterValidator(_cron), in_schema(r"^\s*(\S+\s+){4}\S+\s*$")]
"""When to run: minute, hour, day of month, month, day of week."""

Name = Annotated[str, AfterValidator(_plain_name), in_schema(f"^{_NAME.pattern}$")]
"""A name that becomes part of a path on every storage."""


def _below(path: str) -> str:
    if "\0" in path or any(not part or part.startswith(".") for part in path.split("/")):
        raise ValueError(
            "must be a directory below the storage, whose parts are not empty nor begin with a dot"
        )
    return path


RelativePath = Annotated[str, AfterValidator(_below), in_schema(r"^[^/.][^/]*(/[^/.][^/]*)*$")]
"""A directory below the path of a storage."""


class Branch(Spec):
    """One storage that receives the stream."""

    suggested: ClassVar[tuple[str, ...]] = ("rotate",)

    storage: str = Field(description="Name of an entry of `storages`.", examples=["nas"])
    stages: list[TransformSpec] = Field(
        default_factory=list, description="Transforms of this branch only."
    )
    rotate: RetentionPolicy | None = Field(
        None, description="What to keep there; without it nothing is ever removed."
    )
    legacy: Literal["nxs-v3"] | None = Field(
        None,
        description="Also list what nxs-backup v3 left on this storage for the same source, and "
        "let it age out by `rotate`; see docs/migration.md.",
        examples=["nxs-v3"],
    )
    legacy_directory: RelativePath | None = Field(
        None,
        description="Where v3 put it: the name of its source, of the job for one of the type "
        "external; default: the name of the backup.",
        examples=["prod_data"],
    )
    required: bool = Field(
        True, description="False: when this branch fails the backup is partial, not failed."
    )

    @model_validator(mode="after")
    def _directory_of_something(self) -> Branch:
        if self.legacy_directory is not None and self.legacy is None:
            raise ValueError("legacy_directory has no use without legacy; set it to nxs-v3")
        return self


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
    notify: list[str] = Field(
        default_factory=list, description="Names of entries of `notifiers`.", examples=[["ops"]]
    )
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
    expected_size: ByteSize | None = Field(
        None,
        ge=1,
        description="The largest object that is expected, as it is stored: `check` and `plan` say "
        "which storage does not take it. Default: the largest of the copies there are, where the "
        "storages are asked (`check --connect`, `plan`).",
        examples=["200GiB"],
    )


class Defaults(Spec):
    """What a backup takes that does not say otherwise."""

    stages: list[TransformSpec] | None = Field(
        None, description="Transforms of a backup that names none, in this order."
    )
    fan_out: list[Branch] | None = Field(
        None, description="Storages of a backup that names none; each receives the same stream."
    )
    schedule: Cron | None = Field(
        None,
        description="Cron expression for a backup that has none, used by `serve`.",
        examples=["15 3 * * *"],
    )
    notify: list[str] | None = Field(
        None,
        description="Who is told of a backup that names nobody: entries of `notifiers`.",
        examples=[["ops"]],
    )
    buffer: ByteSize | None = Field(
        None,
        ge=1,
        description="How far the slowest storage may lag behind before the source has to wait; "
        "default: 64MiB.",
        examples=["64MiB"],
    )
    stall_timeout: Duration | None = Field(
        None,
        description="A storage that accepts nothing for this long has failed; default: 10m.",
        examples=["10m"],
    )


class Pipeline(Spec):
    """pipeline.yaml."""

    name: Name = Field(
        description="Project; part of every event, metric and manifest.", examples=["shop"]
    )
    host: str = Field(
        default_factory=socket.gethostname,
        min_length=1,
        description="Name of this machine there. Rotation removes only what this host wrote: "
        "set it where host names change, as in containers.",
        examples=["web-1"],
    )
    include: list[str] = Field(
        default_factory=list,
        description="More files to merge; globs, relative to this file.",
        examples=[["conf.d/*.yaml"]],
    )
    modules: list[str] = Field(
        default_factory=list,
        description="Python files that add sources, stages, storages and notifiers; relative to "
        "this file. Others must not be able to write them.",
        examples=[["/etc/nxs-backup/modules/etcd.py"]],
    )
    log: LogSpec | None = Field(
        None, description="Where the events of a run are logged besides stderr."
    )
    storages: dict[Name, StorageSpec] = Field(
        default_factory=dict,
        description="Where backups are kept; declared once, used by name.",
        examples=[{"nas": {"type": "local", "path": "/mnt/nas"}}],
    )
    notifiers: dict[Name, NotifierSpec] = Field(
        default_factory=dict,
        description="Who is told; declared once, used by name.",
        examples=[{"ops": {"type": "teams", "url": "https://prod.example.net/workflows/0"}}],
    )
    metrics: Metrics | None = Field(
        None, description="Where the metrics of a run go when it has ended."
    )
    traces: Traces | None = Field(
        None, description="Where the trace of a run goes when it has ended."
    )
    defaults: Defaults = Field(
        default_factory=Defaults,
        description="Merged under every backup that does not say otherwise.",
    )
    backups: dict[Name, Backup] = Field(
        min_length=1,
        description="What is backed up, each under its name.",
        examples=[
            {
                "etc": {
                    "source": {"type": "files", "paths": ["/etc"]},
                    "fan_out": [{"storage": "nas"}],
                }
            }
        ],
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
