"""A whole PostgreSQL server as a base backup, full or incremental."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.context import StageContext
from pipeline.stage import CHUNK, Artifact, Needed, Source
from schemas.postgres import PostgresPhysicalSource
from stages.sources._postgres.clients import needed
from stages.sources._postgres_physical import check
from stages.sources._postgres_physical.client import client_backup
from stages.sources._postgres_physical.look import describe, why_not_on
from stages.sources._postgres_physical.replication import BaseBackup

_EXTRACT = "tar -xp"
# Whether full or an increment: onto what is in `data` already.
_EXTRACT_SERIES = (
    "sh -c 'mkdir next && tar -xp -C next && if [ -d data ]; "
    "then pg_combinebackup data next -o both && rm -r data next && mv both data; "
    "else mv next data; fi'"
)


class PostgresPhysical(Source):
    """One artifact: data directory and tablespaces, with the WAL that makes them consistent.

    Args:
        backup: name of the backup and of its artifact.
    """

    def __init__(self, spec: PostgresPhysicalSource, backup: str = "postgres") -> None:
        self._spec = spec
        self._backup = backup
        self.memory = 8 * CHUNK + 3 * spec.manifest_size
        if spec.incremental:
            self.periods = (spec.incremental.full, *spec.incremental.levels)
            self.index_identity = spec.incremental.index_identity

    def artifacts(self) -> list[Artifact]:
        extract = _EXTRACT_SERIES if self.periods else _EXTRACT
        return [Artifact(self._backup, ".tar", extract=extract)]

    def stream(self, artifact: Artifact, context: StageContext) -> Iterator[bytes]:
        if self._spec.method == "client":
            yield from client_backup(self._spec, context)
        else:
            yield from BaseBackup(self._spec, context).chunks()

    def refuses(self, artifact: Artifact, index: Iterator[bytes]) -> str | None:
        return why_not_on(self._spec, b"".join(index))

    def programs(self) -> list[Needed]:
        folder = self._spec.programs
        found = [needed("pg_basebackup", folder)] if self._spec.method == "client" else []
        combine = needed("pg_combinebackup", folder, to_restore=True)
        return [*found, *([combine] if self.periods else [])]

    def probe(self) -> list[str]:
        return describe(self._spec)

    def restore(
        self, chunks: Iterator[bytes], artifact: Artifact, target: Path, overwrite: bool
    ) -> Sequence[str]:
        from stages.sources._postgres_physical.unpack import unpack

        return unpack(chunks, target, overwrite)

    def apply(self, chunks: Iterator[bytes], artifact: Artifact, target: Path) -> Sequence[str]:
        from stages.sources._postgres_physical.combine import combine

        return combine(self._spec, chunks, target)

    def examine(self, chunks: Iterator[bytes], context: StageContext) -> str:
        return check.examine(self._spec, chunks, context)


COMPONENT = PostgresPhysical
