"""What a server has, and what of it the configuration chooses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from bson.json_util import CANONICAL_JSON_OPTIONS, dumps, loads
from pymongo.errors import OperationFailure

from pipeline.errors import SourceError
from schemas.mongodb import MongodbSource
from stages.sources._mongodb import archive
from stages.sources._mongodb.link import Link

_OF_THE_SERVER = ("admin", "config", "local")
_LOCAL = "local"
_INTERNAL = "__mdb_internal"
_ACCOUNTS = ("system.version", "system.users", "system.roles")
"""In the order in which mongorestore wants them."""
_CONFIG = ("chunks", "collections", "databases", "settings", "shards", "tags", "version")
"""What of `config` can be restored."""
_BUCKETS = "system.buckets."
_RAW_SINCE = (8, 3)
"""Version from which on the documents of a time series have no collection of their own."""
_MISSING = 26


@dataclass(frozen=True)
class Namespace:
    """A collection, a view or a time series, as it was when the dump began."""

    database: str
    name: str
    kind: str = ""
    info: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def shown(self) -> str:
        """What messages call it."""
        return f'"{self.database}.{self.name}"'

    @property
    def is_view(self) -> bool:
        return self.kind == "view"

    def stored(self, link: Link) -> str:
        """The collection that its documents are in."""
        buckets = self.kind == "timeseries" and link.version_numbers < _RAW_SINCE
        return _BUCKETS + self.name if buckets else self.name

    def find(self, link: Link, query: Mapping[str, Any] | None) -> dict[str, Any]:
        """The command that reads it."""
        command: dict[str, Any] = {"find": self.stored(link), "filter": query or {}}
        if not query:
            command["hint"] = {"$natural": 1}
        if self.kind == "timeseries" and link.version_numbers >= _RAW_SINCE:
            command["rawData"] = True
        return command

    def described(self, link: Link) -> dict[str, Any] | None:
        """What goes to the front of the archive; None when it has been dropped meanwhile."""
        indexes = [] if self.is_view else _indexes(link, self)
        if indexes is None:
            return None
        metadata: dict[str, Any] = {}
        if self.info.get("options"):
            metadata["options"] = self.info["options"]
        metadata["indexes"] = indexes
        uuid = self.info.get("info", {}).get("uuid")
        if uuid is not None:
            metadata["uuid"] = bytes(uuid).hex()
        metadata["collectionName"] = self.name
        if self.kind:
            metadata["type"] = self.kind
        text = dumps(
            metadata,
            json_options=CANONICAL_JSON_OPTIONS,
            ensure_ascii=False,
            separators=(",", ":"),
        )
        return archive.described(self.database, self.name, text, self.kind)


class Choice:
    """What the configuration chooses."""

    def __init__(self, spec: MongodbSource) -> None:
        self._spec = spec
        self._queries = {name: loads(text) for name, text in spec.query.items()}

    def databases(self, existing: Sequence[str]) -> list[str]:
        """The chosen ones, sorted.

        Raises:
            SourceError: one that is named does not exist, or there is none.
        """
        spec = self._spec
        if spec.databases == "all":
            found = {name for name in existing if name not in _OF_THE_SERVER}
        else:
            found = set()
            for pattern in spec.databases:
                matching = {n for n in existing if n == pattern or fnmatchcase(n, pattern)}
                if not matching:
                    raise SourceError(
                        f'there is no database "{pattern}", or it may not be seen',
                        "see what listDatabases tells this user",
                    )
                found |= matching
        found = {
            name
            for name in found - {_LOCAL}
            if not name.startswith(_INTERNAL) and not _matches(spec.exclude, name)
        }
        if not found:
            raise SourceError("there is no database to dump", "check `databases` and `exclude`")
        return sorted(found)

    def takes(self, database: str, name: str) -> bool:
        """Whether a collection or view is dumped."""
        spec = self._spec
        if spec.collections and not _takes(spec.collections, database, name):
            return False
        return not _takes(spec.exclude_collections, database, name)

    def query(self, namespace: Namespace) -> Mapping[str, Any] | None:
        found: Mapping[str, Any] | None = self._queries.get(
            f"{namespace.database}.{namespace.name}"
        )
        return found

    def refuse_idle_queries(self, namespaces: Sequence[Namespace]) -> None:
        """One that is for nothing would leave in what should be left out.

        Raises:
            SourceError: there is one.
        """
        known = {f"{each.database}.{each.name}" for each in namespaces if not each.is_view}
        for name in self._queries:
            if name not in known:
                raise SourceError(
                    f'there is no collection "{name}" among those to be dumped',
                    "see `query`, which names it",
                )


def databases(link: Link) -> list[str]:
    """All that the user may see."""
    found = link.ask("admin", {"listDatabases": 1, "nameOnly": True})["databases"]
    return [str(each["name"]) for each in found]


def namespaces(link: Link, database: str, choice: Choice) -> Iterator[Namespace]:
    """The chosen ones of a database."""
    for info in sorted(
        link.documents(database, {"listCollections": 1}), key=lambda each: str(each["name"])
    ):
        name = str(info["name"])
        if not _is_hidden(database, name) and choice.takes(database, name):
            yield Namespace(database, name, str(info.get("type", "")), info)


def accounts(link: Link) -> list[Namespace]:
    """The collections of users and roles."""
    there = {str(each["name"]): each for each in link.documents("admin", {"listCollections": 1})}
    return [
        Namespace("admin", name, str(there[name].get("type", "")), there[name])
        for name in _ACCOUNTS
        if name in there
    ]


def _indexes(link: Link, namespace: Namespace) -> list[dict[str, Any]] | None:
    try:
        return list(link.documents(namespace.database, {"listIndexes": namespace.name}))
    except OperationFailure as error:
        if error.code == _MISSING:
            return None
        raise


def _is_hidden(database: str, name: str) -> bool:
    """Whether it is the server's own; see `shouldSkipSystemNamespace` of mongodump."""
    if database == "config":
        return name not in _CONFIG
    return "$" in name or (name.startswith("system.") and name != "system.js")


def _matches(patterns: Sequence[str], name: str) -> bool:
    return any(name == pattern or fnmatchcase(name, pattern) for pattern in patterns)


def _takes(patterns: Sequence[str], database: str, name: str) -> bool:
    return any(
        _matches([pattern], f"{database}.{name}") if "." in pattern else _matches([pattern], name)
        for pattern in patterns
    )
