"""Redis, Valkey and KeyDB: the data set as the RDB file that a replica would be sent."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.context import StageContext
from pipeline.errors import SourceError
from pipeline.stage import CHUNK, Artifact, Needed, Shard, Source
from schemas.redis import RedisSource
from stages._child import Program, installed, locate, stream
from stages._tls import tls_mode
from stages.sources._redis.link import Link, Node, linked
from stages.sources._redis.nodes import nodes
from stages.sources._redis.rdb import Proof, without_mark

_CLIENT = "redis-cli"
_LIMITS = ("repl-timeout", "client-output-buffer-limit")


class Redis(Source):
    """One artifact; of a cluster one for each shard.

    An RDB file is brought back by a server that starts with it: stop it, put the file into its
    `dir` under its `dbfilename`, turn `appendonly` off for the first start, and start it.

    Args:
        backup: name of the backup, and of the artifact.
    """

    memory = 5 * CHUNK

    def __init__(self, spec: RedisSource, backup: str = "redis") -> None:
        self._spec = spec
        self._backup = backup

    def artifacts(self) -> list[Artifact]:
        found = nodes(self._spec, StageContext())
        if not self._spec.cluster:
            return [Artifact(self._backup, ".rdb", target=found[0])]
        return [
            Artifact(
                f"{self._backup}.shard-{number}",
                ".rdb",
                target=node,
                shard=Shard(self._backup, number, len(found)),
            )
            for number, node in enumerate(found, start=1)
        ]

    def stream(self, artifact: Artifact, context: StageContext) -> Iterator[bytes]:
        node = artifact.target
        if not isinstance(node, Node):
            raise SourceError(f'"{artifact.name}" was not planned by this source')
        proof = Proof()
        read = self._from_client if self._spec.method == "client" else self._from_server
        yield from proof.watch(read(node, context))
        context.findings.facts["format"] = proof.version
        if not proof.has_checksum:
            context.findings.warn("the dump has no checksum: the server computes none")

    def programs(self) -> list[Needed]:
        if self._spec.method != "client":
            return []
        package = "the package redis-tools (Red Hat: redis)"
        return [Needed(_CLIENT, installed(_CLIENT), package)]

    def probe(self) -> list[str]:
        facts = []
        if self._spec.method == "client":
            facts.append(f'"{_CLIENT}" is "{locate(_CLIENT, SourceError)}"')
        for node in nodes(self._spec, StageContext()):
            with linked(self._spec, node, StageContext()) as link:
                facts += _facts(node, link)
        return facts

    def examine(self, chunks: Iterator[bytes], context: StageContext) -> str:
        proof = Proof()
        for _ in proof.watch(chunks):
            context.teardown.check()
        return f"a whole dump in format {proof.version}"

    def _from_server(self, node: Node, context: StageContext) -> Iterator[bytes]:
        with linked(self._spec, node, context) as link:
            _note(link, context)
            position, chunks = link.dump()
            context.expected = link.announced
            context.findings.facts |= dict(
                zip(("replication_id", "offset"), position, strict=False)
            )
            yield from chunks

    def _from_client(self, node: Node, context: StageContext) -> Iterator[bytes]:
        with linked(self._spec, node, context) as link:
            _note(link, context)
        yield from without_mark(stream(self._program(node), context, SourceError))

    def _program(self, node: Node) -> Program:
        spec = self._spec
        address = ["-s", node.socket] if node.socket else ["-h", node.host, "-p", str(node.port)]
        user = ["--user", spec.user] if spec.user else []
        env = {"REDISCLI_AUTH": spec.password.get_secret_value()} if spec.password else {}
        argv = [_CLIENT, *address, *user, *self._tls_options(node), "--rdb", "-"]
        return Program(argv, env=env)

    def _tls_options(self, node: Node) -> list[str]:
        tls, mode = self._spec.tls, tls_mode(self._spec.tls, node.host)
        if node.socket or mode in ("off", "prefer"):
            return []  # the program cannot go on without what it was told to do with
        files = {"--cacert": tls.ca, "--cert": tls.cert, "--key": tls.key} if tls else {}
        given = [part for name, path in files.items() if path for part in (name, path)]
        return ["--tls", *given, *(["--insecure"] if mode == "require" else [])]


COMPONENT = Redis


def _note(link: Link, context: StageContext) -> None:
    info = link.info()
    findings = context.findings
    findings.server_version = info.get("valkey_version") or info.get("redis_version")
    findings.facts["role"] = info.get("role", "unknown")
    for database, text in info.items():
        if database.startswith("db") and text.startswith("keys="):
            findings.count("keys", int(text[5:].partition(",")[0]))


def _facts(node: Node, link: Link) -> Iterator[str]:
    """What a run depends on.

    Raises:
        SourceError: it cannot be read from now.
    """
    info = link.info()
    name = "Valkey" if "valkey_version" in info else "Redis"
    version = info.get("valkey_version") or info.get("redis_version", "of unknown version")
    yield f'"{node}": {name} {version}, {info.get("role", "of unknown role")}'
    if info.get("loading", "0") != "0":
        raise SourceError(f'"{node}" is still loading its data', "try again later")
    if info.get("master_link_status", "up") != "up":
        raise SourceError(f'"{node}" is a replica that has lost its primary')
    yield f'"{node}": data takes {info.get("used_memory_human", "unknown")} of memory'
    for limit in _LIMITS:
        told = link.try_asking("CONFIG", "GET", limit)
        if told:
            yield f'"{node}": {limit} {told[1].decode("utf-8", "replace")}'
