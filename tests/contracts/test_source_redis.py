"""Redis: the contract of all sources, both transfer forms, and everything that a dump must keep."""

from __future__ import annotations

import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from pipeline.context import StageContext
from pipeline.errors import Aborted, SourceError
from pipeline.stage import CHUNK, Source
from schemas.redis import RedisSource
from stages.sources._redis.rdb import Proof, transfer, without_mark
from stages.sources.redis import Redis
from tests.contracts.source import Case, SourceContract, start
from tests.servers.base import HOST, free_port
from tests.servers.proxy import Proxy, Route
from tests.servers.redis import PASSWORD, USER, RedisServer, Sentinel

pytestmark = pytest.mark.integration


def build(server: RedisServer, **keys: Any) -> Redis:
    login = {"user": USER, "password": PASSWORD} if server.login else {}
    values = {"type": "redis", "host": HOST, "port": server.port, "tls": {"mode": "off"}, **login}
    return Redis(RedisSource.model_validate({**values, **keys}), "cache")


def dump(source: Redis, context: StageContext | None = None) -> bytes:
    return b"".join(start(source, context or StageContext())[1])


def fill(server: RedisServer, mib: int = 6) -> None:
    """A bit of everything, in several databases."""
    with server.client() as client:
        for number in range(mib * 16):
            client.set(f"value {number}", secrets.token_bytes(1 << 16))
        client.rpush("list", *range(500))
        client.sadd("set", *(f"member {number}" for number in range(500)))
        client.hset("hash", mapping={f"field {number}": number for number in range(500)})
        client.zadd("sorted", {f"member {number}": number / 7 for number in range(500)})
        client.set("expires", "late", px=1 << 40)
        client.setbit("bits", 12_345, 1)
        client.pfadd("logs", *range(1000))
        client.geoadd("places", (13.361389, 38.115556, "Palermo"))
        for number in range(50):
            client.xadd("stream", {"number": number})
        client.xgroup_create("stream", "group", "0")
        client.xreadgroup("group", "consumer", {"stream": ">"}, count=7)
        client.function_load(
            "#!lua name=mine\nredis.register_function('one', function() return 1 end)"
        )
    with server.client(db=7) as client:
        client.set("elsewhere", "é\0\r\n")


@contextmanager
def restored(content: bytes) -> Iterator[RedisServer]:
    """A new server that starts with the dump."""
    server = RedisServer()
    (server.data / "dump.rdb").write_bytes(content)
    with server:
        yield server


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer("enable-debug-command local", tls=True) as started:
        fill(started)
        yield started


def assert_same(server: RedisServer, content: bytes) -> None:
    with restored_with_debug(content) as fresh:
        assert fresh.digest() == server.digest()
        with fresh.client() as client, server.client() as old:
            assert client.info("keyspace").keys() == old.info("keyspace").keys()
            assert client.execute_command("FCALL", "one", 0) == 1
            assert client.pexpiretime("expires") == old.pexpiretime("expires")
            assert client.xinfo_groups("stream") == old.xinfo_groups("stream")


