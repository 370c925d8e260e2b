"""MongoDB: the contract of all sources, archives that are read back, and every way to fail."""

from __future__ import annotations

import shutil
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pymongo.common
import pytest
from bson import Decimal128, Int64, ObjectId, Regex, Timestamp, decode
from bson.json_util import loads
from pydantic import ValidationError
from pymongo import MongoClient
from pymongo.uri_parser import parse_uri

from pipeline.context import StageContext, Teardown
from pipeline.errors import Aborted, ConfigError, SourceError
from pipeline.stage import CHUNK, Source
from schemas.mongodb import MongodbSource
from stages.sources._mongodb.archive import END, Blocks, described, prelude
from stages.sources._mongodb.examine import examine
from stages.sources._mongodb.login import PASSWORD as PASSWORD_VARIABLE
from stages.sources._mongodb.login import config_file, connection_string, login_of_url
from stages.sources.mongodb import USERS, Mongodb
from tests.contracts.source import Case, SourceContract, close, start
from tests.contracts.transform import leaving_nothing
from tests.servers.base import HOST, free_port
from tests.servers.ftp import make_certificate
from tests.servers.mongo_stand_in import Document, Kept, StandIn
from tests.servers.mongodb import PASSWORD, USER, MongoServer
from tests.servers.proxy import Proxy, Route

pytestmark = pytest.mark.integration

needs_tools = pytest.mark.skipif(
    not (shutil.which("mongodump") and shutil.which("mongorestore")),
    reason="mongodump and mongorestore are not installed: no registry the tests use has them",
)
CLOSED = {"mode": "off"}


def build(server: MongoServer | StandIn, **keys: Any) -> Mongodb:
    login = isinstance(server, MongoServer) and server.login
    who = {"user": USER, "password": PASSWORD} if login and "uri" not in keys else {}
    where = {} if "uri" in keys else {"host": HOST, "port": server.port, "tls": CLOSED}
    return Mongodb(MongodbSource.model_validate({"type": "mongodb", **where, **who, **keys}), "all")


def dump(source: Mongodb, context: StageContext | None = None) -> bytes:
    return b"".join(start(source, context or StageContext())[1])


def fill(server: MongoServer) -> None:
    """Every type, several collections, two databases."""
    with server.client() as client:
        shop = client.shop
        shop.orders.insert_many({"_id": n, "pad": "x" * 1000} for n in range(9000))
        shop.orders.create_index([("pad", 1), ("_id", -1)], name="by_pad")
        shop.create_collection("capped", capped=True, size=1 << 20)
        shop.create_collection("empty")
        shop["odd name.é"].insert_one({"_id": "é", "nested": {"list": [1, {"a": None}]}})
        shop.types.insert_many(
            [
                {"_id": ObjectId("0123456789abcdef01234567"), "long": Int64(1 << 60), "bin": b"\0"},
                {"_id": 2, "stamp": Timestamp(5, 6), "regex": Regex("^a", "i"), "double": 1.5},
                {"_id": 3, "true": True, "text": "a\nb", "list": [], "document": {}},
            ]
        )
        client.crm.people.insert_many({"_id": n, "name": f"name {n}"} for n in range(300))


