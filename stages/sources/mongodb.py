"""Databases of MongoDB, in the archive format of mongodump."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pipeline.context import StageContext
from pipeline.errors import SourceError
from pipeline.stage import CHUNK, Artifact, Needed, Source
from schemas.mongodb import MongodbSource
from stages._child import installed
from stages.sources._mongodb import catalog, programs
from stages.sources._mongodb.archive import LARGEST_DOCUMENT
from stages.sources._mongodb.catalog import Choice
from stages.sources._mongodb.dump import WINDOW, Dump, note
from stages.sources._mongodb.examine import examine
from stages.sources._mongodb.link import Link, linked
from stages.sources._mongodb.login import login_of_url
from stages.transforms._chunks import join_pieces

USERS = "users-and-roles"
"""The artifact of the users and roles of all databases."""
_OF_A_READER = 3 * LARGEST_DOCUMENT
"""Bytes of the largest reply: as it came, as a document, and as chunks."""


@dataclass(frozen=True)
class Target:
    """What an artifact is a dump of."""

    databases: tuple[str, ...]
    users: bool = False


class Mongodb(Source):
    """One archive for each database, or one for all.

    Args:
        backup: name of the backup; that of the artifact when there is a single one.
    """

    def __init__(self, spec: MongodbSource, backup: str = "mongodb") -> None:
        self._spec = spec
        self._backup = backup
        self.memory = spec.parallel * _OF_A_READER + WINDOW
        if spec.method == "client":
            self.memory = 3 * CHUNK

    def artifacts(self) -> list[Artifact]:
        with linked(self._spec, StageContext().teardown) as link:
            choice = Choice(self._spec)
            names = choice.databases(catalog.databases(link))
            if self._spec.query:
                choice.refuse_idle_queries(
                    [each for name in names for each in catalog.namespaces(link, name, choice)]
                )
        return [
            Artifact(name, ".archive", target=target, extract="mongorestore --archive")
            for name, target in self._targets(names).items()
        ]

    def _targets(self, names: Sequence[str]) -> dict[str, Target]:
        users = self._spec.users
        if self._spec.artifact == "single":
            return {self._backup: Target(tuple(names), users)}
        if users and USERS in names:
            raise SourceError(
                f'a database is called "{USERS}", as the artifact of the users is',
                "set `artifact: single`, or leave it out",
            )
        last = {USERS: Target((), True)} if users else {}
        return {name: Target((name,)) for name in names} | last

    def stream(self, artifact: Artifact, context: StageContext) -> Iterator[bytes]:
        target = artifact.target
        if not isinstance(target, Target):
            raise SourceError(f'"{artifact.name}" was not planned by this source')
        with linked(self._spec, context.teardown) as link:
            if self._spec.method == "client":
                note(link, context.findings)
                yield from programs.dumped(self._spec, link, target.databases, context)
            else:
                yield from self._native(link, target, context)

    def _native(self, link: Link, target: Target, context: StageContext) -> Iterator[bytes]:
        dump = Dump(self._spec, link, target.databases, target.users, context.findings)
        for chunk in join_pieces(dump.blocks()):
            context.teardown.check()
            yield chunk

    def load(
        self,
        chunks: Iterator[bytes],
        artifact: Artifact,
        url: str,
        overwrite: bool,
        context: StageContext,
    ) -> Sequence[str]:
        server, database = login_of_url(url, self._spec)
        if database is not None and artifact.name == USERS:
            raise SourceError("users belong to no database", "leave the name out of --to")
        programs.restored(server, database, chunks, overwrite, context)
        return []

    def examine(self, chunks: Iterator[bytes], context: StageContext) -> str:
        return examine(chunks, context.teardown)

    def programs(self) -> list[Needed]:
        package = "the package mongodb-database-tools of MongoDB"
        dump, restore = programs.DUMP, programs.RESTORE
        found = [Needed(dump, installed(dump), package)] if self._spec.method == "client" else []
        return [*found, Needed(restore, installed(restore), package, to_restore=True)]

    def probe(self) -> list[str]:
        from stages.sources._mongodb.probe import facts

        with linked(self._spec, StageContext().teardown) as link:
            return list(facts(link, self._spec))


COMPONENT = Mongodb