@contextmanager
def restored_with_debug(content: bytes) -> Iterator[RedisServer]:
    server = RedisServer("enable-debug-command local")
    (server.data / "dump.rdb").write_bytes(content)
    with server:
        yield server


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
    @pytest.fixture(params=[pytest.param("", id="redis")])
    def case(self, server: RedisServer) -> Case:
        def behind(act: Act) -> Callable[[Path, ExitStack], Source]:
            def make(_: Path, stack: ExitStack) -> Source:
                proxy = stack.enter_context(Interrupted(server.port, 2 * CHUNK, act))
                return build(server, port=proxy.port)

            return make

        return Case(
            sound=lambda _place, _stack: build(server),
            broken=behind(Proxy.cut),
            unusable=lambda _place, _stack: build(server, port=free_port()),
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

    def test_the_same_content_is_the_same_bytes(
        self, case: Case, tmp_path: Path, cleanup: ExitStack
    ) -> None:
        # The file names its time and the memory in use: the content is compared elsewhere.
        source = case.sound(tmp_path, cleanup)
        sizes = [len(b"".join(start(source, StageContext())[1])) for _ in range(2)]
        assert abs(sizes[0] - sizes[1]) < 100


@pytest.mark.parametrize("diskless", ["yes", "no"])
@pytest.mark.parametrize("method", ["native", "client"])
def test_a_new_server_starts_with_the_same_data(
    server: RedisServer, diskless: str, method: str
) -> None:
    with server.client() as client:
        client.config_set("repl-diskless-sync", diskless)
    login = {} if method == "native" else {"user": None, "password": PASSWORD}
    context = StageContext()
    content = dump(build(server, method=method, **login), context)
    assert_same(server, content)
    assert context.findings.server_version
    assert context.findings.counts["keys"] > 100
    assert context.findings.facts["format"].startswith("REDIS")
    assert ("offset" in context.findings.facts) is (method == "native")
    knows = method == "native" and diskless == "no"
    assert context.expected == (len(content) if knows else None)


def test_over_tls_and_over_a_socket(server: RedisServer) -> None:
    ca = {"ca": str(server.ca)}
    assert_same(server, dump(build(server, port=server.tls_port, tls=ca)))
    assert_same(server, dump(build(server, socket=str(server.socket))))


def test_tls_is_taken_by_itself_on_loopback_where_there_is_some(server: RedisServer) -> None:
    for port in (server.tls_port, server.port):
        assert dump(build(server, port=port, tls=None))


def test_an_unknown_authority_is_refused(server: RedisServer) -> None:
    with pytest.raises(SourceError, match="certificate"):
        dump(build(server, port=server.tls_port, tls={"mode": "verify"}))


def test_it_is_a_moment_while_others_write(server: RedisServer) -> None:
    """Two counters that a transaction moves together."""
    done = threading.Event()

    def write() -> None:
        with server.client(db=3) as client:
            while not done.is_set():
                with client.pipeline(transaction=True) as both:
                    both.incr("one").incr("other").rpush("log", secrets.token_bytes(64))
                    both.execute()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        with server.client(db=3) as client:
            eventually(lambda: client.llen("log") > 9)
        contents = [dump(build(server)) for _ in range(3)]
    finally:
        done.set()
        writer.join()
    with server.client(db=3) as client:
        client.flushdb()
    for content in contents:
        with restored(content) as fresh, fresh.client(db=3) as client:
            assert int(client.get("one")) == int(client.get("other")) == client.llen("log")


def test_the_least_rights_are_enough_and_fewer_are_told(server: RedisServer) -> None:
    with server.client() as client:
        for right, hint in (("-info", r"\+info"), ("-sync -psync", r"\+sync \+psync")):
            client.execute_command("ACL", "SETUSER", USER, *right.split())
            try:
                with pytest.raises(SourceError, match=hint):
                    dump(build(server))
            finally:
                client.execute_command("ACL", "SETUSER", USER, *right.replace("-", "+").split())
    assert dump(build(server))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"password": "wrong"}, "check user and password"),
        ({"user": None, "password": None}, "NOAUTH|[Aa]uthentication"),
    ],
)
def test_a_wrong_login_is_told(server: RedisServer, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(SourceError, match=message) as raised:
        dump(build(server, **keys))
    assert PASSWORD not in str(raised.value)


def test_a_server_that_dies_half_way_is_a_failure() -> None:
    with RedisServer() as server:
        with server.client() as client:
            for number in range(400):
                client.set(f"value {number}", secrets.token_bytes(1 << 16))
        with Proxy(server.port) as proxy:
            _, stream = start(build(server, port=proxy.port), StageContext())
            assert next(stream)
            server.kill()
            with pytest.raises(SourceError):
                list(stream)


def test_a_silent_server_is_given_up(server: RedisServer) -> None:
    with (
        Interrupted(server.port, 2 * CHUNK, Proxy.freeze) as proxy,
        pytest.raises(SourceError, match="does not answer"),
    ):
        dump(build(server, port=proxy.port, timeout="500ms"))


def test_a_replica_without_its_primary_is_told() -> None:
    with RedisServer(f"replicaof {HOST} {free_port()}") as replica:
        with pytest.raises(SourceError, match="lost its primary"):
            build(replica).probe()
        with pytest.raises(SourceError, match="refused"):
            dump(build(replica))


def replica_of(primary: RedisServer) -> RedisServer:
    return RedisServer(f"replicaof {HOST} {primary.port}", f'masterauth "{PASSWORD}"')


def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_sentinels_name_the_server(server: RedisServer) -> None:
    with replica_of(server) as replica, ExitStack() as stack:
        with replica.client() as client:
            eventually(lambda: client.info()["master_link_status"] == "up")
        sentinel = stack.enter_context(Sentinel(server))
        asked = {
            "service": "mymaster",
            "nodes": [f"{HOST}:{free_port()}", f"{HOST}:{sentinel.port}"],
        }

        def from_role(role: str) -> str:
            context = StageContext()
            dump(build(server, sentinel=asked, role=role), context)
            return context.findings.facts["role"]

        with sentinel.client() as client:
            eventually(lambda: len(client.sentinel_slaves("mymaster")) == 1)
        assert from_role("replica") == "slave"
        assert from_role("primary") == "master"
        with pytest.raises(SourceError, match="no sentinel knows"):
            build(server, sentinel={**asked, "service": "other"}).artifacts()


def test_each_shard_of_a_cluster_is_an_artifact() -> None:
    with ExitStack() as stack:
        options = ("cluster-enabled yes", "cluster-require-full-coverage no")
        members = [stack.enter_context(RedisServer(*options, login=False)) for _ in range(2)]
        for member, slots in zip(members, ((0, 8191), (8192, 16383)), strict=True):
            with member.client() as client:
                client.execute_command("CLUSTER", "ADDSLOTSRANGE", *slots)
        source = build(members[1], cluster=True)
        with members[0].client() as client:
            client.execute_command("CLUSTER", "MEET", HOST, members[1].port)
            eventually(lambda: client.cluster("INFO")["cluster_known_nodes"] == "2")
            eventually(lambda: len(client.execute_command("CLUSTER", "SLOTS")) == 2)
            eventually(lambda: client.cluster("INFO")["cluster_state"] == "ok")
            client.set("{b}", "first half")  # slot 3300
        with members[1].client() as client:
            eventually(lambda: len(client.execute_command("CLUSTER", "SLOTS")) == 2)
            eventually(lambda: client.cluster("INFO")["cluster_state"] == "ok")
            client.set("{a}", "second half")  # slot 15495
        plan = source.artifacts()
        assert [artifact.name for artifact in plan] == ["cache.shard-1", "cache.shard-2"]
        assert [artifact.shard and artifact.shard.count for artifact in plan] == [2, 2]
        for artifact, key in zip(plan, (b"{b}", b"{a}"), strict=True):
            content = b"".join(source.stream(artifact, StageContext()))
            with restored(content) as fresh, fresh.client() as client:
                assert client.keys() == [key]


def test_a_cluster_that_does_not_serve_all_slots_is_told() -> None:
    with RedisServer("cluster-enabled yes", login=False) as member:
        with member.client() as client:
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 99)
        with pytest.raises(SourceError, match="serves 100 of 16384 slots"):
            build(member, cluster=True).artifacts()


