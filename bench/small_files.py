"""50,000 small files to two folders, against the commands that nxs-backup v3 runs.

v3 pipes `tar --format=pax` through pgzip at level 9 (parallel gzip in blocks of 1 MiB) into a
temporary file, then copies that to each storage. Ours compresses with zstd and encrypts with age on
top, and has no temporary file.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

from bench.measure import ARCHIVE, BUILD, ROOT, Cost, compare, cost, show

FILES = 50_000
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


def make_tree(root: Path, files: int = FILES) -> None:
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


def main() -> None:
    """Print the comparisons."""
    BUILD.mkdir(parents=True, exist_ok=True)
    make_tree(BUILD / "tree")
    codec, name = parallel_gzip()
    age = f"[{{type: zstd}}, {{type: age, recipients_file: {BUILD}/key.pub}}]"
    strong = configure("zstd-age", age)
    found = compare(lambda: ours(strong), lambda: rival(codec))
    show("50,000 files, zstd and age, two folders", f"tar | {name} > tmp; cp; cp", found, "<= 0.25")
    plain = configure("gzip", "[{type: gzip}]")
    found = compare(lambda: ours(plain), lambda: rival(codec))
    show("50,000 files, gzip, two folders", f"tar | {name} > tmp; cp; cp", found, "<= 0.25")
    if shutil.which("age") and shutil.which("zstd"):
        found = compare(lambda: ours(strong), shell_pipe)
        show("the same against a shell pipe", "tar | zstd | age | tee", found, "<= 1.10")
