"""Archives of a real server that speaks MongoDB's protocol: ours against mongodump.

Both in turn on the same documents. FerretDB takes most of the wall time of both, and the start of
Python (0.4 s) most of our CPU with few documents: `MIB` is their size. mongodump is in no registry
that the project uses: install it to see its figures.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

from bench.measure import ROOT, compare, cost, show
from tests.servers.base import HOST
from tests.servers.mongodb import MongoServer

MIB = int(os.environ.get("MIB", "256"))
_COLLECTIONS = 4
_BATCH = 100
_OURS = """
import json, sys
from pipeline.malloc import Trimmer
from pipeline.context import StageContext
from schemas.mongodb import MongodbSource
from stages.sources.mongodb import Mongodb
Trimmer()
source = Mongodb(MongodbSource(type="mongodb", **json.loads(sys.argv[1])))
for artifact in source.artifacts():
    for chunk in source.stream(artifact, StageContext()):
        sys.stdout.buffer.write(chunk)
status = open("/proc/self/status").read()
open(sys.argv[2], "w").write(status.split("VmHWM:")[1].split()[0])
"""


def main() -> None:
    """Print the comparison."""
    with tempfile.TemporaryDirectory() as folder, MongoServer() as server:
        _fill(server)
        peak = Path(folder) / "peak"
        keys = {"host": HOST, "port": server.port, "tls": {"mode": "off"}, "databases": ["bench"]}
        command = [sys.executable, "-c", _OURS, json.dumps(keys), str(peak)]
        ours = functools.partial(cost, command, ROOT)
        program = shutil.which("mongodump")
        if program is None:
            found = ours()
            print(f"mongodb, {MIB} MiB: mongodump is not installed")
            print(f"  ours   {found.wall:8.2f} s wall {found.cpu:8.2f} s CPU")
        else:
            dump = [program, f"--host={HOST}:{server.port}", "--db=bench", "--archive"]
            rival = functools.partial(cost, dump, Path(folder), quiet=True)
            show(f"mongodb, {MIB} MiB", "mongodump", compare(ours, rival, pairs=1), "1.1 CPU")
        print(f"  memory {int(peak.read_text()) >> 10:8d} MiB at most", flush=True)


def _fill(server: MongoServer) -> None:
    """Documents of about 4 KiB."""
    rounds = (MIB << 20) // (_COLLECTIONS * _BATCH * 4096)
    with server.client() as client:
        for number in range(_COLLECTIONS):
            collection = client.bench[f"documents{number}"]
            for start in range(0, rounds * _BATCH, _BATCH):
                collection.insert_many(
                    {
                        "n": n,
                        "name": f"user{n}",
                        "tags": ["a", "b", "c"],
                        "more": {"x": n * 1.5, "y": "z" * 80},
                        "pad": os.urandom(3900),
                    }
                    for n in range(start, start + _BATCH)
                )


if __name__ == "__main__":
    main()
