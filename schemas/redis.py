"""Source redis: Redis, Valkey and KeyDB."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from schemas.base import AbsolutePath, Duration, Secret, Spec, Text
from schemas.tls import Tls

NodeAddress = Annotated[str, Field(pattern=r"^(\[[0-9A-Fa-f:.]+\]|[^\s:\[\]]+):[0-9]{1,5}$")]
"""`host:port`; an IPv6 address in brackets."""


class RedisSentinel(Spec):
    """Where to ask which server is the primary, and which are its replicas."""

    service: Text = Field(description="Name the sentinels watch it under.", examples=["mymaster"])
    nodes: list[NodeAddress] = Field(
        min_length=1,
        description="Sentinels, each as host:port; the first that answers is believed.",
        examples=[["sentinel-1:26379", "sentinel-2:26379"]],
    )
    user: Text | None = Field(None, description="User at the sentinels.", examples=["backup"])
    password: Secret | None = Field(None, description="Password at the sentinels.")


class RedisSource(Spec):
    """The whole data set of a server as an RDB file, over its replication protocol.

    The user needs no more than `+sync +psync +replconf +info +ping`, and no keys.
    """

    type: Literal["redis"]
    host: Text = Field("localhost", description="Name or address of the server.")
    port: int = Field(6379, ge=1, le=65535, description="TCP port of the server.")
    socket: AbsolutePath | None = Field(
        None,
        description="Unix socket, instead of host and port.",
        examples=["/run/redis/redis.sock"],
    )
    user: Text | None = Field(
        None, description="ACL user; default: `default`.", examples=["backup"]
    )
    password: Secret | None = Field(None, description="Password of the user.")
    tls: Tls | None = Field(None, description="Encryption of the connections.")
    role: Literal["replica", "primary"] = Field(
        "replica",
        description="With `sentinel` or `cluster`: whom to read from. A primary is taken when it "
        "has no replica that can be used.",
    )
    sentinel: RedisSentinel | None = Field(
        None, description="Ask sentinels for the server, instead of naming it with host and port."
    )
    cluster: bool = Field(
        False,
        description="The server is a node of a cluster: one artifact for each shard; they belong "
        "together.",
    )
    method: Literal["native", "client"] = Field(
        "native", description="`native` needs no program; `client` runs `redis-cli --rdb -`."
    )
    connect_timeout: Duration = Field("10s", validate_default=True, description="For each attempt.")
    timeout: Duration = Field(
        "60s",
        validate_default=True,
        description="Give up when the server is silent for so long; it sends signs of life while "
        "it prepares a dump.",
    )

    @model_validator(mode="after")
    def _fit_together(self) -> RedisSource:
        if self.socket is not None and (self.sentinel is not None or self.cluster):
            raise ValueError("socket is one server; remove it, or sentinel and cluster")
        if self.sentinel is not None and self.cluster:
            raise ValueError("sentinel and cluster exclude each other; remove one of them")
        if self.user is not None and self.password is None:
            raise ValueError("user needs password; set it too")
        return self
