"""Which servers to read: the one that was named, one that sentinels know, one of each shard."""

from __future__ import annotations

from typing import Any

from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError, Sentinel, SlaveNotFoundError

from pipeline.context import StageContext
from pipeline.errors import SourceError
from schemas.redis import RedisSentinel, RedisSource
from stages._tls import ssl_context
from stages.sources._redis.errors import translated
from stages.sources._redis.link import Node, linked


def nodes(spec: RedisSource, context: StageContext) -> list[Node]:
    """A node for each shard, in the order of their slots; one when there is no cluster.

    Raises:
        SourceError: nobody answers, or nobody knows.
    """
    if spec.sentinel is not None:
        return [_from_sentinel(spec, spec.sentinel, context)]
    seed = Node(spec.host, spec.port, spec.socket)
    return _from_cluster(spec, seed, context) if spec.cluster else [seed]


def _from_cluster(spec: RedisSource, seed: Node, context: StageContext) -> list[Node]:
    with linked(spec, seed, context) as link:
        slots = link.ask("CLUSTER", "SLOTS")
    shards: dict[bytes, list[Any]] = {}
    covered = 0
    for first, last, primary, *replicas in sorted(slots):
        covered += last - first + 1
        shards.setdefault(primary[2], [primary, *replicas])
    if covered != 16384:
        raise SourceError(f'the cluster of "{seed}" serves {covered} of 16384 slots')
    return [_of_shard(spec, seed, members, context) for members in shards.values()]


def _of_shard(spec: RedisSource, seed: Node, members: list[Any], context: StageContext) -> Node:
    """A replica that is in step with its primary, when one is wanted; else the primary."""
    primary, *replicas = (Node(host.decode() or seed.host, port) for host, port, *_ in members)
    for replica in replicas if spec.role == "replica" else []:
        try:
            with linked(spec, replica, context) as link:
                if link.info().get("master_link_status", "up") == "up":
                    return replica
        except SourceError:
            continue  # the next one, and in the end the primary, whose failure is told
    return primary


def _from_sentinel(spec: RedisSource, asked: RedisSentinel, context: StageContext) -> Node:
    encryption = ssl_context(spec.tls, _split(asked.nodes[0])[0])
    options: dict[str, Any] = {
        "username": asked.user,
        "password": asked.password.get_secret_value() if asked.password else None,
        "socket_timeout": spec.connect_timeout,
        "driver_info": None,
        "retry": Retry(NoBackoff(), 0),  # there are other sentinels
        "protocol": 2,
    }
    if encryption is not None and spec.tls is not None:
        options |= {"ssl": True, **_files(spec)}
    make: Any = Sentinel
    sentinels = make([_split(node) for node in asked.nodes], sentinel_kwargs=options)
    with translated("sentinel", context):
        try:
            if spec.role == "replica":
                for host, port in sentinels.discover_slaves(asked.service):
                    return Node(host, port)
            return Node(*sentinels.discover_master(asked.service))
        except (MasterNotFoundError, SlaveNotFoundError):
            raise SourceError(
                f'no sentinel knows a server of "{asked.service}"', "check `sentinel`"
            ) from None
        finally:
            for client in sentinels.sentinels:
                client.close()


def _files(spec: RedisSource) -> dict[str, Any]:
    assert spec.tls is not None
    checked = spec.tls.mode in (None, "verify")
    return {
        "ssl_ca_certs": spec.tls.ca,
        "ssl_certfile": spec.tls.cert,
        "ssl_keyfile": spec.tls.key,
        "ssl_cert_reqs": "required" if checked else "none",
        "ssl_check_hostname": checked,
    }


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)
