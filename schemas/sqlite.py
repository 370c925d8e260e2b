"""Source sqlite: database files that programs may be using."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from schemas.base import AbsolutePath, Duration, Spec


class SqliteSource(Spec):
    """SQLite databases, as they are at one moment, also while programs write to them."""

    type: Literal["sqlite"]
    paths: list[AbsolutePath] = Field(
        min_length=1,
        description="Absolute paths of databases, one artifact each; globs are expanded when the "
        "backup runs.",
        examples=[["/var/lib/grafana/grafana.db", "/srv/apps/*/data.sqlite3"]],
    )
    verify: Literal["quick", "full", "off"] = Field(
        "quick",
        description="How a database is checked before it is read: `quick` looks at its structure, "
        "`full` at its indexes too and takes longer. A damaged one fails the backup.",
    )
    busy_timeout: Duration = Field(
        "30s",
        validate_default=True,
        description="Wait so long for a program that holds a lock on the database.",
    )
