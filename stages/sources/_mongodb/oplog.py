"""The changes that are made during a dump, so that it can be brought to the moment of its end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bson import Timestamp

from pipeline.errors import SourceError
from stages.sources._mongodb.catalog import Namespace
from stages.sources._mongodb.link import Link

OPLOG = Namespace("", "oplog")
"""What the changes are called in an archive."""
_COLLECTION = "oplog.rs"


class Oplog:
    """The part of the oplog from the start of a dump to its end.

    Raises:
        SourceError: there is none.
    """

    def __init__(self, link: Link) -> None:
        if link.replica_set is None:
            raise SourceError(
                f'"{link.name}" is no member of a replica set, and has no oplog',
                "leave `oplog` out; a sharded cluster has one for each shard",
            )
        self._link = link
        self.start = self._oldest_transaction() or self._moment(-1)
        self.end = self.start

    def finish(self) -> dict[str, Any]:
        """The command that reads the changes, to be called when everything else was read."""
        self.end = self._moment(-1)
        self.prove()
        return {
            "find": _COLLECTION,
            "filter": {"ts": {"$gte": self.start, "$lte": self.end}},
        }

    def prove(self) -> None:
        """Nothing of it may have been overwritten; call it again when it was read.

        Raises:
            SourceError: it was.
        """
        if self.oldest() > self.start:
            raise SourceError(
                "the oplog has turned over during the dump",
                "enlarge it (replSetResizeOplog), or dump at a quieter time",
            )

    def oldest(self) -> Timestamp:
        """The moment of the oldest change that is left."""
        return self._moment(1)

    def _moment(self, order: int) -> Timestamp:
        command = {
            "find": _COLLECTION,
            "sort": {"$natural": order},
            "limit": 1,
            "singleBatch": True,
        }
        for entry in self._link.documents("local", command):
            found: Timestamp = entry["ts"]
            return found
        raise SourceError("the oplog is empty", "is the replica set initiated")

    def _oldest_transaction(self) -> Timestamp | None:
        """A transaction that is under way has changes that are older than the last entry."""
        command = {
            "find": "transactions",
            "filter": {"state": {"$in": ["prepared", "inProgress"]}},
            "sort": {"startOpTime": 1},
            "limit": 1,
            "singleBatch": True,
        }
        for entry in self._link.documents("config", command):
            found: Timestamp = entry["startOpTime"]["ts"]
            return found
        return None


def refuse_unrestorable(entry: Mapping[str, Any]) -> None:
    """See `oplogDocumentValidator` of mongodump.

    Raises:
        SourceError: mongorestore cannot replay this entry.
    """
    change, namespace = entry.get("o") or {}, str(entry.get("ns", ""))
    why = None
    if namespace == "admin.system.version":
        why = "the version of the accounts was changed"
    elif namespace.startswith("config.") and "create" in change:
        why = "a collection was resharded" if "eshardingOperations" in change["create"] else None
    for command, what in _COMMANDS.items():
        if command in change:
            why = what
    if why:
        raise SourceError(f"{why} during the dump, which cannot be replayed", "dump again")


_COMMANDS = {
    "renameCollection": "a collection was renamed",
    "importCollection": "a collection was imported",
    "upgradeDowngradeViewlessTimeseries": "time series were converted",
}
