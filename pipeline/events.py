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
from typing import Any, ClassVar

from pipeline.redact import FREE_TEXT, Redactor

LEVELS = ("debug", "info", "warning", "error")
_LEVEL_OF_OUTCOME = {"partial": "warning", "locked": "warning", "failed": "error"}


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
    name = "run started"
    run: str
    project: str
    host: str
    backups: tuple[str, ...]


@dataclass(frozen=True)
class BackupStarted(Event):
    name = "backup started"
    backup: str


@dataclass(frozen=True)
class ArtifactStarted(Event):
    name = "artifact started"
    backup: str
    artifact: str
    storages: tuple[str, ...]


@dataclass(frozen=True)
class StageProgress:
    """One stage or branch, as a line of the live display shows it."""

    stage: str
    bytes: int
    fill: float | None = None
    """How full the channel before it is, 0 to 1."""


@dataclass(frozen=True)
class Progressed(Event):
    name = "progressed"
    level = "debug"
    backup: str
    artifact: str
    seconds: float
    stages: tuple[StageProgress, ...]
    bottleneck: str | None = None


@dataclass(frozen=True)
class ItemsSkipped(Event):
    name = "items skipped"
    level = "warning"
    backup: str
    artifact: str
    number: int
    items: tuple[str, ...]


@dataclass(frozen=True)
class SourceWarned(Event):
    name = "source warned"
    level = "warning"
    backup: str
    artifact: str
    message: str


@dataclass(frozen=True)
class BranchFailed(Event):
    name = "branch failed"
    level = "error"
    backup: str
    artifact: str
    storage: str
    required: bool
    error: str


@dataclass(frozen=True)
class ArtifactCommitted(Event):
    name = "artifact committed"
    backup: str
    artifact: str
    storage: str
    object: str
    size: int


@dataclass(frozen=True)
class ArtifactFailed(Event):
    name = "artifact failed"
    level = "error"
    backup: str
    artifact: str
    error: str


@dataclass(frozen=True)
class BackupRemoved(Event):
    name = "backup removed"
    backup: str
    storage: str
    object: str


@dataclass(frozen=True)
class LeftoverRemoved(Event):
    name = "leftover removed"
    backup: str
    storage: str
    object: str


@dataclass(frozen=True)
class SweepFailed(Event):
    name = "sweep failed"
    level = "warning"
    backup: str
    storage: str
    error: str


@dataclass(frozen=True)
class BackupLocked(Event):
    name = "backup locked"
    level = "warning"
    backup: str
    error: str


@dataclass(frozen=True)
class RotationFailed(Event):
    name = "rotation failed"
    level = "warning"
    backup: str
    storage: str
    error: str


@dataclass(frozen=True)
class BackupFailed(Event):
    name = "backup failed"
    level = "error"
    backup: str
    error: str


@dataclass(frozen=True)
class BackupFinished(Event):
    name = "backup finished"
    backup: str
    outcome: str
    seconds: float


@dataclass(frozen=True)
class NotificationFailed(Event):
    name = "notification failed"
    level = "warning"
    notifier: str
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
class RunFinished(Event):
    name = "run finished"
    run: str
    outcome: str
    seconds: float


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
