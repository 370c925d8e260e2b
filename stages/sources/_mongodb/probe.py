"""What a run depends on, without reading what is to be dumped."""

from __future__ import annotations

from collections.abc import Iterator

from schemas.mongodb import MongodbSource
from stages.sources._mongodb import catalog, programs
from stages.sources._mongodb.catalog import Choice, Namespace
from stages.sources._mongodb.link import Link
from stages.sources._mongodb.oplog import Oplog


def facts(link: Link, spec: MongodbSource) -> Iterator[str]:
    """One line each.

    Raises:
        SourceError: a run would fail.
    """
    if spec.method == "client":
        yield f"the client is {programs.version(programs.DUMP)}"
    yield f'"{link.name}": {_kind(link)} {link.version}, {_role(link)}'
    yield from _warnings(link, spec)
    choice = Choice(spec)
    names = choice.databases(catalog.databases(link))
    found = [each for name in names for each in catalog.namespaces(link, name, choice)]
    choice.refuse_idle_queries(found)
    if spec.users:
        found += catalog.accounts(link)
    for namespace in found:
        _try_reading(link, namespace)
    yield f"{len(found)} collections of {len(names)} databases can be read"
    if spec.oplog:
        yield f"the oplog goes back {_window(link)} hours; a dump must take less time"


def _kind(link: Link) -> str:
    return "FerretDB for MongoDB" if "ferretdb" in link.build else "MongoDB"


def _role(link: Link) -> str:
    if link.is_router:
        return "router of a sharded cluster"
    if link.replica_set is None:
        return "a server of its own"
    is_primary = link.hello.get("isWritablePrimary")
    return f'{"primary" if is_primary else "secondary"} of replica set "{link.replica_set}"'


def _warnings(link: Link, spec: MongodbSource) -> Iterator[str]:
    if link.is_router:
        yield "warning: a sharded cluster has no dump of one moment while others write"
    elif link.replica_set is not None and not spec.oplog:
        yield "a dump shows no single moment while others write; see `oplog`"
    elif link.replica_set is None:
        yield "a dump shows no single moment while others write"
    if link.replica_set is not None and link.hello.get("isWritablePrimary"):
        yield "the primary is read, which serves the applications too"


def _try_reading(link: Link, namespace: Namespace) -> None:
    if namespace.is_view:
        return
    command = {**namespace.find(link, None), "limit": 1, "singleBatch": True}
    for _ in link.documents(namespace.database, {**command, "projection": {"_id": 1}}):
        return


def _window(link: Link) -> int:
    oplog = Oplog(link)
    return max(0, oplog.start.time - oplog.oldest().time) // 3600
