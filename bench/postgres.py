"""PostgreSQL: base backups and dumps against its own programs, and against what v3 does.

v3 writes pg_dump's SQL through pgzip at level 9 into a temporary file and copies that to each
storage; for a physical backup it has pg_basebackup fill a temporary folder first, then archives it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.files import parallel_gzip
from bench.measure import ARCHIVE, BUILD, ROOT, Cost, compare, cost, show
from tests.servers.base import HOST
from tests.servers.postgres import PASSWORD, USER, Postgresql, run_as_server

SCALE = 80
"""Of pgbench: about 1.2 GB: less is lost in the start of an interpreter."""
FOLDER = BUILD / "postgres"
CONFIGURATION = """\
name: bench
storages:
  a: {{type: local, path: {folder}/ours}}
backups:
  shop:
    source: {{type: {source}, host: {host}, port: {port}, password: "${{PGPASSWORD}}", {more}}}
    stages: [{{type: zstd}}]
    fan_out: [{{storage: a, rotate: {{last: 1}}}}]
"""
# The source alone, with nothing behind it.
STREAM = """\
import collections, sys
from pipeline.context import StageContext
from schemas.postgres import PostgresPhysicalSource
from stages.sources.postgres_physical import PostgresPhysical
spec = PostgresPhysicalSource(type="postgres_physical", host=sys.argv[1], port=int(sys.argv[2]))
source = PostgresPhysical(spec, "shop")
collections.deque(source.stream(source.artifacts()[0], StageContext()), maxlen=0)
"""


def shell(line: str, server: Postgresql) -> Cost:
    return cost(["bash", "-o", "pipefail", "-c", line], FOLDER, environment(server), quiet=True)


def environment(server: Postgresql) -> dict[str, str]:
    where = {"PGHOST": HOST, "PGPORT": str(server.port), "PGUSER": USER, "PGPASSWORD": PASSWORD}
    return {**where, "PATH": f"{server.bin}:{os.environ['PATH']}"}


def configure(server: Postgresql, source: str, more: str) -> Path:
    path = FOLDER / f"{source}.yaml"
    path.write_text(
        CONFIGURATION.format(folder=FOLDER, source=source, host=HOST, port=server.port, more=more)
    )
    path.chmod(0o600)
    return path


def ours(command: Sequence[str], server: Postgresql) -> Cost:
    return cost([sys.executable, *command], ROOT, environment(server))


def fill(server: Postgresql) -> None:
    command = [str(server.bin / "pgbench"), "-i", "-q", "-s", str(SCALE), "-h", str(server.dir)]
    command += ["-p", str(server.port), "-U", USER, "postgres"]
    run_as_server(command, env={**os.environ, "PGPASSWORD": PASSWORD})
    server.execute("CHECKPOINT")


def physical(server: Postgresql, gzip: str) -> None:
    native = "pg_basebackup -c fast -Ft -X fetch -D -"
    alone = ["-c", STREAM, HOST, str(server.port)]
    found = compare(lambda: ours(alone, server), lambda: shell(native + " > /dev/null", server))
    show("PostgreSQL, base backup, to nowhere", native, found, "<= 0.90")
    run = [
        str(ARCHIVE),
        "run",
        "-qq",
        str(configure(server, "postgres_physical", "user: postgres")),
    ]
    piped = f"{native} | zstd -3 -q -T0 > rival.tar.zst"
    found = compare(lambda: ours(run, server), lambda: shell(piped, server))
    show("PostgreSQL, base backup, zstd, to a folder", piped, found, "(none)")
    v3 = (
        "rm -rf tmp && pg_basebackup -c fast -X fetch -D tmp && "
        f"tar --format=pax -cf - tmp | {gzip} > tmp.tgz && cp tmp.tgz rival.tgz && "
        "rm -r tmp tmp.tgz"
    )
    found = compare(lambda: ours(run, server), lambda: shell(v3, server), pairs=1)
    show(
        "PostgreSQL, base backup, as v3 does it", "pg_basebackup; tar | pgzip -9; cp", found, "< 1"
    )


def logical(server: Postgresql, gzip: str) -> None:
    more = "databases: [postgres], globals: false"
    run = [str(ARCHIVE), "run", "-qq", str(configure(server, "postgres", more))]
    piped = "pg_dump -Fc -Z0 postgres | zstd -3 -q -T0 > rival.dump.zst"
    found = compare(lambda: ours(run, server), lambda: shell(piped, server))
    show("PostgreSQL, dump, zstd, to a folder", piped, found, "<= 1.03")
    v3 = f"pg_dump postgres | {gzip} > tmp.gz && cp tmp.gz rival.gz && rm tmp.gz"
    found = compare(lambda: ours(run, server), lambda: shell(v3, server), pairs=1)
    show("PostgreSQL, dump, as v3 does it", "pg_dump | pgzip -9 > tmp; cp", found, "< 1")


def main() -> None:
    """Print the comparisons."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    gzip = subprocess.list2cmdline(parallel_gzip()[0])
    try:
        with Postgresql() as server:
            fill(server)
            physical(server, gzip)
            logical(server, gzip)
    finally:
        shutil.rmtree(FOLDER, ignore_errors=True)
