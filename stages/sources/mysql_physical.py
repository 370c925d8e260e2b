"""A whole MySQL or MariaDB server, file by file, by mariadb-backup or xtrabackup."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.context import StageContext
from pipeline.errors import SourceError
from pipeline.stage import CHUNK, Artifact, Needed, Source
from schemas.mysql import MysqlPhysicalSource
from stages.sources._mysql.link import Link
from stages.sources._mysql.login import login
from stages.sources._mysql.probe import Rights
from stages.sources._mysql_physical import tool
from stages.sources._mysql_physical.xbstream import Xbstream

_IDLE = 60
_EXTRACT = "mbstream -x && mariadb-backup --prepare --target-dir=."
_EXTRACT_SERIES = (
    "(d=$(mktemp -d -p .) && mbstream -x -C $d && if [ -e ibdata1 ]; then "
    "mariadb-backup --prepare --target-dir=. --incremental-dir=$d && rm -r $d; else "
    "mv $d/* . && rmdir $d && mariadb-backup --prepare --target-dir=.; fi)"
)
"""Both a full copy, into an empty directory, and an increment onto it."""
_NEEDED = {
    True: ("RELOAD", "PROCESS", "LOCK TABLES", "BINLOG MONITOR"),
    False: ("RELOAD", "PROCESS", "LOCK TABLES", "REPLICATION CLIENT", "BACKUP_ADMIN"),
}


class MysqlPhysical(Source):
    """One artifact: the files of the server, with what of the log makes them consistent.

    Args:
        backup: name of the backup and of its artifact.
    """

    memory = 4 * CHUNK

    def __init__(self, spec: MysqlPhysicalSource, backup: str = "mysql") -> None:
        self._spec = spec
        self._backup = backup
        if spec.incremental:
            self.periods = (spec.incremental.full, *spec.incremental.levels)
            self.index_identity = spec.incremental.index_identity

    def artifacts(self) -> list[Artifact]:
        with self._looking() as link:
            extract = _EXTRACT_SERIES if self.periods else _EXTRACT
            if not link.is_mariadb:
                extract = extract.replace("mbstream", "xbstream")
                extract = extract.replace("mariadb-backup --prepare", "xtrabackup --prepare")
        return [Artifact(self._backup, ".xbstream", extract=extract)]

    def stream(self, artifact: Artifact, context: StageContext) -> Iterator[bytes]:
        context.teardown.check()
        base = None
        if context.increment is not None and context.increment.base is not None:
            base = tool.read_base(b"".join(context.increment.base()))
        with self._looking() as link:
            yield from tool.Copy(self._spec, link, context, base).chunks()

    def refuses(self, artifact: Artifact, index: Iterator[bytes]) -> str | None:
        base = tool.read_base(b"".join(index))
        with self._looking() as link:
            if base.server != tool.identity(link):
                return "the earlier copy is one of another server"
            if base.series != tool.series_of(link):
                return "the server has another version than at the time of the earlier copy"
            now = link.status("Innodb_lsn_current").get("Innodb_lsn_current")
        if now is not None and int(now) < base.to_lsn:
            return "the log of the server is behind the earlier copy: it was set back"
        return None

    def restore(
        self, chunks: Iterator[bytes], artifact: Artifact, target: Path, overwrite: bool
    ) -> Sequence[str]:
        from stages.sources._mysql_physical.unpack import unpack

        unpack(self._spec, chunks, target, overwrite)
        return []

    def apply(self, chunks: Iterator[bytes], artifact: Artifact, target: Path) -> Sequence[str]:
        from stages.sources._mysql_physical.unpack import apply

        apply(self._spec, chunks, target)
        return []

    def examine(self, chunks: Iterator[bytes], context: StageContext) -> str:
        stream = Xbstream(prove=True)
        for chunk in chunks:
            context.teardown.check()
            stream.feed(chunk)
        stream.finish()
        if not stream.is_understood:
            return "an xbstream with parts that cannot be checked here"
        return f"a whole xbstream of {stream.files} files"

    def programs(self) -> list[Needed]:
        return tool.needed(self._spec)

    def probe(self) -> list[str]:
        with self._looking() as link:
            name = "MariaDB" if link.is_mariadb else "MySQL"
            path = tool.program(self._spec, link.is_mariadb)
            return [
                f'"{link.login.address}" is {name} {link.version}',
                *link.login.warnings,
                f'"{path}" is {tool.version(path)}',
                self._rights(link),
                self._files(link),
            ]

    def _rights(self, link: Link) -> str:
        rights = Rights(link)
        missing = [name for name in _NEEDED[link.is_mariadb] if not rights.has(name)]
        if "BINLOG MONITOR" in missing and rights.has("REPLICATION CLIENT"):
            missing.remove("BINLOG MONITOR")  # Its name before MariaDB 10.5.
        if missing:
            raise SourceError(f"the privilege {' and '.join(missing)} on *.* is missing")
        return "the privileges for a copy are there"

    def _files(self, link: Link) -> str:
        """The program reads the files itself: this has to be the machine of the server."""
        datadir = self._spec.datadir or link.variables("datadir")["datadir"]
        try:
            os.listdir(datadir)
        except OSError as error:
            raise SourceError(
                f'the data of the server, "{datadir}", cannot be read: '
                f"{(error.strerror or '').lower()}",
                "run this on the machine of the server, as a user who may read its files",
            ) from None
        return f'the data of the server is in "{datadir}"'

    @contextlib.contextmanager
    def _looking(self) -> Iterator[Link]:
        link = Link(login(self._spec), _IDLE)
        try:
            yield link
        finally:
            link.close()


COMPONENT = MysqlPhysical
