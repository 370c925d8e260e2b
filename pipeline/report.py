"""What a run came to, and what that means for the exit code."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any, Literal

from pipeline.naming import format_stamp
from pipeline.redact import Redactor


class Outcome(str, Enum):
    """How something ended, from best to worst."""

    OK = "ok"
    PARTIAL = "partial"
    LOCKED = "locked"
    FAILED = "failed"
    INTERRUPTED = "interrupted"

    @property
    def exit_code(self) -> int:
        return _EXIT_CODES[self]


_EXIT_CODES = {
    Outcome.OK: 0,
    Outcome.FAILED: 1,
    Outcome.PARTIAL: 3,
    Outcome.LOCKED: 11,
    Outcome.INTERRUPTED: 130,
}
_RESULTS = {"ok": "success", "partial": "partial", "locked": "locked"}
_LEVELS = {Outcome.OK: "info", Outcome.PARTIAL: "warning", Outcome.LOCKED: "warning"}
_RANK = list(Outcome)


def result_of(outcome: str) -> str:
    """An outcome as a user writes it in `on`: `success`, `partial`, `locked` or `failure`."""
    return _RESULTS.get(outcome, "failure")


def worst(outcomes: Iterable[Outcome]) -> Outcome:
    """The worst of several outcomes; OK when there is none."""
    return max(outcomes, key=_RANK.index, default=Outcome.OK)


@dataclass
class StageReport:
    """What one stage of an artifact did, and what it waited for.

    A source and a transform count what they produced, a storage what it was given to store.
    """

    name: str
    kind: Literal["source", "transform", "storage"]
    storage: str | None = None
    """The branch it belongs to; None before the fan-out."""
    outcome: Outcome = Outcome.INTERRUPTED
    """FAILED only where the failure is its own."""
    bytes: int = 0
    seconds: float = 0.0
    """From the start of the artifact until this stage had ended."""
    waited_for_input: float = 0.0
    """Seconds: the stages before it were slower. Of a chain, the first transform has this."""
    waited_for_output: float = 0.0
    """Seconds: the stages after it were slower. Of a chain, the last transform has this."""


@dataclass
class BranchReport:
    """One artifact on one storage."""

    storage: str
    required: bool
    outcome: Outcome = Outcome.FAILED
    object: str | None = None
    stored_size: int | None = None
    error: str | None = None
    held_up: float = 0.0
    """Seconds that the stages before the fan-out have waited for this one."""


@dataclass
class ArtifactReport:
    """One artifact on all its storages."""

    name: str
    outcome: Outcome = Outcome.FAILED
    error: str | None = None
    plain_size: int = 0
    started: datetime | None = None
    """In UTC; None when it did not get that far."""
    seconds: float = 0.0
    counts: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    skipped_total: int = 0
    branches: list[BranchReport] = field(default_factory=list)
    stages: list[StageReport] = field(default_factory=list)
    """In the order of the stream: the source first, the branches one after the other."""

    def conclude(self) -> None:
        """Derive the outcome when the stream itself ended well.

        One branch that was allowed to fail makes it partial; a required one, or all of them,
        failed.
        """
        failed = [branch for branch in self.branches if branch.outcome is not Outcome.OK]
        if any(branch.required for branch in failed) or len(failed) == len(self.branches):
            self.outcome = Outcome.FAILED
        elif failed or self.skipped_total:
            self.outcome = Outcome.PARTIAL
        else:
            self.outcome = Outcome.OK


@dataclass
class BackupReport:
    """One backup of the configuration."""

    name: str
    outcome: Outcome = Outcome.FAILED
    error: str | None = None
    started: datetime | None = None
    """In UTC; None when it did not get that far."""
    seconds: float = 0.0
    memory_ceiling: int = 0
    artifacts: list[ArtifactReport] = field(default_factory=list)
    recovered: datetime | None = None
    """When the run before this success failed, in UTC; None also when no notifier asks for that."""
    removed: list[str] = field(default_factory=list)
    """Old backups that rotation removed, as `storage:object`."""
    cleared: list[str] = field(default_factory=list)
    """What dead runs had left behind, as `storage:object`."""
    problems: list[str] = field(default_factory=list)
    """What went wrong after the data was safe, such as a failed rotation."""

    def conclude(self) -> None:
        self.outcome = worst(artifact.outcome for artifact in self.artifacts)
        if not self.artifacts:
            self.outcome, self.error = Outcome.FAILED, "nothing was backed up"
        if self.problems and self.outcome is Outcome.OK:
            self.outcome = Outcome.PARTIAL


@dataclass
class RunReport:
    """A run of the program."""

    run: str
    project: str
    host: str
    started: datetime
    seconds: float = 0.0
    interrupted: bool = False
    backups: list[BackupReport] = field(default_factory=list)
    notifications: list[str] = field(default_factory=list)
    """Messages that were not delivered; they never change the outcome."""
    redactor: Redactor = field(default_factory=Redactor, repr=False)
    """Cuts secrets out of everything this report is turned into."""

    @property
    def outcome(self) -> Outcome:
        found = worst(backup.outcome for backup in self.backups)
        return Outcome.INTERRUPTED if self.interrupted else found

    @property
    def results(self) -> list[str]:
        """The same as a user writes it in `on`; what says most comes first."""
        found = ["recovered"] if any(backup.recovered for backup in self.backups) else []
        result = result_of(self.outcome.value)
        return [*found, result] if result == "success" else [result, *found]

    @property
    def level(self) -> str:
        """How bad that is, as the level of an event."""
        return _LEVELS.get(self.outcome, "error")

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; what `run --json` prints and a webhook receives."""
        document = {
            "run": self.run,
            "project": self.project,
            "host": self.host,
            "started": _plain(self.started),
            "seconds": round(self.seconds, 3),
            "outcome": self.outcome.value,
            "exit_code": self.outcome.exit_code,
            "backups": [_plain(backup) for backup in self.backups],
            "notifications_failed": list(self.notifications),
        }
        clean: dict[str, Any] = self.redactor.document(document)
        return clean

    def summary(self) -> str:
        """The whole run in a few calm lines."""
        mark = "[recovered]" if self.results[0] == "recovered" else _MARKS[self.outcome]
        head = f"{mark} {self.project} on {self.host}: {self.outcome.value}"
        lines = [f"{head}, {format_seconds(self.seconds)}, started {format_stamp(self.started)}"]
        for backup in self.backups:
            lines.extend(_backup_lines(backup))
        lines.extend(f"not told: {line}" for line in self.notifications)
        return self.redactor.text("\n".join(lines))


