"""The container recipes, carried out in folders, where no container engine runs: they build, what
they make works, and this is its size.
"""

from __future__ import annotations

import gzip
import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.e2e.portability.matrix import had
from tests.e2e.portability.systems import BUILD, RELEASE, ROOT, Result, System, debian

USER = 65532
RECIPES = {
    "debian": ("Containerfile", ""),
    "debian with clients": ("Containerfile", "postgresql-client mariadb-client redis-tools"),
    "slim": ("Containerfile.slim", ""),
}


@dataclass
class Image:
    """What a recipe has made: a root folder, and how its program is started."""

    root: Path
    env: dict[str, str] = field(default_factory=dict)
    user: str = "0:0"
    entrypoint: list[str] = field(default_factory=list)

    def run(self, work: Path, *arguments: str) -> Result:
        """Start the program as a locked-up container would: read-only, as its user."""
        system = System(self.root)
        setup = "umount tmp var/tmp home var/cache; mount -o remount,ro,bind ."
        user = int(self.user.partition(":")[0])
        return system.run(work, *self.entrypoint, *arguments, setup=setup, user=user, **self.env)


def build(recipe: Path, clients: str, into: Path) -> Image:
    """Carry out a recipe. FROM is a minimal Debian that debootstrap has made, without what Debian
    leaves out of its slim images.
    """
    stages: dict[str, Image] = {}
    arguments = {"CLIENTS": clients}
    for number, (word, rest) in enumerate(instructions(recipe)):
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            image = Image(into / (name or "image"))
            stages[name] = image
            lay_base(base, image.root)
        elif word == "ENV":
            image.env |= dict(part.split("=", 1) for part in shlex.split(rest))
        elif word == "COPY":
            copy(rest, image, stages)
        elif word == "RUN":
            execute(rest, image, arguments, number)
        elif word == "USER":
            image.user = rest
        elif word == "ENTRYPOINT":
            image.entrypoint = json.loads(rest)
        else:
            assert word in ("ARG", "STOPSIGNAL", "CMD"), f"not known: {word}"
    return image


def instructions(recipe: Path) -> Iterator[tuple[str, str]]:
    """The instructions of a recipe: the word, and the rest as one line."""
    lines = [line for line in recipe.read_text().splitlines() if not line.startswith("#")]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        if line.strip():
            word, _, rest = line.partition(" ")
            yield word, rest.strip()


def lay_base(base: str, root: Path) -> None:
    root.mkdir(parents=True)
    if base == "scratch":
        return
    found = re.fullmatch(r"debian:(\w+)-slim", base)
    assert found, base
    bare = had(lambda: debian(found[1], python=""))
    subprocess.run(["cp", "-a", f"{bare.root}/.", root], check=True)
    for left_out in ("usr/share/doc", "usr/share/man", "usr/share/info", "usr/share/locale"):
        shutil.rmtree(root / left_out, ignore_errors=True)
    for left in ("var/cache/apt/archives", "var/lib/apt/lists"):
        shutil.rmtree(root / left, ignore_errors=True)
        (root / left / "partial").mkdir(parents=True)
    # As in Debian's image, later packages are installed without these either.
    (root / "etc/dpkg/dpkg.cfg.d/docker").write_text(
        "path-exclude /usr/share/doc/*\npath-exclude /usr/share/man/*\n"
        "path-exclude /usr/share/locale/*\npath-exclude /usr/share/info/*\n"
    )


def copy(rest: str, image: Image, stages: dict[str, Image]) -> None:
    *options, source, target = rest.split()
    if options:
        stage = stages[options[0].removeprefix("--from=")]
        subprocess.run(["cp", "-a", f"{stage.root}{source}/.", f"{image.root}{target}"], check=True)
    else:
        shutil.copy(RELEASE / source, f"{image.root}{target}")


