"""`files` against GNU tar and against the commands that nxs-backup v3 runs.

Reading alone is measured against `tar` into a pipe: a tree in memory, big files, and a file system
in which every request takes 1 or 5 ms (`slowfs.c`, which needs FUSE, gcc and the headers of
libfuse 3). End to end, to two folders, it is v3: `tar --format=pax` through pgzip at level 9
(parallel gzip in blocks of 1 MiB) into a temporary file, then copied to each storage. Ours
compresses with zstd and encrypts with age on top, and has no temporary file. Where `V3` names the
program of v3 itself, it runs too.

`FILES="hot latency"` chooses among the measurements.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from bench.measure import ARCHIVE, BUILD, ROOT, Cost, compare, cost, show

MANY, FEW = 200_000, 50_000
"""Files for reading alone, and end to end."""
_BIG = 256 << 20
_MEMORY = Path("/dev/shm")
CONFIGURATION = """\
name: bench
storages:
  a: {{type: local, path: {base}/ours-a}}
  b: {{type: local, path: {base}/ours-b}}
backups:
  tree:
    source: {{type: files, paths: [{base}/tree]}}
    stages: {stages}
    fan_out: [{{storage: a, rotate: {{last: 1}}}}, {{storage: b, rotate: {{last: 1}}}}]
