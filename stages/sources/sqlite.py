"""SQLite databases, page by page, while programs write to them.

Neither the online backup API nor `VACUUM INTO` can write to a stream: they need a second database,
on disk or whole in memory. So the pages of one read transaction are taken from the files, see
`_sqlite.snapshot`. In WAL mode nobody waits for that. In rollback mode writers would wait for the
end of the upload: a database of up to 16 MiB is therefore read at once and its lock given back
before the first chunk leaves; with a larger one, use WAL mode when writers must not wait.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator

from pipeline.context import StageContext
from pipeline.errors import SourceError
from pipeline.stage import CHUNK, Artifact, Source
from schemas.sqlite import SqliteSource
from stages.sources._sqlite.snapshot import Snapshot, opened

_SMALL = 16 * CHUNK
_MAGIC = b"SQLite format 3\0"
_HEADER = 100


class Sqlite(Source):
    """One artifact for each database file.

    Args:
        backup: name of the backup; not used, artifacts are named after their paths.
    """

    memory = _SMALL + 3 * CHUNK

    def __init__(self, spec: SqliteSource, backup: str = "sqlite") -> None:
        self._spec = spec

    def artifacts(self) -> list[Artifact]:
        named: dict[str, str] = {}
        for path in self._paths():
            name = path.strip("/").replace("/", "-")
            if named.setdefault(name, path) != path:
                raise SourceError(
                    f'"{named[name]}" and "{path}" would both be called "{name}"',
                    "put them into separate backups",
                )
        return [
            Artifact(name, "", target=os.path.realpath(path), min_size=_HEADER)
            for name, path in named.items()
        ]

    def stream(self, artifact: Artifact, context: StageContext) -> Iterator[bytes]:
        path = artifact.target
        if not isinstance(path, str):
            raise SourceError(f'"{artifact.name}" was not planned by this source')
        context.teardown.check()
        with opened(path, self._spec.busy_timeout, context) as snapshot:
            self._check(path, snapshot)
            self._note(snapshot, context)
            context.expected = snapshot.size
            chunks = snapshot.chunks()
            if snapshot.journal_mode == "wal" or snapshot.size > _SMALL:
                for chunk in chunks:
                    context.teardown.check()
                    yield chunk
                return
            held = list(chunks)
        for chunk in held:
            context.teardown.check()
            yield chunk

    def probe(self) -> list[str]:
        facts = []
        for path in self._paths():
            with opened(path, self._spec.busy_timeout, StageContext()) as snapshot:
                pages = f"{snapshot.page_count} pages of {snapshot.page_size} bytes"
                facts.append(f'"{path}": {pages}, journal mode {snapshot.journal_mode}')
        return facts

    def examine(self, chunks: Iterator[bytes], context: StageContext) -> str:
        head, size = b"", 0
        for chunk in chunks:
            context.teardown.check()
            head += chunk[: _HEADER - len(head)]
            size += len(chunk)
        page_size = int.from_bytes(head[16:18], "big")
        page_size = 65536 if page_size == 1 else page_size
        if head[:16] != _MAGIC or not page_size or size % page_size:
            raise SourceError("the stream is not a whole SQLite database")
        return f"a database of {size // page_size} pages"

    def _paths(self) -> list[str]:
        found: set[str] = set()
        for pattern in self._spec.paths:
            matches = [pattern] if os.path.lexists(pattern) else glob.glob(pattern, recursive=True)
            files = {os.path.normpath(match) for match in matches if os.path.isfile(match)}
            if not files:
                raise SourceError(f'no database matches "{pattern}"')
            found |= {path for path in files if not path.endswith(("-wal", "-shm", "-journal"))}
        return sorted(found)

    def _check(self, path: str, snapshot: Snapshot) -> None:
        pragmas = {"quick": "quick_check", "full": "integrity_check"}
        if self._spec.verify == "off":
            return
        query = f"PRAGMA {pragmas[self._spec.verify]}(1)"
        (found,) = snapshot.connection.execute(query).fetchone()
        if found != "ok":
            raise SourceError(f'"{path}" is damaged: {" ".join(found.split())}')

    def _note(self, snapshot: Snapshot, context: StageContext) -> None:
        findings = context.findings
        tables = "SELECT count(*) FROM sqlite_master WHERE type = 'table'"
        findings.count("tables", snapshot.connection.execute(tables).fetchone()[0])
        findings.count("pages", snapshot.page_count)
        findings.facts["journal"] = "log" if snapshot.journal_mode == "wal" else "rollback"


COMPONENT = Sqlite
