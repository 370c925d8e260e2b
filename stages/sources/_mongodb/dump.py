"""One archive: what is to be read, how, and in which order."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator, Sequence

from bson import decode

from pipeline.context import Findings
from pipeline.errors import SourceError
from pipeline.stage import CHUNK
from schemas.mongodb import MongodbSource
from stages.sources._mongodb import archive, catalog
from stages.sources._mongodb.catalog import Choice, Namespace
from stages.sources._mongodb.link import CODEC, Link, Reader
from stages.sources._mongodb.oplog import OPLOG, Oplog, refuse_unrestorable
from stages.sources._mongodb.pool import Pool

WINDOW = 8 * CHUNK
"""Bytes that all readers together may be ahead of the stream."""


class Dump:
    """One artifact.

    Args:
        databases: those that are part of it.
        with_users: users and roles are part of it.
    """

    def __init__(
        self,
        spec: MongodbSource,
        link: Link,
        databases: Sequence[str],
        with_users: bool,
        findings: Findings,
    ) -> None:
        self._spec = spec
        self._link = link
        self._databases = databases
        self._with_users = with_users
        self._findings = findings
        self._choice = Choice(spec)
        self._read: dict[Namespace, int] = {}
        """Documents, when all were read."""

    def blocks(self) -> Generator[bytes, None, None]:
        """The whole archive.

        Raises:
            SourceError: it is not complete.
        """
        link = self._link
        oplog = Oplog(link) if self._spec.oplog else None
        accounts = catalog.accounts(link) if self._with_users else []
        if self._with_users and not accounts:
            raise SourceError(f'"{link.name}" has no users in "admin", or they may not be seen')
        ordinary = [
            each
            for name in self._databases
            for each in catalog.namespaces(link, name, self._choice)
        ]
        if not ordinary and not accounts:
            raise SourceError(
                "there is no collection to dump", "check `collections` and `exclude_collections`"
            )
        described = {each: each.described(link) for each in [*accounts, *ordinary]}
        metadata = [found for found in described.values() if found is not None]
        if oplog:
            metadata.append(archive.described(OPLOG.database, OPLOG.name, "", OPLOG.kind))
        yield archive.prelude(max(4, self._spec.parallel), link.version, metadata)
        with link.reader() as reader:
            # Before all others: only then does mongorestore take them for what they are.
            for account in accounts:
                yield from self._documents(account, reader)
        yield from self._collections([each for each in ordinary if described[each] is not None])
        if oplog:
            yield from self._changes(oplog)
        self._tell(oplog)

    def _collections(self, namespaces: list[Namespace]) -> Iterator[bytes]:
        link, parallel = self._link, min(self._spec.parallel, len(namespaces))
        with contextlib.ExitStack() as stack:
            readers = [stack.enter_context(link.reader()) for _ in range(parallel)]
            if parallel < 2:
                for namespace in namespaces:
                    yield from self._documents(namespace, readers[0])
                return
            # The largest first, so that they do not end up being read alone.
            jobs = sorted(namespaces, key=self._size, reverse=True)
            pool = Pool(jobs, readers, self._documents, Reader.stay, link.interrupt, WINDOW)
            yield from pool.blocks()

    def _size(self, namespace: Namespace) -> int:
        """Documents, as the server estimates them."""
        if namespace.is_view:
            return 0
        found = self._link.ask(namespace.database, {"count": namespace.stored(self._link)})
        return int(found["n"])

    def _documents(self, namespace: Namespace, reader: Reader) -> Iterator[bytes]:
        """The blocks of a namespace; of a view, which has none, the last one."""
        blocks = archive.Blocks(namespace.database, namespace.stored(self._link))
        count = 0
        if not namespace.is_view:
            command = namespace.find(self._link, self._choice.query(namespace))
            for batch in reader.batches(namespace.database, command):
                count += len(batch.documents)
                yield from map(blocks.block, _portions(batch.documents))
        yield blocks.last()
        self._read[namespace] = count

    def _changes(self, oplog: Oplog) -> Iterator[bytes]:
        """Last of all: when they come, mongorestore knows that the collections are complete."""
        blocks = archive.Blocks(OPLOG.database, OPLOG.name)
        count = 0
        with self._link.reader() as reader:
            for batch in reader.batches("local", oplog.finish()):
                for document in batch.documents:
                    refuse_unrestorable(decode(document, CODEC))
                count += len(batch.documents)
                yield from map(blocks.block, _portions(batch.documents))
        oplog.prove()
        yield blocks.last()
        self._findings.count("oplog_entries", count)

    def _tell(self, oplog: Oplog | None) -> None:
        """What who restores it has to know."""
        findings, link = self._findings, self._link
        note(link, findings)
        findings.count("databases", len(self._databases))
        findings.count("views", sum(each.is_view for each in self._read))
        findings.count("collections", sum(not each.is_view for each in self._read))
        findings.count("documents", sum(self._read.values()))
        if oplog:
            for name, moment in (("oplog_start", oplog.start), ("oplog_end", oplog.end)):
                findings.facts[name] = f"{moment.time}:{moment.inc}"


def note(link: Link, findings: Findings) -> None:
    """Note which server was read."""
    findings.server_version = link.version
    findings.facts["member"] = link.name
    if link.replica_set is not None:
        findings.facts["replica_set"] = link.replica_set
    if link.is_router:
        findings.warn(
            "a sharded cluster is read shard by shard: what is written meanwhile may be in the "
            "dump in part; stop the balancer and the writers for a dump of one moment"
        )


def _portions(documents: list[memoryview]) -> Iterator[list[memoryview]]:
    """Of about 1 MiB each."""
    start, size = 0, 0
    for number, document in enumerate(documents):
        size += len(document)
        if size >= CHUNK:
            yield documents[start : number + 1]
            start, size = number + 1, 0
    if start < len(documents):
        yield documents[start:]
