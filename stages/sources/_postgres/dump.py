"""pg_dump and pg_dumpall as streams that end only when they are complete."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.context import StageContext
from pipeline.errors import SourceError
from schemas.postgres import PostgresSource
from stages._child import Program
from stages.sources._postgres.address import connection_string, environment
from stages.sources._postgres.clients import Client, output

MAGIC = b"PGDMP"
"""What the custom format begins with."""
DUMP_END = b"-- PostgreSQL database dump complete"
CLUSTER_END = b"-- PostgreSQL database cluster dump complete"
_TAIL = 512


def dump(
    spec: PostgresSource, database: str, client: Client, context: StageContext
) -> Iterator[bytes]:
    """One database through pg_dump.

    Raises:
        SourceError: pg_dump failed, or what it wrote is not whole.
    """
    chosen = [f"--schema={pattern}" for pattern in spec.schemas]
    chosen += [f"--table={pattern}" for pattern in spec.tables]
    chosen += [f"--exclude-table={pattern}" for pattern in spec.exclude_tables]
    argv = [
        client.path,
        f"--dbname={connection_string(spec, database)}",
        "--no-password",
        f"--format={spec.format}",
        # Stages compress better, and on more than one core.
        "--compress=0",
        f"--lock-wait-timeout={int(spec.lock_wait * 1000)}",
        *chosen,
        *spec.extra_args,
    ]
    program = Program(argv, env=environment(spec), silence=spec.silence)
    chunks = output(program, context)
    if spec.format == "custom":
        return beginning_with(MAGIC, chunks, "a dump in the custom format")
    return ending_with(DUMP_END, chunks, "a dump as SQL")


def dump_globals(spec: PostgresSource, client: Client, context: StageContext) -> Iterator[bytes]:
    """Roles and tablespaces through pg_dumpall.

    Raises:
        SourceError: pg_dumpall failed, or what it wrote is not whole.
    """
    argv = [
        client.path,
        f"--dbname={connection_string(spec, spec.database)}",
        f"--database={spec.database}",
        "--no-password",
        "--globals-only",
        *([] if spec.role_passwords else ["--no-role-passwords"]),
    ]
    program = Program(argv, env=environment(spec), silence=spec.silence)
    chunks = output(program, context)
    return ending_with(CLUSTER_END, chunks, "a dump of roles and tablespaces")


def beginning_with(magic: bytes, chunks: Iterator[bytes], what: str) -> Iterator[bytes]:
    """Pass a stream on that has to begin like this.

    Raises:
        SourceError: it does not.
    """
    begun = b""
    for chunk in chunks:
        if len(begun) < len(magic):
            begun = (begun + chunk)[: len(magic)]
            if not magic.startswith(begun):
                raise SourceError(f"this is not {what}")
        yield chunk
    if begun != magic:
        raise SourceError(f"this is not {what}")


def ending_with(mark: bytes, chunks: Iterator[bytes], what: str) -> Iterator[bytes]:
    """Pass a stream on that has to have this near its end.

    Raises:
        SourceError: it does not: it was cut off.
    """
    tail = b""
    for chunk in chunks:
        tail = (tail + chunk[-_TAIL:])[-_TAIL:]
        yield chunk
    if mark not in tail:
        raise SourceError(f"{what} lacks its end mark", "it was cut off")
