"""What happens during a run, as values. The engine emits; the terminal, the logs and the notifiers
subscribe.

Event names are constants (noun, then past participle) with fields; they are stable, users build
alerts on them. Nothing here is a secret, and nothing is emitted for a chunk: byte counters come
batched in `Progressed`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Literal

from pipeline.redact import FREE_TEXT, Redactor

LEVELS = ("debug", "info", "warning", "error")
_LEVEL_OF_OUTCOME = {
    "partial": "warning",
    "locked": "warning",
    "failed": "error",
    "interrupted": "error",
}


@dataclass(frozen=True)
class Event:
    """Base of all events; `name` and `level` belong to the type."""

    name: ClassVar[str]
    level: ClassVar[str] = "info"

    def to_fields(self) -> dict[str, Any]:
        """The fields that have something to say."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return {key: value for key, value in found.items() if value is not None and value != ""}

    @property
    def severity(self) -> str:
        """The level of this event: that of its type, or of how something ended."""
        return _LEVEL_OF_OUTCOME.get(getattr(self, "outcome", ""), self.level)


@dataclass(frozen=True)
class RunStarted(Event):
    """The first event of a run."""

    name = "run started"
    run: str
    project: str
    host: str
    backups: tuple[str, ...]


@dataclass(frozen=True)
class BackupStarted(Event):
    """One of the backups of the run begins."""

    name = "backup started"
    backup: str


@dataclass(frozen=True)
class ArtifactStarted(Event):
    """An artifact begins to be read."""

    name = "artifact started"
    backup: str
    artifact: str
    storages: tuple[str, ...]


@dataclass(frozen=True)
class StageProgress:
    """One stage or branch, as a line of the live display shows it."""

    stage: str
    bytes: int
    """That a source has read, that came out of a transform, that a storage has taken."""
    fill: float | None = None
    """How full the channel before it is, 0 to 1; None where there is none."""
    kind: Literal["source", "transform", "storage"] = "transform"


@dataclass(frozen=True)
class Progressed(Event):
    """How far an artifact is; a log has it from time to time."""

    name = "progressed"
    level = "debug"
    backup: str
    artifact: str
    seconds: float
    stages: tuple[StageProgress, ...]
    """The source first, then the transforms before the fan-out, then the storages."""
    bottleneck: str | None = None
    total: int | None = None
    """Bytes that the source expects to read, where it knows."""


@dataclass(frozen=True)
class ItemsSkipped(Event):
    """A source could not read some of its items; the backup is partial."""

    name = "items skipped"
    level = "warning"
    backup: str
    artifact: str
    number: int
    items: tuple[str, ...]


@dataclass(frozen=True)
class SourceWarned(Event):
    """A source has something to say that does not change the outcome."""

    name = "source warned"
    level = "warning"
    backup: str
    artifact: str
    message: str


@dataclass(frozen=True)
class BranchFailed(Event):
    """A storage did not take an artifact; the other storages go on."""

    name = "branch failed"
    level = "error"
    backup: str
    artifact: str
    storage: str
    required: bool
    error: str


@dataclass(frozen=True)
class ArtifactCommitted(Event):
    """An artifact is on a storage, whole and under its name."""

    name = "artifact committed"
    backup: str
    artifact: str
    storage: str
    object: str
    size: int


@dataclass(frozen=True)
class ArtifactFailed(Event):
    """An artifact could not be backed up; nothing of it is visible anywhere."""

    name = "artifact failed"
    level = "error"
    backup: str
    artifact: str
    error: str


@dataclass(frozen=True)
class BackupRemoved(Event):
    """Rotation has removed an old backup."""

    name = "backup removed"
    backup: str
    storage: str
    object: str


@dataclass(frozen=True)
class LeftoverRemoved(Event):
    """What a dead run had left unfinished is gone."""

    name = "leftover removed"
    backup: str
    storage: str
    object: str


@dataclass(frozen=True)
class SweepFailed(Event):
    """A storage could not be cleared of what dead runs left; the next run tries again."""

    name = "sweep failed"
    level = "warning"
    backup: str
    storage: str
    error: str


@dataclass(frozen=True)
class BackupLocked(Event):
    """Another run of the same backup is under way."""

    name = "backup locked"
    level = "warning"
    backup: str
    error: str


@dataclass(frozen=True)
class RotationFailed(Event):
    """The backup is safe, but old ones were not removed; the backup is partial."""

    name = "rotation failed"
    level = "warning"
    backup: str
    storage: str
    error: str


