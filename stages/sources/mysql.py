"""Databases of MySQL and MariaDB as SQL."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pipeline.context import StageContext
from pipeline.errors import SourceError
from pipeline.stage import CHUNK, Artifact, Needed, Source
from schemas.mysql import MysqlSource
from stages.sources._mysql import catalog, client, script
from stages.sources._mysql.catalog import Choice
from stages.sources._mysql.dump import WINDOW, Dump
from stages.sources._mysql.link import Link
from stages.sources._mysql.login import Login, login, login_of_url
from stages.sources._mysql.session import Session

USERS = "users-and-grants"
"""The artifact of the accounts."""
_TAIL = 4096
_OF_A_LINK = 6 * CHUNK
"""Bytes that reading over one connection takes: a buffer, a block, a row that is larger."""


@dataclass(frozen=True)
class Target:
    """What an artifact is a dump of."""

    databases: tuple[str, ...]
    users: bool = False


class Mysql(Source):
    """One dump for each database, or one for all, of the same moment.

    Args:
        backup: name of the backup; that of the artifact when there is a single one.
    """

    last = (USERS,)  # grants may be about tables

    def __init__(self, spec: MysqlSource, backup: str = "mysql") -> None:
        self._spec = spec
        self._backup = backup
        self._session: Session | None = None
        self._planned: tuple[str, ...] = ()
        self._pending: set[str] = set()
        """Artifacts of the plan that were not streamed yet: they share the session."""
        ahead = WINDOW * spec.parallel if spec.parallel > 1 else 0
        self.memory = ahead + spec.parallel * (_OF_A_LINK + 3 * spec.insert_size)

    def artifacts(self) -> list[Artifact]:
        with self._looking() as link:
            names = Choice(self._spec).databases(catalog.databases(link))
            extract = _extract(link)
        targets = self._targets(names)
        self._planned = tuple(names)
        self._pending = set(targets)
        return [
            Artifact(name, ".sql", target=target, min_size=64, extract=extract)
            for name, target in targets.items()
        ]

    def _targets(self, names: Sequence[str]) -> dict[str, Target]:
        users = self._spec.users
        if self._spec.artifact == "single":
            return {self._backup: Target(tuple(names), users)}
        if users and USERS in names:
            raise SourceError(
                f'a database is called "{USERS}", as the artifact of the accounts is',
                "set `artifact: single`, or leave it out",
            )
        accounts = {USERS: Target((), True)} if users else {}
        return {name: Target((name,)) for name in names} | accounts

    def stream(self, artifact: Artifact, context: StageContext) -> Iterator[bytes]:
        target = artifact.target
        if not isinstance(target, Target):
            raise SourceError(f'"{artifact.name}" was not planned by this source')
        context.teardown.check()
        if self._spec.method == "client":
            with self._looking() as link:
                yield from client.stream(link, self._spec, target.databases, context)
            return
        session = self._shared(context)
        ended = False
        try:
            with context.teardown.calling(session.interrupt):
                dump = Dump(self._spec, session, target.databases, target.users, context)
                yield from dump.chunks()
            ended = True
        except SourceError:
            context.teardown.check()
            raise
        finally:
            self._pending.discard(artifact.name)
            if not ended or not self._pending:
                self._session = None
                session.close()

    def _shared(self, context: StageContext) -> Session:
        """The session of this run, opened for its first artifact."""
        if self._session is None:
            session = Session(self._spec, self._login())
            session.open(self._planned, context.teardown)
            self._session = session
        return self._session

    def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.close()

    def load(
        self,
        chunks: Iterator[bytes],
        artifact: Artifact,
        url: str,
        overwrite: bool,
        context: StageContext,
    ) -> Sequence[str]:
        from stages.sources._mysql.load import load

        target, database = login_of_url(url, self._spec)
        if database is not None and artifact.name == USERS:
            raise SourceError("accounts belong to no database", "leave the name out of --to")
        return load(target, database, chunks, overwrite, context)

    def examine(self, chunks: Iterator[bytes], context: StageContext) -> str:
        size, end = 0, b""
        for chunk in chunks:
            context.teardown.check()
            size += chunk.count(b"\n")
            end = (end + chunk[-_TAIL:])[-_TAIL:]
        if script.END.encode() not in end and not self._spec.extra_args:
            raise SourceError("the dump does not end with the line that a whole one has")
        return f"a whole dump of {size} lines"

    def programs(self) -> list[Needed]:
        return [client.needed(self._spec)] if self._spec.method == "client" else []

    def probe(self) -> list[str]:
        from stages.sources._mysql.probe import facts

        with self._looking() as link:
            return facts(link, self._spec)

    def _login(self) -> Login:
        return login(self._spec)

    @contextlib.contextmanager
    def _looking(self) -> Iterator[Link]:
        """A connection for looking around."""
        link = Link(self._login(), self._spec.idle_timeout, self._spec.lock_wait)
        try:
            yield link
        finally:
            link.close()


COMPONENT = Mysql


def _extract(link: Link) -> str:
    program = "mariadb" if link.is_mariadb else "mysql"
    return f"{program} --default-character-set=utf8mb4 --binary-mode --comments"
