"""Redis: the stream of a dump against `redis-cli --rdb -`, and the whole run against what v3 does.

v3 has redis-cli write the dump into a temporary file, packs that with pgzip at level 9, and copies
it to each storage.
"""

from __future__ import annotations

import os
import secrets
import sys

from bench.files import parallel_gzip
from bench.measure import ARCHIVE, BUILD, ROOT, compare, cost, show
from tests.servers.base import HOST
from tests.servers.redis import PASSWORD, RedisServer

MIB = int(os.environ.get("MIB", "2048"))
FOLDER = BUILD / "redis"
CONFIGURATION = """\
name: bench
storages:
  a: {{type: local, path: {folder}/ours}}
backups:
  cache:
    source: {{type: redis, host: {host}, port: {port}, password: "${{PASSWORD}}"}}
    stages: [{{type: zstd}}]
    fan_out: [{{storage: a, rotate: {{last: 1}}}}]
"""
# The source alone, with nothing behind it.
STREAM = """\
import collections, os, sys
from pipeline.context import StageContext
from schemas.redis import RedisSource
from stages.sources.redis import Redis
spec = RedisSource(
    type="redis", host=sys.argv[1], port=int(sys.argv[2]), password=os.environ["PASSWORD"]
)
source = Redis(spec, "cache")
collections.deque(source.stream(source.artifacts()[0], StageContext()), maxlen=0)
"""


def fill(server: RedisServer) -> None:
    """Values of 4 KiB that a codec can do something with."""
    with server.client() as client:
        for block in range(MIB):
            half = secrets.token_hex(1024)
            values = {f"key {block} {number}": f"{number}{half}" * 2 for number in range(256)}
            client.mset(values)


def main() -> None:
    """Print the ratios."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    (gzip,), name = parallel_gzip()
    with RedisServer() as server:
        fill(server)
        variables = {"PASSWORD": PASSWORD, "REDISCLI_AUTH": PASSWORD, "PYTHONPATH": str(ROOT)}
        native = f"redis-cli -h {HOST} -p {server.port} --rdb -"
        alone = [sys.executable, "-c", STREAM, HOST, str(server.port)]
        found = compare(
            lambda: cost(alone, ROOT, variables),
            lambda: cost(["sh", "-c", f"{native} > /dev/null"], FOLDER, variables, quiet=True),
        )
        show(f"Redis, {MIB} MiB, to nowhere", native, found, "<= 1.05 wall")
        config = FOLDER / "redis.yaml"
        config.write_text(CONFIGURATION.format(folder=FOLDER, host=HOST, port=server.port))
        config.chmod(0o600)
        run = [sys.executable, str(ARCHIVE), "-qq", "run", str(config)]
        line = f"{native.removesuffix(' -')} tmp.rdb && {gzip} < tmp.rdb > tmp.gz && cp tmp.gz copy"
        found = compare(
            lambda: cost(run, FOLDER, variables),
            lambda: cost(["sh", "-c", line], FOLDER, variables, quiet=True),
        )
        show("the same with zstd to a folder", f"redis-cli > tmp; {name}; cp", found, "<= 0.25")


if __name__ == "__main__":
    main()