_MARKS = {
    Outcome.OK: "[ok]",
    Outcome.PARTIAL: "[partial]",
    Outcome.LOCKED: "[locked]",
    Outcome.FAILED: "[FAILED]",
    Outcome.INTERRUPTED: "[interrupted]",
}


def _plain(value: Any) -> Any:
    """Dataclasses, enums and lists as JSON values."""
    if isinstance(value, Outcome):
        return value.value
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%dT%H:%M:%SZ")
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if hasattr(value, "__dataclass_fields__"):
        return {key: _plain(getattr(value, key)) for key in value.__dataclass_fields__}
    return round(value, 3) if isinstance(value, float) else value


def _backup_lines(backup: BackupReport) -> Iterable[str]:
    yield f"{_MARKS[backup.outcome]} {backup.name}: {backup.outcome.value}"
    if backup.error:
        yield f"    error: {backup.error}"
    if backup.recovered:
        yield f"    recovered: the last failure was at {format_stamp(backup.recovered)}"
    for artifact in backup.artifacts:
        yield from _artifact_lines(artifact)
    for problem in backup.problems:
        yield f"    problem: {problem}"
    if backup.removed:
        yield f"    rotation removed {len(backup.removed)} old"
    if backup.cleared:
        yield f"    cleared {len(backup.cleared)} left by dead runs"


def _artifact_lines(artifact: ArtifactReport) -> Iterable[str]:
    yield (
        f"  {artifact.name}: {artifact.outcome.value}, {format_size(artifact.plain_size)} read "
        f"in {format_seconds(artifact.seconds)}"
    )
    if artifact.error:
        yield f"    error: {artifact.error}"
    if artifact.skipped_total:
        yield f"    {artifact.skipped_total} not read, first: {artifact.skipped[0]}"
    for branch in artifact.branches:
        yield f"    {_branch_line(branch)}"


def _branch_line(branch: BranchReport) -> str:
    if branch.outcome is Outcome.OK:
        return f"{branch.storage}: {format_size(branch.stored_size or 0)} stored"
    optional = "" if branch.required else " (optional)"
    return f"{branch.storage}{optional}: {branch.outcome.value}: {branch.error or 'not stored'}"


def format_size(size: float) -> str:
    """`3.4 MiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def format_seconds(seconds: float) -> str:
    """`0.4 s`, `3 m 20 s`, `2 h 5 m`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes} m {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} m"
