"""A connection to one server, through PyMongo; replies stay as they come."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pymongo
from bson import SON, CodecOptions, Int64, decode
from bson.codec_options import DatetimeConversion
from bson.raw_bson import RawBSONDocument
from pymongo.client_session import ClientSession
from pymongo.errors import PyMongoError, ServerSelectionTimeoutError
from pymongo.read_preferences import (
    Nearest,
    Secondary,
    SecondaryPreferred,
    _ServerMode,
    make_read_preference,
)

from pipeline.context import Teardown
from pipeline.errors import SourceError
from schemas.mongodb import MongodbSource
from stages.sources._mongodb.errors import translated
from stages.sources._mongodb.login import address, connection_string
from stages.sources._mongodb.reply import Batch, parse

CODEC: CodecOptions[Any] = CodecOptions(
    document_class=SON, datetime_conversion=DatetimeConversion.DATETIME_MS
)
"""Keeps the order of keys, and dates that Python does not know."""
_RAW = CodecOptions(document_class=RawBSONDocument)
_BATCH = 4 << 20
"""Bytes of a reply to ask for; the server sends at most 16 MiB."""
_FIRST = 1000
_REFRESH = 300.0
"""Seconds after which a session that waits is kept alive; the server ends it after 30 minutes."""
_LASTING = (5, 0)
"""Version from which on a cursor lives as long as its session does."""
_HELLO = {"hello": 1}
_PATIENCE = 3.0
"""Seconds in which a secondary must answer to be preferred."""
_FAREWELL = 3.0
"""Seconds that the server has to take note of our leaving."""


class _Pin:
    """Has the driver stay with the server that it chose first, once it is set."""

    def __init__(self) -> None:
        self.is_set = False
        self.address: tuple[str, int | None] | None = None

    def __call__(self, servers: list[Any]) -> list[Any]:
        if not self.is_set:
            return servers
        if self.address is None and servers:
            self.address = min(servers, key=lambda server: server.round_trip_time or 0).address
        return [server for server in servers if server.address == self.address]


class Reader:
    """Runs commands that return cursors, all in one session; made by `Link.reader`."""

    def __init__(self, link: Link, session: ClientSession | None) -> None:
        self._link = link
        self._session = session
        self._used = time.monotonic()

    def batches(self, database: str, command: Mapping[str, Any]) -> Iterator[Batch]:
        """What a cursor returns."""
        first: dict[str, Any] = {}
        if "find" in command:
            first["batchSize"] = _FIRST
            if self._session and self._link.version_numbers < _LASTING:
                first["noCursorTimeout"] = True
        batch = self._ask(database, {**command, **first})
        size = _BATCH
        while True:
            yield batch
            if not batch.cursor:
                return
            if batch.documents:
                mean = sum(map(len, batch.documents)) / len(batch.documents)
                size = max(1, int(_BATCH / mean))
            more = {"getMore": Int64(batch.cursor), "collection": batch.collection}
            batch = self._ask(database, {**more, "batchSize": size})

    def stay(self) -> None:
        """Keep the session alive while nobody wants what was read."""
        if self._session is not None and time.monotonic() - self._used > _REFRESH:
            self._used = time.monotonic()
            self._link.ask("admin", {"refreshSessions": [self._session.session_id]})

    def _ask(self, database: str, command: Mapping[str, Any]) -> Batch:
        self._used = time.monotonic()
        return parse(self._link.raw(database, command, self._session))


class Link:
    """A client of one server; made by `linked`."""

    def __init__(self, client: Any, wanted: _ServerMode, pin: _Pin, teardown: Teardown) -> None:
        self._client = client
        self._wanted = wanted
        self._pin = pin
        self._teardown = teardown
        self.hello = self._choose()
        self.build = self.ask("admin", {"buildInfo": 1})
        if not self.is_router:
            # Whatever becomes of it in an election, it has the data.
            self._wanted = Nearest()

    @property
    def name(self) -> str:
        """Address of the server that was chosen."""
        host, port = self._pin.address or min(self._client.nodes)
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    @property
    def version(self) -> str:
        return str(self.build["version"])

    @property
    def version_numbers(self) -> tuple[int, int]:
        major, minor, *_ = self.version.split(".")
        return int(major), int(minor)

    @property
    def is_router(self) -> bool:
        """Whether it is the mongos of a sharded cluster."""
        return self.hello.get("msg") == "isdbgrid"

    @property
    def replica_set(self) -> str | None:
        return self.hello.get("setName")

    def ask(self, database: str, command: Mapping[str, Any]) -> dict[str, Any]:
        """The reply to a command."""
        self._teardown.check()
        return dict(self._run(database, command, CODEC, None))

    def raw(
        self, database: str, command: Mapping[str, Any], session: ClientSession | None
    ) -> bytes:
        """The same as it came."""
        self._teardown.check()
        reply: RawBSONDocument = self._run(database, command, _RAW, session)
        return bytes(reply.raw)

    def documents(self, database: str, command: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """All documents of a cursor, decoded; for those that are few."""
        with self.reader() as reader:
            for batch in reader.batches(database, command):
                for document in batch.documents:
                    yield decode(document, CODEC)

    @contextmanager
    def reader(self) -> Iterator[Reader]:
        """For one thread."""
        if not self.hello.get("logicalSessionTimeoutMinutes"):
            yield Reader(self, None)
            return
        with self._client.start_session(causal_consistency=False) as session:
            yield Reader(self, session)

    def interrupt(self) -> None:
        """Have every command that waits for the server fail within half a second."""
        _interrupt(self._client)

    def _choose(self) -> dict[str, Any]:
        """Stay with a server that fits, and what it says of itself."""
        wanted, self._wanted = self._wanted, Nearest()
        others = len(self.ask("admin", _HELLO).get("hosts", [])) > 1
        self._pin.is_set = True
        if others and wanted == SecondaryPreferred():
            # Until they have answered, a primary is all there is, and would be preferred.
            self._wanted = Secondary()
            with contextlib.suppress(ServerSelectionTimeoutError), pymongo.timeout(_PATIENCE):
                return self.ask("admin", _HELLO)
        self._wanted = wanted
        return self.ask("admin", _HELLO)

    def _run(
        self, database: str, command: Mapping[str, Any], codec: Any, session: ClientSession | None
    ) -> Any:
        return self._client[database].command(
            SON(command), read_preference=self._wanted, codec_options=codec, session=session
        )


@contextmanager
def linked(spec: MongodbSource, teardown: Teardown) -> Iterator[Link]:
    """Connect, choose a server and log in.

    Raises:
        SourceError: it failed, or whatever is done with the link failed at the other end.
    """
    teardown.check()
    with translated(address(spec), teardown):
        pin = _Pin()
        client = _client(spec, pin)
        try:
            with teardown.calling(lambda: _interrupt(client)):
                yield Link(client, make_read_preference(_mode(spec), None), pin, teardown)
        finally:
            _close(client)


def _mode(spec: MongodbSource) -> int:
    names = ("primary", "primaryPreferred", "secondary", "secondaryPreferred", "nearest")
    return names.index(spec.read_preference)


def _client(spec: MongodbSource, pin: _Pin) -> Any:
    with connection_string(spec) as uri:
        if "loadbalanced=true" in uri.lower():
            raise SourceError(
                "a cursor cannot be followed through a load balancer",
                "name the servers behind it, or set `method: client`",
            )
        return pymongo.MongoClient(
            uri,
            appname="nxs-backup",
            server_selector=pin,
            serverSelectionTimeoutMS=int(spec.connect_timeout * 1000),
            connectTimeoutMS=int(spec.connect_timeout * 1000),
            socketTimeoutMS=int(spec.timeout * 1000),
            maxPoolSize=spec.parallel + 2,
            serverMonitoringMode="poll",
        )


def _interrupt(client: Any) -> None:
    for server in list(client._topology._servers.values()):
        server.pool.reset(interrupt_connections=True)


def _close(client: Any) -> None:
    """Take leave of the server, and wait for the threads of the driver, which it does not."""
    monitors = [server._monitor for server in list(client._topology._servers.values())]
    with contextlib.suppress(PyMongoError), pymongo.timeout(_FAREWELL):
        # Ends the cursors too. The driver would tell it to the primary, whoever was read.
        client.admin.command(
            "endSessions", client._topology.pop_all_sessions(), read_preference=Nearest()
        )
    client._topology.pop_all_sessions()
    client.close()
    for executor in (
        client._kill_cursors_executor,
        *(monitor._executor for monitor in monitors),
        *(monitor._rtt_monitor._executor for monitor in monitors),
    ):
        executor.join(_FAREWELL)