def execute(script: str, image: Image, arguments: dict[str, str], number: int) -> None:
    """Run a line as root, with the network: it installs packages."""
    shutil.copy("/etc/resolv.conf", image.root / "etc/resolv.conf")
    enter = 'mount -t proc proc "$1/proc"; shift; exec "$@"'
    variables = [f"{name}={value}" for name, value in {**arguments, **image.env}.items()]
    path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    command = ["unshare", "--mount", "--pid", "--fork", "sh", "-c", enter, "sh", str(image.root)]
    command += ["chroot", str(image.root), "/usr/bin/env", "-i", path]
    command += ["DEBIAN_FRONTEND=noninteractive", *variables, "/bin/sh", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1500)
    assert done.returncode == 0, f"instruction {number}: {done.stdout[-2000:]}{done.stderr[-2000:]}"


@pytest.fixture(scope="module", params=RECIPES)
def image(request: pytest.FixtureRequest) -> Iterator[Image]:
    """Each image; what it takes is printed."""
    recipe, clients = RECIPES[request.param]
    folder = BUILD / "image"
    shutil.rmtree(folder, ignore_errors=True)
    made = build(ROOT / "zipapp" / recipe, clients, folder)
    packed, unpacked = sizes(made.root)
    print(f"image {request.param}: {packed / 1e6:.1f} MB packed, {unpacked / 1e6:.0f} MB unpacked")
    for name in ("proc", "mnt", "tmp", "var/tmp", "home", "var/cache"):  # as an engine does
        (made.root / name).mkdir(parents=True, exist_ok=True)
    yield made
    shutil.rmtree(folder)


def sizes(root: Path) -> tuple[int, int]:
    """What is downloaded (a tar file, as gzip packs it), and what lies on the disk, in bytes."""
    command = ["tar", "-c", "-C", root, "--sort=name", "."]
    unpacked = packed = 0
    counter = Counter()
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE) as tar,
        gzip.open(counter, "wb", 6) as out,
    ):
        assert tar.stdout is not None
        while block := tar.stdout.read(1 << 20):
            unpacked += len(block)
            out.write(block)
    packed = counter.size
    return packed, unpacked


class Counter:
    """A file that only counts what is written to it."""

    size = 0

    def write(self, data: bytes) -> int:
        self.size += len(data)
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""


def test_starts_as_nobody_on_a_read_only_root(image: Image, work: Path) -> None:
    result = image.run(work, "version")
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith("nxs-backup ")
    assert image.user == f"{USER}:{USER}"


def test_backs_up_and_restores(image: Image, tmp_path: Path) -> None:
    for name in ("data", "backups", "back"):
        (tmp_path / name).mkdir(mode=0o777)
    (tmp_path / "data" / "file").write_text("hello")
    (tmp_path / "pipeline.yaml").write_text(
        "name: image\nhost: image\n"
        "storages: {here: {type: local, path: /mnt/backups}}\n"
        "backups:\n"
        "  data:\n"
        "    source: {type: files, paths: [/mnt/data]}\n"
        "    stages: [{type: zstd}]\n"
        "    fan_out: [{storage: here, rotate: {last: 1}}]\n"
    )
    subprocess.run(["chown", "-R", f"{USER}:{USER}", tmp_path], check=True)
    for command in (["check"], ["run"], ["verify"]):
        result = image.run(tmp_path, *command, "/mnt/pipeline.yaml")
        assert result.code == 0, result.err
    back = ["restore", "/mnt/pipeline.yaml", "--backup", "data", "--to", "/mnt/back"]
    assert image.run(tmp_path, *back).code == 0
    assert (tmp_path / "back/mnt/data/file").read_text() == "hello"


def test_every_component_is_there(image: Image, work: Path) -> None:
    script = (
        "import pkgutil, stages; from importlib import import_module\n"
        "for kind in 'sources', 'transforms', 'storages', 'notifiers':\n"
        "    for m in pkgutil.iter_modules(import_module('stages.' + kind).__path__):\n"
        "        if m.name[0] != '_': import_module(f'stages.{kind}.{m.name}').COMPONENT\n"
    )
    image = Image(image.root, image.env, image.user, ["/usr/bin/python3"])
    result = image.run(work, "-c", script)
    assert (result.code, result.err) == (0, "")
