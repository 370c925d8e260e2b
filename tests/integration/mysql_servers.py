"""A source `mysql` on a real server, and what the tests do with it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from pipeline.context import StageContext
from pipeline.stage import Artifact, Source
from schemas.mysql import MysqlSource
from stages.sources.mysql import Mysql
from tests.servers.mariadb import MariaDb


def source(server: MariaDb, **keys: Any) -> Mysql:
    """The source as a user configures it."""
    return Mysql(MysqlSource.model_validate({"type": "mysql", **server.keys(**keys)}), "all")


def dump(server: MariaDb, **keys: Any) -> tuple[bytes, StageContext]:
    """The only artifact of a source, and what was found."""
    ours, context = source(server, **keys), StageContext()
    (artifact,) = ours.artifacts()
    return b"".join(ours.stream(artifact, context)), context


def dump_all(source: Source) -> dict[str, bytes]:
    """All artifacts of a run."""
    try:
        return {
            artifact.name: b"".join(source.stream(artifact, StageContext()))
            for artifact in source.artifacts()
        }
    finally:
        source.close()


def artifact(name: str) -> Artifact:
    return Artifact(name, ".sql")


@contextmanager
def database(server: MariaDb, name: str, statements: str = "") -> Iterator[str]:
    """A database of its own, which is dropped again."""
    server.sql(f"DROP DATABASE IF EXISTS {name}; CREATE DATABASE {name}; USE {name}; {statements}")
    try:
        yield name
    finally:
        server.sql(f"DROP DATABASE IF EXISTS {name}")


def chunks(data: bytes) -> Iterable[bytes]:
    return [data[at : at + 1_000_003] for at in range(0, len(data), 1_000_003)]
