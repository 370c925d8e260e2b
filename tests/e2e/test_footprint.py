"""What a run takes from its host: no byte on its disk, a known amount of memory."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from pipeline.catalog import parse_time
from tests import tree
from tests.e2e.program import Program, files_below, memory_ceiling, peak_memory
from tests.servers import places
from tests.servers.base import HOST
from tests.servers.sshd import USER, Sshd

pytestmark = pytest.mark.e2e

MIB, GIB = 1 << 20, 1 << 30
STREAM = int(os.environ.get("STREAM_MIB", "256")) * MIB
RANDOM = "exec openssl enc -aes-128-ctr -nosalt -K 00 -iv 00 -in /dev/zero 2>/dev/null"

TWO_STORAGES = """\
    name: shop
    storages:
      disk: {type: local, path: "{here}/disk", fsync: false}
      nas:
        type: sftp
        host: {host}
        port: {port}
        user: {user}
        key_file: {key}
        host_key: {host_key}
        path: {remote}
    backups:
      it:
        source: {source}
        stages: [{type: zstd}, {type: age, recipients_file: "{here}/key.pub"}]
        fan_out: [{storage: disk, rotate: {last: 1}}, {storage: nas, rotate: {last: 1}}]
"""


def configure(program: Program, sshd: Sshd, source: str) -> tuple[Path, Path]:
    """The configuration, and where the SFTP storage keeps its objects."""
    (program.folder / "key.pub").write_text(program.ok("keygen", "key.txt"))
    remote = sshd.data / program.folder.name
    text = TWO_STORAGES
    values = {
        "host": HOST,
        "port": sshd.port,
        "user": USER,
        "key": sshd.key,
        "host_key": sshd.host_key,
        "remote": remote,
        "source": source,
    }
    for name, value in values.items():
        text = text.replace("{" + name + "}", str(value))
    return program.configure(text), remote


WRITES = re.compile(
    r"(?:openat|open|creat|mkdir|mkdirat|rename|renameat|renameat2|link|linkat|symlink|unlink|"
    r"unlinkat|truncate|memfd_create|mknod|mknodat)\((?P<arguments>.*)\)\s+= (?!-1)"
)
OPEN = re.compile(r'open(?:at)?\(.*?"(?P<path>[^"]*)", (?P<flags>[A-Z_|]+)')


def to_everywhere(program: Program, storages: dict[str, Any], source: dict[str, Any]) -> Path:
    """The configuration of one backup to several storages."""
    backup = {
        "source": source,
        "stages": [],
        "fan_out": [{"storage": name, "rotate": {"last": 1}} for name in storages],
    }
    return program.configure(
        json.dumps({"name": "shop", "storages": storages, "backups": {"it": backup}})
    )


@pytest.mark.timeout(600)
def test_no_local_byte_outside_the_storage(program: Program) -> None:
    """Looks at each system call that could make or change a file, of all threads and children."""
    tree.mixed(program.folder / "source", 300)
    with ExitStack() as stack:
        found = places.start(stack, program.folder)
        storages = {name: place.keys for name, place in found.items()}
        source = {"type": "files", "paths": [f"{program.folder}/source"]}
        _no_local_byte(program, to_everywhere(program, storages, source))


def _no_local_byte(program: Program, config: Path) -> None:
    program.ok("run", config)  # the archive has unpacked itself, Python has compiled what it needs
    trace = program.folder.parent / f"{program.folder.name}.trace"
    calls = "trace=openat,open,creat,/^(mkdir|rename|link|symlink|unlink|truncate|memfd|mknod).*"
    strace = ["strace", "-f", "-qq", "-s", "4096", "-e", calls, "-o", str(trace)]
    before = files_below(program.folder)
    done = subprocess.run(
        [*strace, *program.command("run", config, "-q")],
        cwd=program.folder,
        env=program.environment,
        capture_output=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    touched = written_paths(trace.read_text(errors="replace"))
    inside = [path for path in touched if path.startswith(str(program.folder / "disk"))]
    assert len(inside) >= 4, "the trace has not seen the storage being written"
    assert [path for path in touched if path not in inside and path != "/dev/null"] == []
    assert {name for name in files_below(program.folder) if not name.startswith("disk/")} == {
        name for name in before if not name.startswith("disk/")
    }


def written_paths(trace: str) -> list[str]:
    """The paths of all successful calls that can write."""
    found = []
    for line in trace.splitlines():
        if not WRITES.search(line):
            continue
        opened = OPEN.search(line)
        if opened:
            if re.search("O_WRONLY|O_RDWR|O_CREAT|O_TRUNC|O_TMPFILE", opened["flags"]):
                found.append(opened["path"])
        else:
            found += re.findall(r'"([^"]*)"', line)[:1]
    return found


@pytest.mark.timeout(600)
def test_a_stream_arrives_as_it_is_within_the_memory_of_the_plan(
    program: Program, place: places.Place
) -> None:
    """`STREAM_MIB=2048` in the environment makes it as large as one likes."""
    line = f"{RANDOM} | head -c {STREAM}"
    source = {"type": "command", "command": ["sh", "-c", line]}
    config = to_everywhere(program, {"there": place.keys}, source)
    ceiling = memory_ceiling(program, config)
    code, peak = peak_memory(program.start("run", config))
    assert code == 0, (program.folder / "output").read_text()
    print(f"peak {peak / MIB:.0f} MiB, ceiling {ceiling / MIB:.0f} MiB")
    assert peak < ceiling < 256 * MIB
    stored = [path for path in place.data.rglob("*") if path.is_file()]
    whole = max(stored, key=lambda path: path.stat().st_size)
    assert sha256_of(f"cat '{whole}'") == sha256_of(line)
    assert whole.stat().st_size == STREAM


def sha256_of(line: str) -> str:
    """The digest of what a shell line prints."""
    return subprocess.check_output(["sh", "-c", f"{line} | sha256sum"], text=True).split()[0]


def test_five_gibibytes_to_two_storages_stay_under_the_ceiling(
    program: Program, sshd: Sshd
) -> None:
    # Random bytes: neither zstd nor the page cache of a sparse file makes it easier than it is.
    source = f"{{type: command, command: [sh, -c, '{RANDOM} | head -c {5 * GIB}']}}"
    config, remote = configure(program, sshd, source)
    graph = program.ok("graph", config)
    ceiling = float(graph.split("memory at most ")[1].split(" MiB")[0]) * MIB
    code, peak = peak_memory(program.start("run", config))
    output = (program.folder / "output").read_text()
    assert code == 0, output
    print(f"peak {peak / MIB:.0f} MiB, ceiling {ceiling / MIB:.0f} MiB")
    for folder in (program.folder / "disk", remote):
        sizes = [os.path.getsize(folder / name) for name in files_below(folder)]
        assert max(sizes) > 5 * GIB
    for folder in (program.folder / "disk", remote):
        for name in files_below(folder):
            (folder / name).unlink()
    assert peak < ceiling
    assert peak < 200 * MIB


def test_memory_does_not_grow_with_the_data(program: Program) -> None:
    peaks = []
    for size in (256 * MIB, 2 * GIB):
        config = program.configure(f"""\
            name: shop
            storages: {{disk: {{type: local, path: "{{here}}/disk", fsync: false}}}}
            backups:
              it:
                source: {{type: command, command: [head, -c, "{size}", /dev/zero]}}
                stages: [{{type: gzip, level: 1}}]
                fan_out: [{{storage: disk}}]
        """)
        code, peak = peak_memory(program.start("run", config))
        assert code == 0
        peaks.append(peak)
    assert peaks[1] < peaks[0] + 24 * MIB, [peak / MIB for peak in peaks]


def test_a_command_that_needs_no_driver_imports_none(program: Program) -> None:
    """Start-up time as something that can be asserted: what is imported."""
    config = program.configure("""\
        name: shop
        storages: {disk: {type: local, path: "{here}/disk"}}
        backups:
          it:
            source: {type: command, command: [echo, hi]}
            fan_out: [{storage: disk}]
    """)
    lazy = {"asyncssh", "httpx", "cryptography", "structlog", "deflate", "lz4", "asyncio"}
    done = subprocess.run(
        [
            *program.command("check", config)[:1],
            "-X",
            "importtime",
            program.archive,
            "check",
            config,
        ],
        env=program.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "schemas.load" in imported
    assert imported & lazy == set()


def test_many_files_under_a_low_limit_of_descriptors(program: Program) -> None:
    tree.mixed(program.folder / "source", 2000)
    config = program.configure("""\
        name: shop
        storages: {disk: {type: local, path: "{here}/disk"}}
        backups:
          it:
            source: {type: files, paths: ["{here}/source"]}
            fan_out: [{storage: disk}]
    """)
    done = subprocess.run(
        program.command("run", config),
        env=program.environment,
        capture_output=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)),
    )
    assert done.returncode == 0, done.stderr


def test_times_are_utc_whatever_the_host_thinks(program: Program) -> None:
    config = program.configure("""\
        name: shop
        storages: {disk: {type: local, path: "{here}/disk"}}
        backups:
          it: {source: {type: command, command: [echo, hi]}, fan_out: [{storage: disk}]}
    """)
    program.environment["TZ"] = "Pacific/Kiritimati"
    report = program.json("run", config)
    listed = program.json("list", config)["backups"][0]["manifest"]["taken_at"]
    assert abs((parse_time(listed) - parse_time(report["started"])).total_seconds()) <= 5