"""


def make_tree(root: Path, files: int) -> None:
    """Files of 1 to 16 KiB in folders of 100, cut out of what is installed here."""
    if root.exists():
        return
    rng = random.Random(7)
    corpus = _corpus(rng)
    part = root.with_suffix(".part")
    for folder in range(files // 100):
        path = part / f"d{folder // 50:03d}" / f"project-{folder % 50:02d}"
        path.mkdir(parents=True)
        for number in range(100):
            size = rng.randint(1024, 16384)
            offset = rng.randrange(len(corpus) - size)
            (path / f"file-{number:03d}.dat").write_bytes(corpus[offset : offset + size])
    part.rename(root)


def _corpus(rng: random.Random, size: int = 200 << 20) -> bytes:
    pieces: list[bytes] = []
    for directory, folders, names in os.walk("/usr"):
        folders.sort()
        for name in sorted(names):
            path = Path(directory, name)
            if path.is_file() and not path.is_symlink() and rng.random() < 0.25:
                pieces.append(path.read_bytes()[: 1 << 20])
        if sum(map(len, pieces)) > size:
            break
    return b"".join(pieces)


def read(root: Path) -> Cost:
    """Our reader alone: the archive is made and dropped."""
    command = [sys.executable, "-m", "bench.reader", str(root)]
    said = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    wall, cpu, *_ = said.split()
    return Cost(float(wall), float(cpu))


def gnu_read(root: Path) -> Cost:
    """GNU tar into a pipe: into /dev/null it would not read the files."""
    options = "--format=pax --xattrs --acls --create --file=-"
    line = f"tar {options} --directory={root.parent} {root.name} | cat > /dev/null"
    return cost(["bash", "-o", "pipefail", "-c", line], BUILD, quiet=True)


def hot() -> None:
    """Many small files and a few big ones, all in memory."""
    with _in_memory() as place:
        make_tree(place / "many", MANY)
        found = compare(partial(read, place / "many"), partial(gnu_read, place / "many"))
        rate = MANY / found.ours.wall
        show(f"{MANY:,} small files, {rate:,.0f} files/s", "tar | cat", found, "70,000 files/s")
        shutil.rmtree(place / "many")
        (place / "big").mkdir()
        for number in range(4):
            (place / "big" / str(number)).write_bytes(os.urandom(_BIG))
        found = compare(partial(read, place / "big"), partial(gnu_read, place / "big"))
        show("4 files of 256 MiB", "tar | cat", found, "1.0")


def unchanged(root: Path, index: Path) -> Cost:
    """An increment of ours in which nothing has changed."""
    command = [sys.executable, "-m", "bench.unchanged", str(root), str(index)]
    said = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    wall, cpu, *_ = said.split()
    return Cost(float(wall), float(cpu))


def gnu_unchanged(root: Path, snapshot: Path) -> Cost:
    """The same of GNU tar, which changes its snapshot: it gets a copy."""
    shutil.copy(snapshot, BUILD / "snapshot")
    options = f"--format=pax --create --file=- --listed-incremental={BUILD}/snapshot"
    line = f"tar {options} --directory={root.parent} {root.name} | cat > /dev/null"
    return cost(["bash", "-o", "pipefail", "-c", line], BUILD, quiet=True)


def _compare_unchanged(
    name: str, root: Path, target: str, pairs: int = 3, rest: float = 0.0
) -> None:
    """Compare both, with so many seconds of rest before each."""
    index, snapshot = BUILD / "index", BUILD / "snapshot.first"
    for path in (index, snapshot):
        path.unlink(missing_ok=True)
    time.sleep(3)  # What was written just now would be saved again.
    unchanged(root, index)
    options = f"--create --file=/dev/null --listed-incremental={snapshot}"
    line = f"tar {options} --directory={root.parent} {root.name}"
    cost(["bash", "-c", line], BUILD, quiet=True)

    def after_rest(measure: Callable[[], Cost]) -> Cost:
        time.sleep(rest)
        return measure()

    found = compare(
        partial(after_rest, partial(unchanged, root, index)),
        partial(after_rest, partial(gnu_unchanged, root, snapshot)),
        pairs=pairs,
    )
    show(name, "tar --listed-incremental | cat", found, target)


def increments() -> None:
    """A tree in which nothing has changed since the last copy, in memory and behind a network."""
    with _in_memory() as place:
        make_tree(place / "many", MANY)
        _compare_unchanged(f"{MANY:,} unchanged files", place / "many", "<= 1.6", pairs=5)
        shutil.rmtree(place / "many")
        program = _slowfs()
        if program is None:
            return
        make_tree(place / "few", 5000)
        with _mounted(program, place / "few", 1) as slow:
            name = "5,000 unchanged files, 1 ms for every request"
            # By then the kernel has forgotten what the other one has asked.
            _compare_unchanged(name, slow, "<= 0.06", pairs=2, rest=4)


def latency() -> None:
    """A file system that answers slowly."""
    program = _slowfs()
    if program is None:
        print("latency: needs /dev/fuse, gcc, pkg-config and libfuse3-dev", flush=True)
        return
    with _in_memory() as place:
        for milliseconds, files, target in ((1, 5000, "<= 0.05"), (5, 1000, "<= 0.05")):
            make_tree(place / str(files), files)
            with _mounted(program, place / str(files), milliseconds) as slow:
                found = compare(partial(read, slow), partial(gnu_read, slow), pairs=2)
            name = f"{files:,} files, {milliseconds} ms for every request"
            show(name, "tar | cat", found, target)


def _slowfs() -> Path | None:
    """The slow file system, built; None when it cannot be had here."""
    if not Path("/dev/fuse").exists() or not shutil.which("gcc") or not shutil.which("pkg-config"):
        return None
    query = ["pkg-config", "--cflags", "--libs", "fuse3"]
    flags = subprocess.run(query, check=False, capture_output=True, text=True)
    if flags.returncode:
        return None
    program, source = BUILD / "slowfs", ROOT / "bench" / "slowfs.c"
    subprocess.run(["gcc", "-O2", "-o", program, source, *flags.stdout.split()], check=True)
    return program


@contextmanager
def _mounted(program: Path, directory: Path, milliseconds: int) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as mount:
        server = subprocess.Popen([program, directory, mount, str(milliseconds * 1000)])
        try:
            while not os.path.ismount(mount):
                if server.poll() is not None:
                    raise SystemExit("bench: the slow file system cannot be mounted here")
                time.sleep(0.05)
            yield Path(mount)
        finally:
            subprocess.run(["fusermount3", "-u", "-z", mount], check=False)
            server.wait()


@contextmanager
def _in_memory() -> Iterator[Path]:
    enough = _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free > 4 << 30
    with tempfile.TemporaryDirectory(dir=_MEMORY if enough else None) as place:
        yield Path(place)


def parallel_gzip() -> tuple[list[str], str]:
    """The codec of v3 where Go can build it, else pigz."""
    target = ROOT / "build" / "pgzip"
    if shutil.which("go"):
        source = ROOT / "bench" / "pgzip"
        subprocess.run(["go", "build", "-o", str(target), "."], cwd=source, check=True)
        return [str(target)], "pgzip -9"
    if shutil.which("pigz"):
        return ["pigz", "-9"], "pigz -9 (no Go here to build pgzip)"
    raise SystemExit("bench: needs go (for pgzip, the codec of v3) or pigz")


def rival(codec: list[str]) -> Cost:
    """tar | gzip > temporary file; one copy for each storage."""
    for name in ("rival-a", "rival-b"):
        (BUILD / name).mkdir(exist_ok=True)
    line = (
        f"tar --format=pax --create --file=- tree | {codec[0]} {' '.join(codec[1:])} > tmp.tgz"
        " && cp tmp.tgz rival-a/ && cp tmp.tgz rival-b/ && rm tmp.tgz"
    )
    return cost(["bash", "-o", "pipefail", "-c", line], BUILD)


def v3(program: str) -> Cost:
    """The program itself, to one folder: two local ones are more than it can do."""
    place = BUILD / "v3"
    shutil.rmtree(place, ignore_errors=True)
    job = {
        "job_name": "tree",
        "type": "desc_files",
        "tmp_dir": str(BUILD / "v3-tmp"),
        "sources": [{"name": "tree", "targets": [str(BUILD / "tree")], "gzip": True}],
        "storages_options": [
            {"storage_name": "local", "backup_path": str(place), "retention": {"days": 1}}
        ],
    }
    config = {
        "server_name": "bench",
        "project_name": "bench",
        "server": {"metrics": {"enabled": False}},  # Else it asks the network for a newer one.
        "notifications": {"mail": {"enabled": False}, "webhooks": []},
        "storage_connects": [],
        "jobs": [job],
        "logfile": str(BUILD / "v3.log"),
    }
    path = BUILD / "v3.conf"
    path.write_text(json.dumps(config))
    found = cost([program, "-c", str(path), "start", "tree"], BUILD, quiet=True)
    if not any(place.rglob("*.tar.gz")):
        raise SystemExit(f"bench: v3 has written nothing; see {BUILD}/v3.log")
    return found


def shell_pipe() -> Cost:
    """What somebody would write by hand to get the same result as ours."""
    line = (
        "tar --format=pax --create --file=- tree | zstd -3 -q | age -r $(cat key.pub) "
        "| tee rival-a/x > rival-b/x"
    )
    return cost(["bash", "-o", "pipefail", "-c", line], BUILD)


def ours(config: Path) -> Cost:
    """The archive, as a user runs it."""
    return cost([sys.executable, str(ARCHIVE), "run", "-qq", str(config)], BUILD)


def configure(name: str, stages: str) -> Path:
    """A configuration in the bench folder, with a key of its own."""
    path = BUILD / f"{name}.yaml"
    path.write_text(CONFIGURATION.format(base=BUILD, stages=stages))
    path.chmod(0o600)
    key = BUILD / "key.txt"
    if not key.exists():
        command = [sys.executable, str(ARCHIVE), "keygen", str(key)]
        public = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        (BUILD / "key.pub").write_text(public)
    return path


def end_to_end() -> None:
    """A whole run to two folders."""
    make_tree(BUILD / "tree", FEW)
    codec, name = parallel_gzip()
    title = f"tar | {name} > tmp; cp; cp"
    age = f"[{{type: zstd}}, {{type: age, recipients_file: {BUILD}/key.pub}}]"
    strong = configure("zstd-age", age)
    found = compare(partial(ours, strong), partial(rival, codec))
    show(f"{FEW:,} files, zstd and age, two folders", title, found, "<= 0.15 wall, 0.12 CPU")
    found = compare(partial(ours, configure("gzip", "[{type: gzip}]")), partial(rival, codec))
    show(f"{FEW:,} files, gzip, two folders", title, found, "<= 0.22 wall")
    if program := os.environ.get("V3"):
        found = compare(partial(ours, strong), partial(v3, program), pairs=2)
        show(
            f"{FEW:,} files, zstd and age, two folders",
            "v3 itself, gzip, one folder",
            found,
            "<= 0.15 wall",
        )
    if shutil.which("age") and shutil.which("zstd"):
        found = compare(partial(ours, strong), shell_pipe)
        show("the same against a shell pipe", "tar | zstd | age | tee", found, "<= 1.10")


MEASUREMENTS: dict[str, Callable[[], None]] = {
    "hot": hot,
    "latency": latency,
    "increments": increments,
    "end-to-end": end_to_end,
}


def main() -> None:
    """Print the comparisons."""
    BUILD.mkdir(parents=True, exist_ok=True)
    for name in os.environ.get("FILES", "").split() or MEASUREMENTS:
        MEASUREMENTS[name]()
