"""Reports of runs as the engine makes them, for whatever is made of them."""

from __future__ import annotations

from datetime import datetime, timezone

from pipeline.report import (
    ArtifactReport,
    BackupReport,
    BranchReport,
    Outcome,
    RunReport,
    StageReport,
)

STARTED = datetime(2026, 11, 23, 3, 15, tzinfo=timezone.utc)


def branch_report(storage: str, outcome: Outcome = Outcome.OK) -> BranchReport:
    if outcome is Outcome.OK:
        return BranchReport(storage, True, outcome, f"db/{storage}.sql", 500, None, held_up=1.5)
    return BranchReport(storage, True, outcome, error="the disk is full")


def artifact_report(
    name: str, *branches: BranchReport, outcome: Outcome = Outcome.OK
) -> ArtifactReport:
    stages = [
        StageReport("mysql", "source", None, outcome, 1000, 8.0, 0.0, 2.25),
        StageReport("zstd", "transform", None, outcome, 500, 8.5, 0.5, 1.5),
    ]
    for branch in branches:
        where = branch.storage
        stages += [
            StageReport("throttle", "transform", where, branch.outcome, 500, 9.0, 0.75, 0.0),
            StageReport(where, "storage", where, branch.outcome, 500, 9.5, 0.0, 0.0),
        ]
    return ArtifactReport(
        name,
        outcome,
        plain_size=1000,
        started=STARTED,
        seconds=10.0,
        counts={"tables": 3},
        branches=list(branches),
        stages=stages,
    )


def backup_report(
    name: str, *artifacts: ArtifactReport, outcome: Outcome = Outcome.OK, error: str | None = None
) -> BackupReport:
    return BackupReport(
        name, outcome, error, STARTED, seconds=20.5, memory_ceiling=1 << 20, artifacts=[*artifacts]
    )


def run_report(*backups: BackupReport, project: str = "shop", host: str = "web") -> RunReport:
    return RunReport("0123456789abcdef", project, host, STARTED, 30.0, backups=[*backups])


def good_backup(name: str = "db") -> BackupReport:
    """One artifact on two storages."""
    return backup_report(name, artifact_report("crm", branch_report("nas"), branch_report("s3")))


def failed_backup(name: str = "db", error: str = "no such host") -> BackupReport:
    """It did not get as far as its artifacts."""
    return backup_report(name, outcome=Outcome.FAILED, error=error)
