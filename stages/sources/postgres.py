"""Databases of a PostgreSQL server, through pg_dump or as an export of tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from pipeline.context import StageContext, Teardown
from pipeline.errors import SourceError
from pipeline.stage import CHUNK, Artifact, Needed, Source
from schemas.postgres import PostgresSource
from stages.sources._postgres import examine as _examine
from stages.sources._postgres.clients import Client, find, needed
from stages.sources._postgres.copy import BUFFER, export
from stages.sources._postgres.dump import dump, dump_globals
from stages.sources._postgres.link import Link
from stages.sources._postgres.look import databases as all_databases
from stages.sources._postgres.look import describe_server, may_read_passwords

_GLOBALS = "globals"
_SUFFIXES = {"custom": ".dump", "plain": ".sql", "copy": ".tar"}
_EXTRACT = {
    "custom": "pg_restore --create --dbname=postgres",
    "plain": "psql --dbname=DATABASE",
    "copy": "tar -x",
}


@dataclass(frozen=True)
class _Target:
    """What an artifact is made of."""

    database: str | None
    """None: what belongs to no database."""
    client: Client | None
    server_version: str


class Postgres(Source):
    """One artifact for each database, and one for roles and tablespaces.

    Args:
        backup: name of the backup.
    """

    first = (_GLOBALS,)  # databases belong to roles

    def __init__(self, spec: PostgresSource, backup: str = "postgres") -> None:
        self._spec = spec
        self.memory = (BUFFER if spec.format == "copy" else 0) + 4 * CHUNK

    def artifacts(self) -> list[Artifact]:
        spec, context = self._spec, StageContext()
        with Link(spec, spec.database, context.teardown) as link:
            names = self._chosen(all_databases(link))
            self._refuse_globals(names, link)
            version, shown = link.version, link.version_text
        client = None
        if spec.format != "copy":
            client = find("pg_dump", version, spec.programs, context)
        planned = [self._artifact(name, client, shown) for name in names]
        if spec.globals:
            dumpall = find("pg_dumpall", version, spec.programs, context)
            target = _Target(None, dumpall, shown)
            extract = "psql --dbname=postgres"
            planned.insert(0, Artifact(_GLOBALS, ".sql", target, extract=extract))
        return planned

    def stream(self, artifact: Artifact, context: StageContext) -> Iterator[bytes]:
        target = artifact.target
        if not isinstance(target, _Target):
            raise SourceError(f'"{artifact.name}" was not planned by this source')
        context.findings.server_version = target.server_version
        if target.client is not None:
            context.findings.facts["client"] = target.client.shown
        if target.database is None:
            assert target.client is not None
            yield from dump_globals(self._spec, target.client, context)
        elif target.client is None:
            yield from export(self._spec, target.database, context)
        else:
            yield from dump(self._spec, target.database, target.client, context)

    def programs(self) -> list[Needed]:
        spec = self._spec
        names = [] if spec.format == "copy" else ["pg_dump"]
        names += ["pg_dumpall"] if spec.globals else []
        found = [needed(name, spec.programs) for name in names]
        restores = {"custom": ["pg_restore"], "plain": ["psql"], "copy": []}[spec.format]
        restores += ["psql"] if spec.globals and spec.format != "plain" else []
        return found + [needed(name, spec.programs, to_restore=True) for name in restores]

    def probe(self) -> list[str]:
        spec = self._spec
        with Link(spec, spec.database, Teardown()) as link:
            facts = describe_server(link)
            if spec.globals and not spec.role_passwords:
                facts.append("passwords of roles are left out")
        planned = self.artifacts()
        names = ", ".join(artifact.name for artifact in planned if artifact.name != _GLOBALS)
        facts.append(f"databases: {names}")
        clients = {
            artifact.target.client
            for artifact in planned
            if isinstance(artifact.target, _Target) and artifact.target.client
        }
        return facts + sorted(f'{client.shown} is "{client.path}"' for client in clients)

    def load(
        self,
        chunks: Iterator[bytes],
        artifact: Artifact,
        url: str,
        overwrite: bool,
        context: StageContext,
    ) -> Sequence[str]:
        from stages.sources._postgres.load import load

        return load(self._spec, chunks, artifact, url, overwrite, context)

    def examine(self, chunks: Iterator[bytes], context: StageContext) -> str:
        return _examine.examine(chunks, context)

    def _artifact(self, name: str, client: Client | None, shown: str) -> Artifact:
        kind = self._spec.format
        return Artifact(name, _SUFFIXES[kind], _Target(name, client, shown), extract=_EXTRACT[kind])

    def _chosen(self, existing: list[str]) -> list[str]:
        spec = self._spec
        wanted = existing if spec.databases == "all" else list(dict.fromkeys(spec.databases))
        missing = [name for name in wanted if name not in existing]
        if missing:
            raise SourceError(
                f'there is no database "{missing[0]}", or it takes no connections',
                f"there are: {', '.join(existing)}",
            )
        left = [name for name in wanted if not any(fnmatchcase(name, p) for p in spec.exclude)]
        if not left:
            raise SourceError("no database is left", "see `databases` and `exclude`")
        return left

    def _refuse_globals(self, names: list[str], link: Link) -> None:
        spec = self._spec
        if not spec.globals:
            return
        if _GLOBALS in names:
            raise SourceError(
                f'a database is called "{_GLOBALS}", like the artifact for roles and tablespaces',
                "put it into a backup of its own with `globals: false`",
            )
        if spec.role_passwords and not may_read_passwords(link):
            raise SourceError(
                f'"{spec.user}" may not read the passwords of roles',
                "set `role_passwords: false`, or `globals: false`, or use a superuser",
            )


COMPONENT = Postgres