@pytest.fixture(scope="module", autouse=True)
def _driver_that_ends_soon() -> Iterator[None]:
    """Its threads look whether they are to end only so often, and are waited for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pymongo.common, "MIN_HEARTBEAT_INTERVAL", 0.02)
        yield


@pytest.fixture(scope="module")
def server() -> Iterator[MongoServer]:
    with MongoServer(tls=True, login=True) as started:
        fill(started)
        yield started


class Archive:
    """An archive taken apart, by a reader that knows nothing of the one under test."""

    def __init__(self, content: bytes) -> None:
        assert content[:4] == b"\x6d\xe2\x99\x81"
        self._content, self._at = content, 4
        header = self._unit()
        assert header
        assert header["version"] == "0.1"
        self.server_version = header["server_version"]
        self.metadata: dict[str, Document] = {}
        while (each := self._unit()) is not None:
            text = each["metadata"]
            self.metadata[f"{each['db']}.{each['collection']}"] = loads(text) if text else {}
        self.documents: dict[str, list[Document]] = {}
        self.order: list[str] = []
        """Of the namespaces, as they end."""
        while self._at < len(content):
            self._block()

    def _block(self) -> None:
        header = self._unit()
        assert header
        name = f"{header['db']}.{header['collection']}"
        assert name not in self.order
        found = self.documents.setdefault(name, [])
        while (document := self._unit()) is not None:
            assert not header["EOF"]
            found.append(document)
        if header["EOF"]:
            self.order.append(name)

    def _unit(self) -> Document | None:
        size = int.from_bytes(self._content[self._at : self._at + 4], "little", signed=True)
        start, self._at = self._at, self._at + (4 if size == -1 else size)
        return None if size == -1 else decode(self._content[start : self._at])


def by_id(documents: list[Document]) -> list[Document]:
    return sorted(documents, key=lambda each: str(each["_id"]))


def assert_same(server: MongoServer, archive: Archive, *databases: str) -> None:
    with server.client() as client:
        names = {
            f"{d}.{each['name']}": d for d in databases for each in client[d].list_collections()
        }
        assert set(archive.documents) == set(archive.order) == set(archive.metadata) == set(names)
        for name, database in names.items():
            collection = client[database][name.partition(".")[2]]
            assert by_id(archive.documents[name]) == by_id(list(collection.find()))
            found = [dict(each) for each in collection.list_indexes()]
            assert archive.metadata[name]["indexes"] == found
            assert archive.metadata[name].get("options", {}) == collection.options()


Act = Callable[[Proxy], None]


class Interrupted(Proxy):
    """Does something when so many bytes have come from the server."""

    def __init__(self, target: int, size: int, act: Act) -> None:
        self._left = size
        self._act = act
        super().__init__(target)

    def _pass_on(self, block: bytes, route: Route, sink: socket.socket, upwards: bool) -> None:
        if not upwards:
            before, self._left = self._left, self._left - len(block)
            if before > 0 >= self._left:
                self._act(self)
        super()._pass_on(block, route, sink, upwards)


class TestContract(SourceContract):
    @pytest.fixture(params=[pytest.param("", id="mongodb")])
    def case(self, server: MongoServer) -> Case:
        # One reader: blocks of several would come in any order.
        keys: dict[str, Any] = {"databases": ["shop"], "parallel": 1}

        def behind(act: Act) -> Callable[[Path, ExitStack], Source]:
            def make(_: Path, stack: ExitStack) -> Source:
                proxy = stack.enter_context(Interrupted(server.port, 6 * CHUNK, act))
                return build(server, port=proxy.port, **keys)

            return make

        return Case(
            sound=lambda _place, _stack: build(server, **keys),
            broken=behind(Proxy.cut),
            unusable=lambda _place, _stack: build(
                server, port=free_port(), connect_timeout="500ms"
            ),
            blocked=behind(Proxy.freeze),
        )

    # The next two without a look at threads: the proxy has some.

    def test_a_failure_half_way_is_never_an_end(
        self, case: Case, tmp_path: Path, cleanup: ExitStack
    ) -> None:
        _, stream = start(case.broken(tmp_path, cleanup), StageContext())
        assert next(stream)
        with pytest.raises(SourceError):
            list(stream)

    def test_an_abort_ends_a_blocked_stream(
        self, case: Case, tmp_path: Path, cleanup: ExitStack
    ) -> None:
        assert case.blocked
        context = StageContext()
        _, stream = start(case.blocked(tmp_path, cleanup), context)
        assert next(stream)
        threading.Timer(0.2, context.teardown.abort).start()
        with pytest.raises((Aborted, SourceError)):
            list(stream)


def test_an_abort_ends_several_readers(server: MongoServer) -> None:
    context = StageContext()
    with Interrupted(server.port, 7 * CHUNK, Proxy.freeze) as proxy:
        source = build(server, port=proxy.port, artifact="single", parallel=3)
        _, stream = start(source, context)
        assert next(stream)
        threading.Timer(0.2, context.teardown.abort).start()
        with pytest.raises((Aborted, SourceError)):
            list(stream)


def test_several_readers_leave_nothing(server: MongoServer) -> None:
    source = build(server, artifact="single", parallel=3)
    with leaving_nothing():
        _, stream = start(source, StageContext())
        assert next(stream)
        close(stream)


# -- a real server -------------------------------------------------------------------------------


@pytest.mark.parametrize("parallel", [1, 4])
def test_an_archive_has_everything(server: MongoServer, parallel: int) -> None:
    context = StageContext()
    content = dump(build(server, databases=["shop"], parallel=parallel), context)
    assert_same(server, Archive(content), "shop")
    assert context.findings.counts["documents"] == 9004
    assert context.findings.counts["collections"] == 5
    assert context.findings.server_version == "7.0.42"
    assert examine(iter([content]), Teardown()) == "a whole archive of 5 collections"


def test_there_is_one_for_each_database_or_one_for_all(server: MongoServer) -> None:
    source = build(server)
    assert [artifact.name for artifact in source.artifacts()] == ["crm", "shop"]
    for artifact in source.artifacts():
        assert_same(
            server, Archive(b"".join(source.stream(artifact, StageContext()))), artifact.name
        )
    single = build(server, artifact="single")
    assert [artifact.name for artifact in single.artifacts()] == ["all"]
    assert_same(server, Archive(dump(single)), "crm", "shop")


@pytest.mark.parametrize(
    ("keys", "names"),
    [
        ({"databases": ["c*"]}, {"crm.people"}),
        ({"exclude": ["shop"]}, {"crm.people"}),
        ({"collections": ["shop.o*", "people"]}, {"crm.people", "shop.orders", "shop.odd name.é"}),
        (
            {"exclude_collections": ["shop.o*", "types"]},
            {"crm.people", "shop.capped", "shop.empty"},
        ),
    ],
)
def test_a_choice_is_kept_to(server: MongoServer, keys: dict[str, Any], names: set[str]) -> None:
    assert set(Archive(dump(build(server, artifact="single", **keys))).metadata) == names


def test_a_query_takes_some_documents(server: MongoServer) -> None:
    query = {"shop.orders": '{"_id": {"$gte": 8990}}'}
    archive = Archive(dump(build(server, databases=["shop"], query=query)))
    assert {each["_id"] for each in archive.documents["shop.orders"]} == set(range(8990, 9000))
    assert len(archive.documents["shop.types"]) == 3


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"databases": ["none"]}, 'no database "none"'),
        ({"exclude": ["*"]}, "no database to dump"),
        ({"query": {"shop.none": "{}"}}, 'no collection "shop.none"'),
        ({"artifact": "single", "oplog": True}, "has no oplog"),
        ({"collections": ["none"]}, "no collection to dump"),
    ],
)
def test_what_matches_nothing_is_a_failure(
    server: MongoServer, keys: dict[str, Any], message: str
) -> None:
    with pytest.raises(SourceError, match=message):
        dump(build(server, **keys))


def test_over_tls_and_with_a_uri(server: MongoServer) -> None:
    assert server.ca
    keys: dict[str, Any] = {"databases": ["crm"]}
    for tls in ({"ca": str(server.ca)}, {"mode": "require"}, None):
        assert_same(
            server, Archive(dump(build(server, port=server.tls_port, tls=tls, **keys))), "crm"
        )
    assert dump(build(server, tls=None, **keys)), "a port without TLS on loopback"
    secret = "Pa55%3Aw%40rd%2F%27%25"
    uri = f"mongodb://{USER}:{secret}@{HOST}:{server.tls_port}/?tls=true&tlsCAFile={server.ca}"
    assert_same(server, Archive(dump(build(server, uri=uri, **keys))), "crm")


def test_an_unknown_authority_is_refused(server: MongoServer) -> None:
    source = build(server, port=server.tls_port, tls={"mode": "verify"}, connect_timeout="2s")
    with pytest.raises(SourceError, match="certificate"):
        dump(source)


def test_a_certificate_that_cannot_be_read_is_told(server: MongoServer) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        dump(build(server, tls={"mode": "require", "cert": "/missing"}))


@pytest.mark.parametrize("method", ["native", pytest.param("client", marks=needs_tools)])
def test_a_wrong_password_is_told(server: MongoServer, method: str) -> None:
    with pytest.raises(SourceError, match="check user, password and auth_source") as raised:
        dump(build(server, password="wrong secret", method=method))
    assert "secret" not in str(raised.value)


def test_a_server_that_dies_half_way_is_a_failure() -> None:
    with MongoServer() as server:
        fill(server)
        _, stream = start(build(server, databases=["shop"]), StageContext())
        assert next(stream)
        server.kill()
        with pytest.raises(SourceError, match=r"failed|answer"):
            list(stream)


def test_a_silent_server_is_given_up(server: MongoServer) -> None:
    with (
        Interrupted(server.port, 2 * CHUNK, Proxy.freeze) as proxy,
        pytest.raises(SourceError, match=r"does not answer|failed"),
    ):
        dump(build(server, databases=["shop"], port=proxy.port, timeout="1s"))


def test_probe_tells_what_a_run_depends_on(server: MongoServer) -> None:
    facts = "\n".join(build(server).probe())
    for word in ("MongoDB 7.0.42", "a server of its own", "6 collections of 2 databases"):
        assert word in facts


@needs_tools
def test_mongodump_and_we_say_the_same(server: MongoServer) -> None:
    theirs = Archive(dump(build(server, databases=["shop"], method="client")))
    ours = Archive(dump(build(server, databases=["shop"])))
    assert theirs.metadata == ours.metadata
    assert {name: by_id(found) for name, found in theirs.documents.items()} == {
        name: by_id(found) for name, found in ours.documents.items()
    }


@needs_tools
def test_mongorestore_brings_it_back(server: MongoServer) -> None:
    # Without the index of "orders": FerretDB refuses an option that mongorestore gives.
    source = build(server, databases=["shop"], exclude_collections=["orders"])
    artifact, stream = start(source, StageContext())
    content = b"".join(stream)
    with MongoServer() as fresh:
        url = f"mongodb://{HOST}:{fresh.port}"
        target = build(fresh)
        assert target.load(iter([content]), artifact, url, False, StageContext()) == []
        assert_same(fresh, Archive(content), "shop")
        with pytest.raises(SourceError, match="has a collection"):
            target.load(iter([content]), artifact, url, False, StageContext())
        target.load(iter([content]), artifact, url, True, StageContext())
        target.load(iter([content]), artifact, f"{url}/other", False, StageContext())
        with fresh.client() as client:
            assert client.other.types.count_documents({}) == 3
        with pytest.raises(SourceError, match="mongorestore"):
            target.load(iter([content[:-30]]), artifact, url, True, StageContext())


@needs_tools
def test_mongorestore_logs_in_and_its_message_has_no_password(
    server: MongoServer, small: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact, *_ = build(server).artifacts()
    url = f"mongodb://{USER}@{HOST}:{server.port}/restored"
    with StandIn(content()) as other:
        monkeypatch.setenv(PASSWORD_VARIABLE, "wrong secret")
        with pytest.raises(SourceError, match="Authentication failed") as raised:
            build(other).load(iter([small]), artifact, url, True, StageContext())
        assert "secret" not in str(raised.value)
        monkeypatch.setenv(PASSWORD_VARIABLE, PASSWORD)
        people = dump(build(server, databases=["crm"]))
        build(other).load(iter([people]), artifact, url, False, StageContext())
    with server.client() as client:
        assert client.restored.people.count_documents({}) == 300
        client.drop_database("restored")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("mysql://host/db", "not understood"),
        ("mongodb://", "not understood"),
        ("mongodb://user:secret@host/", "must not hold a password"),
    ],
)
def test_an_address_to_restore_to_that_cannot_be(
    server: MongoServer, url: str, message: str
) -> None:
    source = build(server)
    with pytest.raises(SourceError, match=message) as raised:
        source.load(iter([b""]), source.artifacts()[0], url, False, StageContext())
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("body", ["printf 'half'; exit 1", "exit 0", "kill -9 $$"])
def test_a_program_that_fails_is_told(
    server: MongoServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str
) -> None:
    log = tmp_path / "arguments"
    fake = tmp_path / "mongodump"
    fake.write_text(
        f'#!/bin/sh\n[ "$1" = --version ] && echo fake && exit\necho "$@" > {log}\n{body}\n'
    )
    fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    source = build(server, method="client")
    if body == "exit 0":  # The engine refuses what is empty.
        assert dump(source) == b""
        assert source.artifacts()[0].min_size > 0
    else:
        with pytest.raises(SourceError, match="mongodump"):
            dump(source)
    assert PASSWORD not in log.read_text()
    assert "w%40rd" not in log.read_text()


def test_a_missing_program_is_told(server: MongoServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(SourceError, match='"mongodump" was not found'):
        dump(build(server, method="client"))


# -- what only mongod has: recorded replies ------------------------------------------------------


def moment(number: int) -> Document:
    entry = {"op": "i", "ns": "shop.orders", "o": {"_id": number}}
    return {"ts": Timestamp(1000, number), "_id": number, **entry}


def content() -> dict[str, dict[str, Kept]]:
    bucket = {"_id": 1, "control": {"version": 1}, "data": {"t": {"0": 1}}}
    series = {"timeseries": {"timeField": "t", "granularity": "hours"}}
    return {
        "admin": {
            "system.version": Kept([{"_id": "authSchema", "currentVersion": 5}]),
            "system.users": Kept([{"_id": "shop.u", "user": "u", "db": "shop"}]),
            "system.roles": Kept([{"_id": "shop.r", "role": "r", "db": "shop"}]),
            "system.keys": Kept([{"_id": 1, "key": b"secret"}]),
        },
        "config": {"transactions": Kept()},
        "local": {"oplog.rs": Kept([moment(number) for number in range(1, 10)])},
        "shop": {
            "orders": Kept(
                [{"_id": number, "price": Decimal128("1.5")} for number in range(10)],
                options={"validator": {"$jsonSchema": {"bsonType": "object"}}},
            ),
            "weather": Kept(kind="timeseries", options=series),
            "system.buckets.weather": Kept([bucket]),
            "system.views": Kept([{"_id": "shop.cheap"}]),
            "cheap": Kept(kind="view", options={"viewOn": "orders", "pipeline": [{"$match": {}}]}),
        },
    }


def test_views_and_time_series_are_what_mongodump_makes_of_them() -> None:
    context = StageContext()
    with StandIn(content()) as server:
        archive = Archive(dump(build(server, databases=["shop"]), context))
        assert [each["find"] for each in server.commands("find")].count("cheap") == 0
    assert set(archive.metadata) == {"shop.orders", "shop.weather", "shop.cheap"}
    assert archive.metadata["shop.cheap"]["indexes"] == []
    assert archive.metadata["shop.cheap"]["type"] == "view"
    assert archive.metadata["shop.weather"]["options"]["timeseries"]["timeField"] == "t"
    assert len(archive.documents["shop.orders"]) == 10
    assert len(archive.documents["shop.system.buckets.weather"]) == 1
    assert archive.documents["shop.cheap"] == []
    assert context.findings.counts["views"] == 1


def test_a_new_server_is_asked_for_the_buckets_of_a_time_series() -> None:
    kept = content()
    kept["shop"]["weather"].documents = kept["shop"].pop("system.buckets.weather").documents
    with StandIn(kept, version="8.3.0") as server:
        archive = Archive(dump(build(server, databases=["shop"])))
        (command,) = [each for each in server.commands("find") if each["find"] == "weather"]
    assert command["rawData"] is True
    assert len(archive.documents["shop.weather"]) == 1


def test_a_cursor_is_kept_alive_and_read_in_one_session() -> None:
    with StandIn(content(), version="4.4.1") as server:
        dump(build(server, databases=["shop"]))
        (find,) = [each for each in server.commands("find") if each["find"] == "orders"]
        assert find["noCursorTimeout"] is True
        assert find["hint"] == {"$natural": 1}
        assert {each["lsid"]["id"] for each in server.commands("getMore")} >= {find["lsid"]["id"]}
        assert server.commands("endSessions")


def test_users_come_first_or_on_their_own() -> None:
    accounts = ["admin.system.version", "admin.system.users", "admin.system.roles"]
    with StandIn(content()) as server:
        single = Archive(dump(build(server, artifact="single", users=True)))
        assert single.order[:3] == accounts
        assert "admin.system.keys" not in single.metadata
        source = build(server, users=True)
        *_, last = source.artifacts()
        assert last.name == USERS
        assert Archive(b"".join(source.stream(last, StageContext()))).order == accounts


def with_oplog(server: StandIn, context: StageContext | None = None) -> bytes:
    return dump(build(server, artifact="single", oplog=True), context)


def test_changes_during_the_dump_are_in_it() -> None:
    kept, context = content(), StageContext()

    def write(command: Document) -> None:
        """While the collection is read, something is written."""
        if command.get("find") == "orders":
            entries = [moment(number) for number in range(1, 15)]
            kept["local"]["oplog.rs"].documents = entries

    with StandIn(kept, replica_set="rs0", answer=write) as server:
        archive = Archive(with_oplog(server, context))
    assert archive.order[-1] == ".oplog"
    found = [each["ts"] for each in archive.documents[".oplog"]]
    assert found == [Timestamp(1000, number) for number in range(9, 15)]
    assert context.findings.counts["oplog_entries"] == 6
    assert context.findings.facts["oplog_start"] == "1000:9"
    assert context.findings.facts["oplog_end"] == "1000:14"
    assert context.findings.facts["replica_set"] == "rs0"


def test_a_transaction_that_is_under_way_is_in_it_from_its_start() -> None:
    kept, context = content(), StageContext()
    begun = {"_id": 1, "state": "inProgress", "startOpTime": {"ts": Timestamp(1000, 4)}}
    kept["config"]["transactions"].documents = [begun]
    with StandIn(kept, replica_set="rs0") as server:
        with_oplog(server, context)
    assert context.findings.counts["oplog_entries"] == 6


def test_an_oplog_that_has_turned_over_is_a_failure() -> None:
    kept = content()

    def write(command: Document) -> None:
        if command.get("find") == "orders":
            kept["local"]["oplog.rs"].documents = [moment(number) for number in range(50, 60)]

    with (
        StandIn(kept, replica_set="rs0", answer=write) as server,
        pytest.raises(SourceError, match="turned over"),
    ):
        with_oplog(server)


@pytest.mark.parametrize(
    "entry",
    [
        {"ns": "admin.system.version", "o": {}},
        {"ns": "shop.$cmd", "o": {"renameCollection": "shop.orders"}},
        {"ns": "shop.$cmd", "o": {"importCollection": "orders"}},
        {"ns": "config.$cmd", "o": {"create": "localReshardingOperations.donor"}},
        {"ns": "shop.$cmd", "o": {"upgradeDowngradeViewlessTimeseries": "weather"}},
    ],
)
def test_a_change_that_cannot_be_replayed_is_a_failure(entry: Document) -> None:
    kept = content()
    kept["local"]["oplog.rs"].documents = [{"ts": Timestamp(1000, 9), "op": "c", **entry}]
    with (
        StandIn(kept, replica_set="rs0") as server,
        pytest.raises(SourceError, match="cannot be replayed"),
    ):
        with_oplog(server)


@pytest.mark.parametrize(
    ("preference", "wanted"), [("secondaryPreferred", 1), ("primary", 0), ("secondary", 1)]
)
def test_a_secondary_is_read_unless_told_otherwise(preference: str, wanted: int) -> None:
    with StandIn(content(), replica_set="rs0") as one, StandIn(content(), replica_set="rs0") as two:
        members = [one, two]
        one.peers = two.peers = members
        keys = {"replica_set": "rs0", "read_preference": preference, "databases": ["shop"]}
        context = StageContext()
        dump(build(one, **keys), context)
        assert context.findings.facts["member"] == f"{HOST}:{members[wanted].port}"
        assert members[wanted].commands("find")
        assert not members[1 - wanted].commands("find")
        # Without the name of the set, the named server itself.
        dump(build(one, databases=["shop"]), context)
        assert context.findings.facts["member"] == f"{HOST}:{one.port}"


def test_a_sharded_cluster_is_warned_of() -> None:
    def answer(command: Document) -> Document | None:
        if next(iter(command)) in ("hello", "ismaster"):
            return {**server.hello(), "msg": "isdbgrid"}
        return None

    context = StageContext()
    with StandIn(content()) as server:
        server.answer = answer
        dump(build(server, databases=["shop"]), context)
        assert any(
            fact.startswith("warning: ") for fact in build(server, databases=["shop"]).probe()
        )
    assert any("shard by shard" in warning for warning in context.findings.warnings)


@pytest.mark.parametrize("command", ["listDatabases", "listCollections", "find", "getMore"])
def test_too_few_rights_are_told(command: str) -> None:
    def answer(asked: Document) -> Document | None:
        if next(iter(asked)) != command:
            return None
        return {"ok": 0.0, "code": 13, "errmsg": "not authorized on shop to execute command"}

    with (
        StandIn(content(), answer=answer) as server,
        pytest.raises(SourceError, match=r"not authorized.*role `backup`"),
    ):
        dump(build(server, databases=["shop"]))


def test_probe_fails_where_a_collection_may_not_be_read() -> None:
    def answer(asked: Document) -> Document | None:
        refused = {"ok": 0.0, "code": 13, "errmsg": "not authorized"}
        return refused if asked.get("find") == "system.users" else None

    with StandIn(content(), answer=answer) as server:
        assert build(server).probe()
        with pytest.raises(SourceError, match="not authorized"):
            build(server, users=True).probe()


def test_a_collection_that_is_dropped_meanwhile_is_left_out() -> None:
    def answer(asked: Document) -> Document | None:
        missing = {"ok": 0.0, "code": 26, "errmsg": "ns does not exist"}
        return missing if asked.get("listIndexes") == "orders" else None

    with StandIn(content(), answer=answer) as server:
        archive = Archive(dump(build(server, databases=["shop"])))
    assert "shop.orders" not in archive.metadata
    assert "shop.orders" not in archive.order


# -- archives ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small() -> bytes:
    with StandIn(content()) as server:
        return dump(build(server, databases=["shop"], parallel=1))


@pytest.mark.parametrize("piece", [1, 3, 64, 100_000])
def test_a_whole_archive_is_proved_however_it_is_cut(small: bytes, piece: int) -> None:
    pieces = (small[at : at + piece] for at in range(0, len(small), piece))
    assert examine(pieces, Teardown()) == "a whole archive of 3 collections"


def test_every_cut_is_found(small: bytes) -> None:
    for at in range(len(small)):
        with pytest.raises(SourceError):
            examine(iter([small[:at]]), Teardown())


def test_every_damaged_document_is_found() -> None:
    document = memoryview(b"\x0c\0\0\0\x10a\0\x01\0\0\0\0")
    blocks = Blocks("shop", "orders")
    front = prelude(4, "7.0", [described("shop", "orders", "{}", "collection")])
    block, last = blocks.block([document, document]), blocks.last()
    whole = front + block + last
    assert examine(iter([whole]), Teardown())
    start = len(front) + len(block) - len(END) - 2 * len(document)
    for at in range(start, start + 2 * len(document)):
        damaged = whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :]
        with pytest.raises(SourceError):
            examine(iter([damaged]), Teardown())


@pytest.mark.parametrize("stream", [b"", b"x", b"\x28\xb5\x2f\xfd" + bytes(100), END * 4])
def test_what_is_no_archive_is_refused(stream: bytes) -> None:
    with pytest.raises(SourceError):
        examine(iter([stream]), Teardown())


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"uri": "http://host"}, "mongodb://"),
        ({"uri": "mongodb://host", "port": 1}, "beside port"),
        ({"password": "x"}, "password needs user"),
        ({"databases": []}, "must not be empty"),
        ({"oplog": True}, "artifact single"),
        ({"oplog": True, "artifact": "single", "exclude": ["x"]}, "all databases"),
        ({"query": {"orders": "{}"}}, "database and a collection"),
        ({"query": {"shop.orders": "state = 1"}}, "Extended JSON"),
        ({"method": "client", "query": {"shop.orders": "{}"}}, "method native"),
        ({"method": "client", "artifact": "single", "exclude": ["x"]}, "per_database"),
        ({"method": "client", "users": True}, "method native"),
    ],
)
def test_settings_that_do_not_fit_are_told(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        MongodbSource.model_validate({"type": "mongodb", **keys})


# -- the login -----------------------------------------------------------------------------------


def uri_of(**keys: Any) -> tuple[str, dict[str, list[str]]]:
    """The URI without its query, and the query."""
    with connection_string(MongodbSource.model_validate({"type": "mongodb", **keys})) as uri:
        start, _, query = uri.partition("?")
        return start, parse_qs(query)


def test_a_login_is_written_as_a_uri() -> None:
    start, query = uri_of(host="db", user="a/b", password="p@ss:", tls={"mode": "require"})
    assert start == "mongodb://a%2Fb:p%40ss%3A@db:27017/"
    assert query["authSource"] == ["admin"]
    assert query["tls"] == query["tlsInsecure"] == query["directConnection"] == ["true"]
    start, query = uri_of(host="::1", replica_set="rs0", tls=CLOSED)
    assert start == "mongodb://[::1]:27017/"
    assert query == {"replicaSet": ["rs0"], "tls": ["false"]}


def test_a_uri_stays_what_it_is_but_for_tls() -> None:
    uri = "mongodb+srv://u:p@cluster.example/?retryReads=false"
    assert uri_of(uri=uri) == ("mongodb+srv://u:p@cluster.example/", {"retryReads": ["false"]})
    _, query = uri_of(uri=uri, tls={"mode": "require"})
    assert query == {"retryReads": ["false"], "tls": ["true"], "tlsInsecure": ["true"]}


def test_a_restore_elsewhere_is_encrypted_unless_told_otherwise() -> None:
    spec = MongodbSource.model_validate({"type": "mongodb"})
    for url, wanted in (("mongodb://db", "true"), ("mongodb://db/?tls=false", "false")):
        target, _ = login_of_url(url, spec)
        with connection_string(target) as uri:
            assert parse_qs(uri.partition("?")[2])["tls"] == [wanted]


def test_the_programs_are_given_the_password_apart_from_the_uri() -> None:
    with config_file("mongodb+srv://a%2Fb:p%40\u00e9:'@db/?x=1") as descriptor:
        text = Path(f"/proc/self/fd/{descriptor}").read_text()
    assert text == 'uri: "mongodb+srv://a%2Fb@db/?x=1"\npassword: "p@\\u00e9:\'"\n'


@pytest.mark.parametrize(("query", "wanted"), [("", "shop"), ("?authSource=admin", "admin")])
def test_the_programs_are_not_given_the_database_of_a_uri(query: str, wanted: str) -> None:
    with config_file(f"mongodb://u@db/shop{query}") as descriptor:
        text = Path(f"/proc/self/fd/{descriptor}").read_text()
    assert text == f'uri: "mongodb://u@db/?authSource={wanted}"\n'


def test_a_certificate_is_a_login_and_may_have_its_key_elsewhere(tmp_path: Path) -> None:
    cert, key = make_certificate(tmp_path)
    tls = {"mode": "require", "cert": str(cert), "key": str(key)}
    values = {"type": "mongodb", "host": "db", "auth_mechanism": "MONGODB-X509", "tls": tls}
    with connection_string(MongodbSource.model_validate(values)) as uri:
        query = parse_qs(uri.partition("?")[2])
        assert query["authSource"] == ["$external"]
        assert query["authMechanism"] == ["MONGODB-X509"]
        (path,) = query["tlsCertificateKeyFile"]
        assert Path(path).read_bytes() == cert.read_bytes() + b"\n" + key.read_bytes()
        assert MongoClient(uri, connect=False)
    assert not Path(path).exists()


def test_x509_is_what_the_server_is_asked_for() -> None:
    with StandIn(content()) as server:
        dump(build(server, auth_mechanism="MONGODB-X509", databases=["shop"]))
        (login, *_) = server.commands("authenticate")
    assert (login["mechanism"], login["$db"]) == ("MONGODB-X509", "$external")


def test_a_load_balancer_is_refused() -> None:
    uri = "mongodb://host/?loadBalanced=true"
    with pytest.raises(SourceError, match="load balancer"):
        Mongodb(MongodbSource.model_validate({"type": "mongodb", "uri": uri})).probe()


@pytest.mark.parametrize(
    ("user", "password"), [("backup@", "own secret"), ("", "own secret"), ("other@", "")]
)
def test_the_password_for_a_restore_is_not_given_to_others(
    monkeypatch: pytest.MonkeyPatch, user: str, password: str
) -> None:
    monkeypatch.delenv(PASSWORD_VARIABLE, raising=False)
    tls = {"mode": "off"}
    values = {
        "type": "mongodb",
        "tls": tls,
        "host": "db",
        "user": "backup",
        "password": "own secret",
    }
    spec = MongodbSource.model_validate(values)

    def login(url: str) -> Document:
        found, database = login_of_url(url, spec)
        assert found.uri
        assert database == "shop"
        return parse_uri(found.uri.get_secret_value())

    assert login(f"mongodb://{user}db/shop")["password"] == password
    assert login(f"mongodb://{user or 'backup@'}elsewhere/shop")["password"] == ""
    monkeypatch.setenv(PASSWORD_VARIABLE, "of the variable")
    assert login("mongodb://other@elsewhere/shop")["password"] == "of the variable"


def test_a_restore_without_the_program_is_told(
    server: MongoServer, small: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    source = build(server)
    url = f"mongodb://{HOST}:{server.port}"
    with pytest.raises(SourceError, match=r'"mongorestore" was not found.*restore to a file'):
        source.load(iter([small]), source.artifacts()[0], url, False, StageContext())