@dataclass(frozen=True)
class BackupFailed(Event):
    """A backup could not be run at all."""

    name = "backup failed"
    level = "error"
    backup: str
    error: str


@dataclass(frozen=True)
class BackupRecovered(Event):
    """A backup ended well after it had failed; known where a notifier asks for `recovered`."""

    name = "backup recovered"
    backup: str
    failed_at: str


@dataclass(frozen=True)
class BackupFinished(Event):
    """A backup has ended, in whatever way; its level is that of the outcome."""

    name = "backup finished"
    backup: str
    outcome: str
    seconds: float


@dataclass(frozen=True)
class NotificationFailed(Event):
    """A notifier did not deliver something; never changes the outcome."""

    name = "notification failed"
    level = "warning"
    notifier: str
    error: str


@dataclass(frozen=True)
class ExportFailed(Event):
    """Metrics or traces of the run did not get where they belong; never changes the outcome."""

    name = "export failed"
    level = "warning"
    exporter: str
    error: str


@dataclass(frozen=True)
class NotificationTested(Event):
    """What `check --notify` sends: it only has to arrive."""

    name = "notification tested"
    project: str
    host: str


@dataclass(frozen=True)
class EventsOmitted(Event):
    """Stands for events that a notifier is not told one by one; only notifiers get it."""

    name = "events omitted"
    event: str
    number: int
    reason: str
    """`repeated`: the same again; `too many`: they were not told at all."""
    of_level: str
    backup: str = ""

    @property
    def severity(self) -> str:
        return self.of_level


@dataclass(frozen=True)
class LoggingFailed(Event):
    """A place that logs go to does not take them; told once, never changes the outcome."""

    name = "logging failed"
    level = "warning"
    target: str
    error: str


@dataclass(frozen=True)
class RunFinished(Event):
    """The last event of a run; its level is that of the outcome."""

    name = "run finished"
    run: str
    outcome: str
    seconds: float


FIELDS = {
    "run": "id of the run",
    "project": "`name` of the configuration",
    "host": "`host` of the configuration",
    "backups": "names of the backups of the run",
    "backup": "name of the backup",
    "artifact": "name of the artifact",
    "storage": "name of the storage",
    "storages": "names of the storages",
    "notifier": "name of the notifier",
    "exporter": "`metrics_file`, `pushgateway` or `traces`",
    "target": "`file`, `syslog` or `journald`",
    "object": "path on the storage, below its `path`",
    "size": "bytes, as stored",
    "seconds": "since the start of what it is about",
    "stages": "list of `{stage, kind, bytes, fill}`: how much was read, came out or was taken, and "
    "how full the channel before the stage is, from 0 to 1",
    "bottleneck": "the stage that everything waits for",
    "total": "bytes to read, where the source knows",
    "number": "how many",
    "items": "the first of them, each with its reason",
    "message": "text for people",
    "error": "text for people: what is wrong, then a hint",
    "failed_at": "end of the last run that failed, in UTC, in the form of our object names",
    "required": "whether the backup has failed without it",
    "outcome": "`ok`, `partial`, `locked`, `failed` or `interrupted`",
    "event": "the event that was left out",
    "reason": "`repeated`: the same again; `too many`: not told one by one",
    "of_level": "the level of what was left out",
}
"""The meaning of each field: the same in every event that has it."""


Subscriber = Callable[[Event], None]


class EventBus:
    """Hands every event to every subscriber, one event at a time, in the thread that emits it.

    A subscriber must be quick; one that may block puts a queue in between. Secrets are cut out
    here, before anyone sees an event.
    """

    def __init__(self, *subscribers: Subscriber, redactor: Redactor | None = None) -> None:
        self._subscribers = list(subscribers)
        self._lock = threading.Lock()
        self.redactor = redactor or Redactor()

    def subscribe(self, subscriber: Subscriber) -> None:
        self._subscribers.append(subscriber)

    def emit(self, event: Event) -> None:
        clean = self._redacted(event)
        with self._lock:
            for subscriber in tuple(self._subscribers):
                try:
                    subscriber(clean)
                except Exception:
                    # A log that cannot be written must not cost a backup; the report still tells.
                    self._subscribers.remove(subscriber)

    def _redacted(self, event: Event) -> Event:
        """Only free text: a name that happens to be a secret must still name its backup."""
        texts = {
            name: self.redactor.value(value)
            for name, value in vars(event).items()
            if name in FREE_TEXT
        }
        return replace(event, **texts) if texts else event