def test_probe_tells_what_a_run_depends_on(server: RedisServer) -> None:
    facts = "\n".join(build(server, user=None).probe())
    for word in ("Redis 7", "master", "memory", "repl-timeout"):
        assert word in facts


def test_no_password_is_in_the_arguments_of_the_client(server: RedisServer) -> None:
    program = build(server, method="client")._program(build(server).artifacts()[0].target)  # type: ignore[arg-type]
    assert not any(PASSWORD in argument for argument in program.argv)


# -- the stream itself ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small() -> bytes:
    with RedisServer(login=False) as server:
        with server.client() as client:
            client.set("key", "value")
        return dump(build(server))


def received(*pieces: bytes) -> Callable[[memoryview], int]:
    left = list(pieces)

    def receive(room: memoryview) -> int:
        piece = left.pop(0) if left else b""
        room[: len(piece)] = piece
        return len(piece)

    return receive


def proved(*chunks: bytes) -> bytes:
    return b"".join(Proof().watch(iter(chunks)))


MARK = secrets.token_hex(20).encode()


@pytest.mark.parametrize(
    "more", [b"", b"\n\n", b"*1\r\n$4\r\nPING\r\n"], ids=["", "lines", "commands"]
)
@pytest.mark.parametrize("piece", [1, 7, 39, 40, 41, 1000])
def test_the_mark_is_found_wherever_it_is_cut(small: bytes, piece: int, more: bytes) -> None:
    stream = small + MARK + more
    pieces = [stream[at : at + piece] for at in range(0, len(stream), piece)]
    assert b"".join(transfer(b"$EOF:" + MARK, received(*pieces))) == small


def test_the_mark_is_found_across_full_buffers() -> None:
    for size in range(2 * CHUNK - 45, 2 * CHUNK + 45, 3):
        content = bytes(size)
        stream = memoryview(content + MARK)
        position = 0

        def receive(room: memoryview) -> int:
            nonlocal position
            taken = min(len(room), len(stream) - position)  # noqa: B023
            room[:taken] = stream[position : position + taken]  # noqa: B023
            position += taken
            return taken

        assert b"".join(transfer(b"$EOF:" + MARK, receive)) == content


