"""The PostgreSQL sources through the contract, against a real server."""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from pipeline.context import StageContext
from pipeline.stage import Artifact, Source
from schemas.postgres import PostgresPhysicalSource, PostgresSource
from stages.sources.postgres import Postgres
from stages.sources.postgres_physical import PostgresPhysical
from tests.contracts.source import Case, Make, SourceContract, start
from tests.servers.postgres import Postgresql, run_as_server

pytestmark = pytest.mark.integration

ROWS = 100_000
"""Of about 160 bytes: more than all buffers between a server and us."""


@cache
def server() -> Postgresql:
    """One for all tests here; it ends with the test run."""
    made = Postgresql()
    made.start()
    made.execute("CREATE DATABASE shop")
    made.execute(
        f"CREATE TABLE orders AS SELECT n AS id, repeat(md5(n::text), 5) AS note "
        f"FROM generate_series(1, {ROWS}) n; CREATE TABLE nothing (id int); CHECKPOINT",
        "shop",
    )
    return made


def logical(**more: Any) -> Source:
    keys = {**server().keys, "databases": ["shop"], "globals": False, **more}
    return Postgres(PostgresSource.model_validate({"type": "postgres", **keys}), "shop")


def physical(**more: Any) -> Source:
    keys = {**server().keys, **more}
    return PostgresPhysical(
        PostgresPhysicalSource.model_validate({"type": "postgres_physical", **keys}), "shop"
    )


Build = Callable[..., Source]


def sound(build: Build, **keys: Any) -> Make:
    return lambda _place, _cleanup: build(**keys)


def unusable(build: Build, **keys: Any) -> Make:
    return lambda _place, _cleanup: build(**keys, password="wrong")


class Disturbed(Source):
    """A source to which something happens once the first chunk has come."""

    def __init__(self, source: Source, happens: Callable[[], object]) -> None:
        self._source = source
        self._happens = happens

    def artifacts(self) -> list[Artifact]:
        return self._source.artifacts()

    def probe(self) -> list[str]:
        return self._source.probe()

    def stream(self, artifact: Artifact, context: StageContext) -> Iterator[bytes]:
        stream = self._source.stream(artifact, context)
        happened = False
        try:
            for chunk in stream:
                if not happened:
                    self._happens()
                    happened = True
                yield chunk
        finally:
            stream.close()  # type: ignore[attr-defined]


def end_sessions() -> None:
    query = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = "
    assert server().execute(query + "'nxs-backup'")


def broken(build: Build, **keys: Any) -> Make:
    return lambda _place, _cleanup: Disturbed(build(**keys), end_sessions)


def blocked(build: Build, **keys: Any) -> Make:
    def make(_place: Path, cleanup: ExitStack) -> Source:
        source = build(**keys)
        cleanup.callback(server().thaw)
        return Disturbed(source, server().freeze)

    return make


def the_same(data: bytes) -> object:
    return data


def same_dump(data: bytes) -> object:
    """What pg_restore makes of a dump, which itself holds the time it was made at."""
    return same_sql(run_as_server([str(server().bin / "pg_restore"), "-f", "-"], data).encode())


def same_sql(data: bytes) -> object:
    """Without the key of each dump, which is new each time."""
    return re.sub(rb"\\(un)?restrict \w+\n", b"", data)


def same_members(data: bytes) -> object:
    """The tables: what tells when the copy was made, and WAL, differ from one to the next."""
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        members = [(member.name, member.size) for member in archive]
    return sorted(member for member in members if re.fullmatch(r"base/\d+/\d+", member[0]))


@dataclass(frozen=True)
class PostgresCase(Case):
    same: Callable[[bytes], object] = the_same
    """What has to be the same for the same content."""


def case(build: Build, same: Callable[[bytes], object], **keys: Any) -> PostgresCase:
    return PostgresCase(
        sound=sound(build, **keys),
        broken=broken(build, **keys),
        unusable=unusable(build, **keys),
        blocked=blocked(build, **keys),
        same=same,
    )


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case(logical, same_dump), id="postgres"),
        pytest.param(case(logical, same_sql, format="plain"), id="postgres-plain"),
        pytest.param(case(logical, the_same, format="copy"), id="postgres-copy"),
        pytest.param(
            case(logical, the_same, format="copy", copy_format="binary"), id="postgres-binary"
        ),
        pytest.param(case(physical, same_members), id="postgres_physical"),
        pytest.param(case(physical, same_members, method="client"), id="postgres_physical-client"),
    ],
)
class TestPostgresSources(SourceContract):
    def test_the_same_content_is_the_same_bytes(
        self, case: PostgresCase, tmp_path: Path, cleanup: ExitStack
    ) -> None:
        read = [b"".join(start(case.sound(tmp_path, cleanup), StageContext())[1]) for _ in range(2)]
        assert case.same(read[0]) == case.same(read[1])
        assert case.same(read[0])
