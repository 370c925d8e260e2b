"""Systems to run the archive on: folders with a Debian in them that has no Python but its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.servers.base import one_at_a_time

ROOT = Path(__file__).resolve().parents[3]
BUILD = ROOT / "build" / "portability"
RELEASE = ROOT / "dist" / "release"
WORK = "/mnt"
"""Where a system finds what a test gives to it."""
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_BINFMT = Path("/proc/sys/fs/binfmt_misc")
# Of ELF files for aarch64: what they begin with, and which bits of it count.
_AARCH64 = (
    r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00",
    r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff",
)
# Everything that is written in a system is gone with its namespaces; there is no network in them.
_ENTER = """\
set -eu
mount --bind "$1" "$1"
mount --bind "$2" "$1/mnt"
mount -t proc proc "$1/proc"
for folder in tmp var/tmp home var/cache; do
    mount -t tmpfs -o mode=1777,size=600m none "$1/$folder"
done
cd "$1"
"""


class NotToBeHad(Exception):
    """A system cannot be made on this machine; says why."""


@dataclass(frozen=True)
class Result:
    """How a program ended."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class System:
    """A root folder, and the Python in it."""

    root: Path
    python: str = "/usr/bin/python3"

    def start(
        self, work: Path, *argv: str, setup: str = "", user: int = 0, **env: str
    ) -> subprocess.Popen[str]:
        """Start a program in the system, as the first process of its namespace.

        Args:
            work: the folder that it finds at `WORK`.
            setup: shell lines that run before as root, in the root folder.
            user: and group, to run as.
            env: all of its environment, besides PATH.
        """
        namespaces = ["unshare", "--mount", "--net", "--ipc", "--pid", "--fork", "--kill-child"]
        script = f'{_ENTER}{setup}\nshift 2\nexec "$@"'
        # A system may have no program but Python.
        variables = [f"{name}={value}" for name, value in {"PATH": PATH, **env}.items()]
        change = ["/usr/sbin/chroot", f"--userspec={user}:{user}", "--groups=", "."]
        command = [*namespaces, "sh", "-c", script, "sh", str(self.root), str(work)]
        command += ["/usr/bin/env", "-i", *variables, *change, *argv]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True
        )

    def run(self, work: Path, *argv: str, setup: str = "", user: int = 0, **env: str) -> Result:
        """Run a program to its end."""
        process = self.start(work, *argv, setup=setup, user=user, **env)
        out, err = process.communicate(timeout=1500)
        return Result(process.returncode, out, err)


def debian(suite: str, python: str = "python3", architecture: str = "") -> System:
    """A minimal Debian with one Python, its package; made once, then kept.

    Args:
        python: the package, and the program; empty for a system without.
        architecture: another one than ours; then it is emulated.

    Raises:
        NotToBeHad: a program is missing, or the suite cannot be downloaded.
    """
    if os.geteuid() != 0:
        raise NotToBeHad("only root can make it")
    if not shutil.which("debootstrap", path=PATH):
        raise NotToBeHad("debootstrap is not installed")
    if architecture:
        _emulate()
    name = "-".join(filter(None, (suite, architecture, "" if python else "bare")))
    folder = BUILD / "chroots" / name
    with one_at_a_time("portability"):
        if not (folder / ".complete").exists():
            _bootstrap(folder, suite, python, architecture)
            (folder / ".complete").touch()
    return System(folder, f"/usr/bin/{python}")


def _bootstrap(folder: Path, suite: str, python: str, architecture: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    command = ["debootstrap", "--variant=minbase"]
    if python:
        command += [f"--include={python}"]
    if architecture:  # Its second stage takes half an hour under emulation.
        command += [f"--arch={architecture}", "--foreign"]
    done = subprocess.run(
        [*command, suite, str(folder)], capture_output=True, text=True, check=False, timeout=1500
    )
    if done.returncode:
        raise NotToBeHad((done.stdout + done.stderr).strip().rpartition("\n")[2])
    if architecture:  # What the second stage would do, but for scripts that nothing here needs.
        for package in sorted((folder / "var/cache/apt/archives").glob("*.deb")):
            subprocess.run(["dpkg", "-x", package, folder], check=True)
        for name in ("mnt", "proc", "tmp", "var/tmp", "home", "var/cache"):
            (folder / name).mkdir(exist_ok=True)


def _emulate() -> None:
    """Have the kernel run programs for aarch64 by qemu, until the machine is restarted."""
    emulator = shutil.which("qemu-aarch64-static")
    if not emulator:
        raise NotToBeHad("qemu-user-static is not installed")
    if not (_BINFMT / "register").exists():
        mount = ["mount", "-t", "binfmt_misc", "binfmt_misc", str(_BINFMT)]
        if subprocess.run(mount, stderr=subprocess.DEVNULL, check=False).returncode:
            raise NotToBeHad("the kernel has no binfmt_misc")
    if not (_BINFMT / "qemu-aarch64").exists():
        magic, mask = _AARCH64
        # F: the kernel keeps the emulator open, so that it need not be in the system.
        (_BINFMT / "register").write_text(f":qemu-aarch64:M::{magic}:{mask}:{emulator}:FPOC")


def installed_pythons() -> dict[str, str]:
    """Other Pythons of this machine that the archive is for, by version."""
    found = {}
    for minor in range(10, 20):
        name = f"python3.{minor}"
        places = sorted(Path("~/.pyenv/versions").expanduser().glob(f"*/bin/{name}"))
        for python in filter(None, [*map(str, places), shutil.which(name, path=PATH)]):
            asked = subprocess.run([python, "-V"], capture_output=True, text=True, check=False)
            if asked.returncode == 0:
                found.setdefault(asked.stdout.split()[-1], python)
    return found


def host(python: str = sys.executable) -> System:
    """This machine with one of its Pythons; what it writes to is out of the way as elsewhere."""
    if os.geteuid() != 0:
        raise NotToBeHad("only root can make it")
    return System(Path("/"), python)