def test_so_many_bytes_are_taken_and_no_more(small: bytes) -> None:
    head = b"$%d" % len(small)
    assert b"".join(transfer(head, received(small[:3], small[3:]))) == small
    with pytest.raises(SourceError, match="in the middle"):
        list(transfer(head, received(small[:-1])))


@pytest.mark.parametrize("head", [b"+OK", b"$-1", b"$EOF:short", b"", b"$12x"])
def test_anything_else_announces_no_dump(head: bytes) -> None:
    with pytest.raises(SourceError, match="announced no dump"):
        list(transfer(head, received(b"x")))


def test_the_client_s_mark_is_taken_away_and_nothing_else(small: bytes) -> None:
    for content in (small, small + MARK):
        for piece in (1, 13, 10_000):
            chunks = (content[at : at + piece] for at in range(0, len(content), piece))
            assert b"".join(without_mark(chunks)) == small


@pytest.mark.parametrize("piece", [1, 8, 9, 10, 10_000])
def test_a_whole_file_is_proved_however_it_is_cut(small: bytes, piece: int) -> None:
    assert proved(*(small[at : at + piece] for at in range(0, len(small), piece))) == small


def test_every_damaged_byte_and_every_cut_is_found(small: bytes) -> None:
    for at in range(len(small)):
        damaged = small[:at] + bytes([small[at] ^ 0x10]) + small[at + 1 :]
        with pytest.raises(SourceError):
            proved(damaged)
        with pytest.raises(SourceError):
            proved(small[:at])


def test_a_file_without_a_checksum_needs_its_end(small: bytes) -> None:
    without = small[:-8] + bytes(8)
    proof = Proof()
    assert b"".join(proof.watch(iter([without]))) == without
    assert not proof.has_checksum
    with pytest.raises(SourceError):
        proved(small[:-9] + b"\x00" + bytes(8))


def test_files_of_old_servers_have_no_checksum() -> None:
    assert proved(b"REDIS0003\xfe\x00\x00\x01a\x01b\xff")
    with pytest.raises(SourceError, match="cut off"):
        proved(b"REDIS0003\xfe\x00\x00\x01a\x01b")


def test_a_server_without_checksums_is_warned_of() -> None:
    with RedisServer("rdbchecksum no", login=False) as server:
        context = StageContext()
        dump(build(server), context)
        assert any("no checksum" in warning for warning in context.findings.warnings)


class OldServer:
    """Answers as servers before 2.8 did: it knows SYNC only, and pauses with empty lines."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._listener = socket.create_server((HOST, 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._listener.close()

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        with connection, connection.makefile("rb") as lines:
            while line := lines.readline():
                if line.startswith(b"*"):
                    words = []
                    for _ in range(int(line[1:])):
                        lines.readline()
                        words.append(lines.readline().strip())
                    self._answer(connection, words)

    def _answer(self, connection: socket.socket, words: list[bytes]) -> None:
        if words[0] == b"INFO":
            text = b"redis_version:2.4.18\r\nrole:master\r\ndb0:keys=1,expires=0\r\n"
            connection.sendall(b"$%d\r\n%b\r\n" % (len(text), text))
        elif words[0] == b"SYNC":
            connection.sendall(b"\n\n\n$%d\r\n%b" % (len(self._content), self._content))
        else:
            connection.sendall(b"-ERR unknown command '%b'\r\n" % words[0])


def test_a_server_from_before_psync_can_be_read() -> None:
    content = b"REDIS0003\xfe\x00\x00\x01a\x01b\xff"
    with closing(OldServer(content)) as old:
        values = {"type": "redis", "host": HOST, "port": old.port, "tls": {"mode": "off"}}
        source = Redis(RedisSource.model_validate(values), "cache")
        context = StageContext()
        assert dump(source, context) == content
        assert context.findings.counts == {"keys": 1}


def test_an_abort_wakes_a_wait_for_the_dump(server: RedisServer) -> None:
    with Proxy(server.port) as proxy:
        context = StageContext()
        proxy.freeze()
        threading.Timer(0.3, context.teardown.abort).start()
        with pytest.raises((Aborted, SourceError)):
            dump(build(server, port=proxy.port, timeout="1h"), context)


def test_the_client_program_that_is_killed_is_a_failure(
    server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / "redis-cli"
    fake.write_text(
        f"#!{sys.executable}\nimport os, sys\nsys.stdout.write('REDIS0010')\n"
        "sys.stdout.flush()\nos.kill(os.getpid(), 9)\n"
    )
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SourceError, match="redis-cli"):
        dump(build(server, method="client"))
    assert subprocess.run([fake], capture_output=True, check=False).returncode == -9
