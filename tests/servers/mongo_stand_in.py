"""Replies of a MongoDB server, written after the protocol, for what FerretDB does not have.

Views, time series, users, transactions and the oplog exist only in a real mongod, which cannot be
had here. It speaks OP_MSG, see https://www.mongodb.com/docs/manual/reference/mongodb-wire-protocol/.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from bson import Binary, Int64, decode, encode

from tests.servers.base import HOST

_REPLY = 1
_MSG, _QUERY = 2013, 2004
_BATCH = 3
"""Documents of a reply: few, so that cursors go on."""
Document = dict[str, Any]
Answer = Callable[[Document], Document | None]


@dataclass
class Kept:
    """A collection, view or time series."""

    documents: Sequence[Document] = ()
    kind: str = "collection"
    options: Document = field(default_factory=dict)
    indexes: Sequence[Document] = ({"v": 2, "key": {"_id": 1}, "name": "_id_"},)


class StandIn:
    """A server with this content, by database and collection.

    Args:
        answer: asked first; its reply, when it has one, is sent.
    """

    def __init__(
        self,
        content: dict[str, dict[str, Kept]],
        version: str = "7.0.14",
        replica_set: str = "",
        answer: Answer = lambda _: None,
    ) -> None:
        self.content = content
        self.version = version
        self.replica_set = replica_set
        self.answer = answer
        self.peers: list[StandIn] = []
        """Members of the replica set; the first one is the primary."""
        self.asked: list[Document] = []
        self._cursors: dict[int, tuple[str, list[bytes]]] = {}
        self._lock = threading.Lock()
        self._listener = socket.create_server((HOST, 0))
        self.port: int = self._listener.getsockname()[1]
        self._connections: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> StandIn:
        self._start(self._accept)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for one in (self._listener, *self._connections):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        for thread in list(self._threads):
            thread.join()

    def commands(self, name: str) -> list[Document]:
        """Those of a name that it was sent."""
        return [each for each in self.asked if next(iter(each)) == name]

    def _start(self, function: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=function, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._connections.append(connection)
                self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection.makefile("rb") as stream:
            while len(head := stream.read(16)) == 16:
                size, request, _, kind = struct.unpack("<iiii", head)
                body = stream.read(size - 16)
                connection.sendall(self._replied(request, kind, body))

    def _replied(self, request: int, kind: int, body: bytes) -> bytes:
        if kind == _QUERY:  # The first greeting of a driver.
            reply = encode(self.hello())
            head = struct.pack("<iiiiiqii", 36 + len(reply), 0, request, _REPLY, 8, 0, 0, 1)
            return head + reply
        assert kind == _MSG
        size = int.from_bytes(body[5:9], "little")
        command = decode(body[5 : 5 + size])
        with self._lock:
            self.asked.append(command)
            reply = encode(self.answer(command) or self._run(command))
        return struct.pack("<iiiiIB", 21 + len(reply), 0, request, _MSG, 0, 0) + reply

    def _run(self, command: Document) -> Document:
        name = next(iter(command))
        run = getattr(self, f"_{name.lower()}", None)
        if run is None:
            return {"ok": 1.0}
        reply: Document = run(command[name], command)
        return reply

    def hello(self, *_: object) -> Document:
        """What it says of itself."""
        members = [f"{HOST}:{each.port}" for each in self.peers]
        is_primary = not self.peers or self.peers[0] is self
        found = {
            "helloOk": True,
            "isWritablePrimary": is_primary,
            "ismaster": is_primary,
            "secondary": not is_primary,
            "maxBsonObjectSize": 16 << 20,
            "maxMessageSizeBytes": 48_000_000,
            "maxWriteBatchSize": 100_000,
            "logicalSessionTimeoutMinutes": 30,
            "minWireVersion": 0,
            "maxWireVersion": 21,
            "ok": 1.0,
        }
        if self.replica_set:
            members = members or [f"{HOST}:{self.port}"]
            me = f"{HOST}:{self.port}"
            found |= {"setName": self.replica_set, "hosts": members, "me": me}
            found |= {"primary": members[0], "setVersion": 1}
        return found

    _hello = _ismaster = hello

    def _buildinfo(self, *_: object) -> Document:
        return {"version": self.version, "ok": 1.0}

    def _listdatabases(self, *_: object) -> Document:
        return {"databases": [{"name": name} for name in self.content], "ok": 1.0}

    def _listcollections(self, _: object, command: Document) -> Document:
        database = command["$db"]
        infos = [
            {
                "name": name,
                "type": kept.kind,
                "options": kept.options,
                "info": {"uuid": Binary(name.encode().ljust(16, b"\0")[:16], 4)},
            }
            for name, kept in self.content.get(database, {}).items()
        ]
        return self._batch(f"{database}.$cmd.listCollections", infos, command)

    def _listindexes(self, name: str, command: Document) -> Document:
        kept = self.content[command["$db"]].get(name)
        if kept is None:
            return {"ok": 0.0, "code": 26, "errmsg": "ns does not exist"}
        return self._batch(f"{command['$db']}.{name}", kept.indexes, command)

    def _count(self, name: str, command: Document) -> Document:
        kept = self.content[command["$db"]].get(name, Kept())
        return {"n": len(kept.documents), "ok": 1.0}

    def _find(self, name: str, command: Document) -> Document:
        documents = list(self.content.get(command["$db"], {}).get(name, Kept()).documents)
        if command.get("sort", {}).get("$natural") == -1:
            documents.reverse()
        moments = command.get("filter", {}).get("ts")
        if moments:
            documents = [d for d in documents if moments["$gte"] <= d["ts"] <= moments["$lte"]]
        limit = command.get("limit") or len(documents)
        return self._batch(f"{command['$db']}.{name}", documents[:limit], command)

    def _batch(self, namespace: str, documents: Sequence[Document], command: Document) -> Document:
        one = bool(command.get("singleBatch"))
        cursor = 0 if one or len(documents) <= _BATCH else len(self._cursors) + 1
        rest = list(documents[_BATCH:])
        if cursor:
            self._cursors[cursor] = (namespace, [encode(each) for each in rest])
        found = {"firstBatch": list(documents[:_BATCH]), "id": Int64(cursor), "ns": namespace}
        return {"cursor": found, "ok": 1.0}

    def _getmore(self, cursor: int, command: Document) -> Document:
        namespace, rest = self._cursors[cursor]
        if namespace != f"{command['$db']}.{command['collection']}":
            return {"ok": 0.0, "code": 43, "errmsg": "cursor id not found"}
        batch = [decode(each) for each in rest[:_BATCH]]
        self._cursors[cursor] = (namespace, rest[_BATCH:])
        more = Int64(cursor if len(rest) > _BATCH else 0)
        return {"cursor": {"nextBatch": batch, "id": more, "ns": namespace}, "ok": 1.0}
