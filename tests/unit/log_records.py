"""Events of every sort, as logs are given them."""

from __future__ import annotations

from datetime import datetime, timezone

from pipeline.events import ArtifactCommitted, Event, ItemsSkipped, Progressed, StageProgress
from pipeline.logs import Record

NOON = datetime(2026, 11, 23, 12, 0, 0, 250_000, timezone.utc)
COMMITTED = ArtifactCommitted("db", "crm", "nas", "db/crm/crm_x.sql", 3 << 20)
SKIPPED = ItemsSkipped("db", "crm", 2, ("/a: gone", "/b: gone"))
PROGRESS = Progressed(
    "db",
    "crm",
    10.0,
    (
        StageProgress("redis", 400 << 20, kind="source"),
        StageProgress("zstd", 80 << 20, 0.5),
        StageProgress("nas", 60 << 20, 0.25, "storage"),
        StageProgress("offsite", 50 << 20, 1.0, "storage"),
    ),
    "offsite",
    1000 << 20,
)
ESCAPE = "/\x1b]0;owned\x07\n2026-11-23 12:00:00 [info] all is well \u202e\udcff"


def record(event: Event, run: str = "r1") -> Record:
    return Record(event, NOON, run)
