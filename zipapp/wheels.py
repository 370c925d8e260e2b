"""The wheels an archive is made of: which the lock names, their download, their useful files."""

from __future__ import annotations

import email
import fnmatch
import hashlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_PIN = re.compile(
    r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s;]+)\s*(?:;(?P<marker>.*?))?\s--hash"
)
_SCHEMES = (".data/purelib/", ".data/platlib/")


@dataclass(frozen=True)
class Target:
    """One interpreter that the archive shall run on: CPython 3.`minor` on `platform`."""

    platform: str
    minor: int

    @property
    def name(self) -> str:
        """What its directories are called, such as `x86_64-gnu-cp311`."""
        return f"{self.platform}-cp3{self.minor}"

    def environment(self) -> dict[str, str]:
        """The environment in which the markers of the lock are evaluated (PEP 508)."""
        return {
            "extra": "",
            "implementation_name": "cpython",
            "implementation_version": f"3.{self.minor}.0",
            "os_name": "posix",
            "platform_machine": self.platform.partition("-")[0],
            "platform_python_implementation": "CPython",
            "platform_release": "",
            "platform_system": "Linux",
            "platform_version": "",
            "python_full_version": f"3.{self.minor}.0",
            "python_version": f"3.{self.minor}",
            "sys_platform": "linux",
        }


def requirements(lock: str, target: Target, absent: dict[str, list[str]]) -> str:
    """The part of a lock that a target needs, without markers.

    pip evaluates markers for the Python that runs it, also when it downloads for another one.

    Raises:
        SystemExit: the lock has a line that is not a pinned, hashed requirement.
    """
    from pip._vendor.packaging.markers import Marker  # type: ignore[import-untyped,unused-ignore]

    lines = []
    for line in lock.replace("\\\n", "").splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        pin = _PIN.match(line)
        if not pin:
            raise SystemExit(f'build.py: cannot read the lock: "{line[:60]}"')
        if target.platform in absent.get(pin["name"], ()):
            continue
        if pin["marker"] and not Marker(pin["marker"].strip()).evaluate(target.environment()):
            continue
        hashes = " ".join(re.findall(r"--hash=\S+", line))
        lines.append(f"{pin['name']}=={pin['version']} {hashes}\n")
    return "".join(lines)


def download(pins: str, target: Target, tags: list[str], folder: str) -> list[str]:
    """Fetch the wheels of a target into `folder`, unless they are there; return their paths.

    Raises:
        SystemExit: pip failed; it has said why.
    """
    stamp = os.path.join(folder, "requirements.txt")
    if not (os.path.exists(stamp) and _read(stamp).decode() == pins):
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)
        wanted = os.path.join(folder, "wanted.txt")
        with open(wanted, "w", encoding="utf-8") as file:
            file.write(pins)
        print(f"downloading wheels for {target.name}", flush=True)
        command = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check"]
        command += ["--no-deps", "--only-binary=:all:", "--require-hashes"]
        command += ["--implementation", "cp", "--python-version", f"3.{target.minor}"]
        command += ["--abi", f"cp3{target.minor}"]
        command += [part for tag in tags for part in ("--platform", tag)]
        if subprocess.run([*command, "-d", folder, "-r", wanted], check=False).returncode:
            raise SystemExit(f"build.py: cannot download the wheels for {target.name}")
        os.rename(wanted, stamp)
    return sorted(
        os.path.join(folder, name) for name in os.listdir(folder) if name.endswith(".whl")
    )


def files(wheel: str, prune: dict[str, list[str]]) -> Iterator[tuple[str, bytes]]:
    """The files of a wheel that run, as (path below the import root, content)."""
    dropped, kept = (
        re.compile("|".join(fnmatch.translate(glob) for glob in prune[key]))
        for key in ("globs", "except")
    )
    with zipfile.ZipFile(wheel) as archive:
        for path in sorted(archive.namelist()):
            content_path = path
            for scheme in _SCHEMES:
                content_path = content_path.partition(scheme)[2] or content_path
            is_other_data = ".data/" in content_path  # scripts, headers, man pages
            if path.endswith("/") or is_other_data:
                continue
            if kept.match(content_path) or not dropped.match(content_path):
                yield content_path, archive.read(path)


def describe(wheel: str) -> dict[str, str]:
    """Name, version and licence of a wheel, from its metadata."""
    with zipfile.ZipFile(wheel) as archive:
        (path,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        metadata = email.message_from_bytes(archive.read(path))
    return {
        "name": str(metadata["Name"]),
        "version": str(metadata["Version"]),
        "licence": _licence(metadata),
    }


def _licence(metadata: Any) -> str:
    """The SPDX expression; older packages have a classifier, or the name (or text) in `License`."""
    expression = metadata["License-Expression"]
    values = (str(value) for value in metadata.get_all("Classifier", []))
    classifiers = [
        value.rpartition(" :: ")[2]
        for value in values
        if value.startswith("License :: ") and value != "License :: OSI Approved"
    ]
    first_line = str(metadata["License"] or "").strip().partition("\n")[0]
    return str(expression or ", ".join(classifiers) or first_line or "unknown")


def digest(*parts: str) -> str:
    """A short name for what these texts determine."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()
