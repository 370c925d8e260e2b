"""A base backup through pg_basebackup, whose archive is followed and checked as it passes by."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.context import StageContext
from schemas.postgres import PostgresPhysicalSource
from stages._child import Program
from stages.sources._postgres.address import connection_string, environment
from stages.sources._postgres.clients import find, output
from stages.sources._postgres.link import Link
from stages.sources._postgres_physical.check import checked

_FIRST_WITH_MANIFEST = 130000


def client_backup(spec: PostgresPhysicalSource, context: StageContext) -> Iterator[bytes]:
    """The archive that pg_basebackup writes.

    Raises:
        SourceError: it failed, or its archive is not what the manifest in it says.
    """
    with Link(spec, None, context.teardown) as link:
        version, shown = link.version, link.version_text
        system = link.rows("IDENTIFY_SYSTEM")[0][0]
    client = find("pg_basebackup", version, spec.programs, context)
    context.findings.server_version = shown
    context.findings.facts.update(system=system, label=spec.label, client=client.shown)
    has_manifest = version >= _FIRST_WITH_MANIFEST
    argv = [
        client.path,
        f"--dbname={connection_string(spec, None)}",
        "--no-password",
        "--pgdata=-",
        "--format=tar",
        f"--wal-method={'fetch' if spec.wal else 'none'}",
        f"--checkpoint={spec.checkpoint}",
        f"--label={spec.label}",
        *([f"--max-rate={spec.max_rate >> 10}k"] if spec.max_rate else []),
        *([f"--manifest-checksums={spec.manifest_checksums}"] if has_manifest else []),
        *(["--no-verify-checksums"] if spec.verify_checksums == "off" else []),
    ]
    program = Program(argv, env=environment(spec), silence=spec.idle_timeout)
    chunks = output(program, context)
    yield from checked(spec, chunks, context, has_manifest)
