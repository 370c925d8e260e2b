"""Dumps of a real MariaDB server: ours against mariadb-dump, mydumper and what v3 does.

Each in turn on the same server and the same rows. Ours is the source alone in a process of its own
(what the rest of the program costs is measured in `bench/engine`). `MIB` is the size of the rows.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from bench.measure import ROOT, Cost, compare, cost, show
from tests.servers.mariadb import MariaDb

MIB = int(os.environ.get("MIB", "768"))
_MEMORY = Path("/dev/shm")
_TABLES = """
CREATE TABLE {db}.plain (id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, k INT NOT NULL,
    c CHAR(120) NOT NULL, pad CHAR(60) NOT NULL);
INSERT INTO {db}.plain SELECT seq, seq * 7919 % 1000003, REPEAT(MD5(seq), 3), MD5(seq + 1)
    FROM seq_1_to_{plain};
CREATE TABLE {db}.mixed (id BIGINT PRIMARY KEY, customer INT, state ENUM('new','paid','done'),
    total DECIMAL(12,2), rate FLOAT, made DATETIME(3), changed TIMESTAMP, note VARCHAR(200),
    about JSON, parent INT, hash VARBINARY(16));
INSERT INTO {db}.mixed SELECT seq, seq % 1000, 1 + seq % 3, seq / 7, seq / 3, NOW(), NOW(),
    CONCAT('it''s ', MD5(seq)), CONCAT('{{"a": ', seq, '}}'), IF(seq % 3 = 0, NULL, seq),
    UNHEX(MD5(seq)) FROM seq_1_to_{mixed};
CREATE TABLE {db}.numbers (a INT PRIMARY KEY, b BIGINT, c DOUBLE, d INT, e INT UNSIGNED);
INSERT INTO {db}.numbers SELECT seq, seq * 7, seq / 3, seq, seq FROM seq_1_to_{numbers};
CREATE TABLE {db}.blobs (id INT PRIMARY KEY, b MEDIUMBLOB);
INSERT INTO {db}.blobs SELECT seq, REPEAT(UNHEX(SHA2(seq, 512)), 3000) FROM seq_1_to_{blobs};
ANALYZE TABLE {db}.plain, {db}.mixed, {db}.numbers, {db}.blobs
"""
_OURS = """
import json, sys
from pipeline.malloc import Trimmer
from schemas.mysql import MysqlSource
from pipeline.context import StageContext
from stages.sources.mysql import Mysql
Trimmer()
source = Mysql(MysqlSource(type="mysql", **json.loads(sys.argv[1])))
for artifact in source.artifacts():
    for chunk in source.stream(artifact, StageContext()):
        sys.stdout.buffer.write(chunk)
status = open("/proc/self/status").read()
open(sys.argv[2], "w").write(status.split("VmHWM:")[1].split()[0])
"""


def main() -> None:
    """Print the comparisons."""
    if _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free > (5 * MIB) << 20:
        tempfile.tempdir = str(_MEMORY)  # The server keeps its data below it.
    options = ("skip-log-bin", f"innodb-buffer-pool-size={2 * MIB}M", "max-allowed-packet=64M")
    with tempfile.TemporaryDirectory() as folder, MariaDb(*options) as server:
        unit = MIB * 1000
        sizes = {"plain": unit * 3, "mixed": unit * 2, "numbers": unit * 3, "blobs": MIB}
        server.sql("CREATE DATABASE bench CHARACTER SET utf8mb4")
        server.sql(_TABLES.format(db="bench", **sizes), "bench")
        for connections in (1, 2):
            _against(server, Path(folder), connections)


def _against(server: MariaDb, folder: Path, connections: int) -> None:
    peak = folder / "peak"
    keys = server.keys(databases=["bench"], parallel=connections)
    ours = functools.partial(cost, [sys.executable, "-c", _OURS, json.dumps(keys), str(peak)], ROOT)
    target = "1.1 wall, 1.0 CPU" if connections == 1 else "0.95 wall, 1.0 CPU"
    for name, rival, wanted in _rivals(server, folder, connections):
        if rival is None:
            print(f"{name}: not installed")
            continue
        found = compare(ours, rival)
        show(f"mysql over {connections} connection(s), {MIB} MiB", name, found, wanted or target)
    print(f"  memory {int(peak.read_text()) >> 10:8d} MiB at most             target below 100")


def _rivals(
    server: MariaDb, folder: Path, connections: int
) -> list[tuple[str, Callable[[], Cost] | None, str]]:
    login = f"--defaults-file={server.option_file()}"
    dump = ["mariadb-dump", login, "--single-transaction", "--quick", "--hex-blob", "bench"]
    line = " ".join(dump) + " | gzip > /dev/null"
    rivals: list[tuple[str, Callable[[], Cost] | None, str]] = [
        ("mariadb-dump", functools.partial(cost, dump, folder), "")
    ]
    if connections == 1:
        v3 = functools.partial(cost, ["sh", "-c", line], folder)
        rivals.append(("mariadb-dump | gzip (nxs-backup v3)", v3, "-"))
    into = folder / "mydumper"
    many = [
        "mydumper",
        login,
        "--database=bench",
        f"--threads={connections}",
        f"--outputdir={into}",
    ]

    def mydumper() -> Cost:
        shutil.rmtree(into, ignore_errors=True)
        return cost([*many, "--rows=200000", "--trx-consistency-only"], folder, quiet=True)

    rivals.append(("mydumper, to files", mydumper if shutil.which("mydumper") else None, "-"))
    return rivals


if __name__ == "__main__":
    main()
