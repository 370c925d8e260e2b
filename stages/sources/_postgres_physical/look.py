"""What has to be in place on a server for base backups, and for increments."""

from __future__ import annotations

from pipeline.context import StageContext, Teardown
from pipeline.errors import SourceError
from schemas.postgres import PostgresPhysicalSource
from stages.sources._postgres.clients import find
from stages.sources._postgres.link import Link
from stages.sources._postgres_physical.manifest import Origin, origin
from stages.sources._postgres_physical.replication import require_increments

_SETTINGS = ("wal_level", "max_wal_senders", "max_replication_slots", "data_checksums")
# Summaries must go back, without a gap, to where the earlier backup began; unless they have not
# come so far yet.
_SUMMARIES = """
SELECT summarized_lsn <= $1::pg_lsn OR (
    SELECT coalesce(min(start_lsn) <= $1::pg_lsn AND bool_and(is_next), false)
    FROM (
        SELECT start_lsn, coalesce(lag(end_lsn) OVER (ORDER BY start_lsn) = start_lsn, true)
            AS is_next
        FROM pg_available_wal_summaries() WHERE tli = $2::bigint AND end_lsn > $1::pg_lsn
    ) AS since
) FROM pg_get_wal_summarizer_state()
"""


def describe(spec: PostgresPhysicalSource) -> list[str]:
    """Facts, one line each.

    Raises:
        SourceError: a base backup would fail.
    """
    with Link(spec, None, Teardown()) as link:
        system, timeline, position, _ = link.rows("IDENTIFY_SYSTEM")[0]
        settings = {name: link.rows(f"SHOW {name}")[0][0] for name in _SETTINGS}
        encrypted = "TLS" if link.encrypted else "not encrypted"
        facts = [
            f"PostgreSQL {link.version_text}, {encrypted}, replication is permitted",
            f"system {system}, timeline {timeline}, at {position}",
            ", ".join(f"{name} = {value}" for name, value in settings.items()),
        ]
        _judge(spec, settings)
        if spec.incremental:
            require_increments(link)
            facts.append("summarize_wal = on: increments are possible")
        if spec.wal and spec.slot:
            # Two connections and a slot is what a backup takes: have them for a moment.
            with Link(spec, None, Teardown()) as second:
                second.rows("CREATE_REPLICATION_SLOT nxs_backup_check TEMPORARY PHYSICAL")
        version = link.version
    if spec.method == "client":
        client = find("pg_basebackup", version, spec.programs, StageContext())
        facts.append(f'{client.shown} is "{client.path}"')
    return facts


def _judge(spec: PostgresPhysicalSource, settings: dict[str, str]) -> None:
    if spec.wal and settings["wal_level"] == "minimal":
        raise SourceError("wal_level is minimal", "set `wal_level = replica` and restart")
    if spec.wal and spec.slot and settings["max_replication_slots"] == "0":
        raise SourceError(
            "max_replication_slots is 0", "raise it on the server, or set `slot: false`"
        )


def why_not_on(spec: PostgresPhysicalSource, manifest: bytes) -> str | None:
    """Why no increment can be built on the backup with this manifest; None when one can."""
    then = origin(manifest)
    with Link(spec, None, Teardown()) as link:
        require_increments(link)
        system = link.rows("IDENTIFY_SYSTEM")[0][0]
    if then.system != system:
        return "the earlier backup is of another server"
    return _why_no_summaries(spec, then)


def _why_no_summaries(spec: PostgresPhysicalSource, then: Origin) -> str | None:
    try:
        with Link(spec, spec.database, Teardown()) as link:
            reach = link.rows(_SUMMARIES, [then.start, then.timeline])
    except SourceError as error:
        return f"the server does not tell which WAL summaries it has: {error.message}"
    if reach != [("t",)]:
        return "the server has no WAL summaries that reach back to the earlier backup"
    return None
