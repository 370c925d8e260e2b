"""The wheels an archive is made of: which the lock names, their download, their useful files."""

from __future__ import annotations

import email
import fnmatch
import functools
import glob
import hashlib
import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from payload import Files
from shrink import shrink

ANY = "any"
"""The platform of a wheel that all targets share."""
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


@dataclass(frozen=True, order=True)
class Pin:
    """A line of the lock."""

    name: str
    version: str
    hashes: tuple[str, ...]
    """SHA-256 digests of its files, in hexadecimal."""


def pins(lock: str, target: Target, absent: dict[str, list[str]]) -> list[Pin]:
    """What a target needs of the lock.

    Markers are evaluated here: pip does so for the Python that runs it, also when it downloads for
    another one.

    Raises:
        SystemExit: the lock has a line that is not a pinned, hashed requirement.
    """
    from pip._vendor.packaging.markers import Marker  # type: ignore[import-untyped,unused-ignore]

    found = []
    for line in lock.replace("\\\n", "").splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        pin = _PIN.match(line)
        if not pin:
            raise SystemExit(f'build.py: cannot read the lock: "{line[:60]}"')
        if any(fnmatch.fnmatch(target.name, glob) for glob in absent.get(pin["name"], ())):
            continue
        if pin["marker"] and not Marker(pin["marker"].strip()).evaluate(target.environment()):
            continue
        hashes = re.findall(r"--hash=sha256:(\S+)", line)
        found.append(Pin(pin["name"], pin["version"], tuple(hashes)))
    return found


def provider(pin: Pin, target: Target, config: dict[str, Any]) -> Target:
    """For which target a wheel is taken: this one, or one whose wheel this one can use as well."""
    if pin.name in config["wheels"]["per_python"]:
        return target
    is_per_platform = pin.name in config["wheels"]["per_platform"]
    return Target(target.platform if is_per_platform else ANY, min(config["pythons"]))


def fetch(wanted: Iterable[Pin], target: Target, config: dict[str, Any], cache: str) -> list[str]:
    """The wheels of a target, in the order of the pins; those that are not in `cache` are
    downloaded.

    Raises:
        SystemExit: pip failed; it has said why.
    """
    folder = os.path.join(cache, target.name)
    wanted = sorted(set(wanted))
    missing = [pin for pin in wanted if _kept(pin, folder) is None]
    if missing:
        platforms = config["platforms"]
        tags = platforms[target.platform if target.platform != ANY else next(iter(platforms))]
        _download(missing, target, tags, folder)
    return [_kept(pin, folder) or _vanished(pin) for pin in wanted]


def _kept(pin: Pin, folder: str) -> str | None:
    """A wheel that is there already, and is what the lock says."""
    name = re.sub(r"[-_.]+", "_", pin.name)
    for path in sorted(glob.glob(os.path.join(glob.escape(folder), f"{name}-{pin.version}-*.whl"))):
        with open(path, "rb") as file:
            if hashlib.sha256(file.read()).hexdigest() in pin.hashes:
                return path
    return None


def _vanished(pin: Pin) -> str:
    raise SystemExit(f'build.py: pip has brought no wheel of "{pin.name}"')


def _download(missing: list[Pin], target: Target, tags: list[str], folder: str) -> None:
    os.makedirs(folder, exist_ok=True)
    requirements = os.path.join(folder, "wanted.txt")
    with open(requirements, "w", encoding="utf-8") as file:
        for pin in missing:
            hashes = " ".join(f"--hash=sha256:{digest}" for digest in pin.hashes)
            file.write(f"{pin.name}=={pin.version} {hashes}\n")
    print(f"downloading {len(missing)} wheels for {target.name}", flush=True)
    command = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary=:all:", "--require-hashes"]
    command += ["--implementation", "cp", "--python-version", f"3.{target.minor}"]
    command += ["--abi", f"cp3{target.minor}", "--abi", "abi3"]
    command += [part for tag in tags for part in ("--platform", tag)]
    if subprocess.run([*command, "-d", folder, "-r", requirements], check=False).returncode:
        raise SystemExit(f"build.py: cannot download the wheels for {target.name}")
    os.unlink(requirements)


def files(wheel: str, pin: Pin, target: Target, config: dict[str, Any]) -> Files:
    """The files of a wheel that run, by their path below the import root.

    Raises:
        SystemExit: it has compiled modules, and is to be used on every platform.
    """
    is_plain = target.platform == ANY
    if is_plain and pin.name not in config["wheels"]["uncompiled"]:
        _refuse_compiled(wheel, pin)
    dropped, kept = (
        re.compile("|".join(fnmatch.translate(glob) for glob in config["prune"][key]))
        for key in ("globs", "except")
    )
    ours = config["instead"].get(pin.name, {})
    found: Files = {path: text.encode() for path, text in ours.items()}
    with zipfile.ZipFile(wheel) as archive:
        for path in sorted(archive.namelist()):
            target_path = path
            for scheme in _SCHEMES:
                target_path = target_path.partition(scheme)[2] or target_path
            is_other_data = ".data/" in target_path  # scripts, headers, man pages
            if path.endswith("/") or is_other_data or (is_plain and path.endswith(".so")):
                continue
            if kept.match(target_path) or not dropped.match(target_path):
                documented = config["prune"]["documented"]
                name, content = shrink(target_path, archive.read(path), documented)
                found[name] = content
    return found


def _refuse_compiled(wheel: str, pin: Pin) -> None:
    with zipfile.ZipFile(wheel) as archive:
        if any(path.endswith(".so") for path in archive.namelist()):
            raise SystemExit(
                f'build.py: "{pin.name}" has compiled modules: '
                "say in targets.toml which wheel to take"
            )


@functools.cache
def describe(wheel: str) -> dict[str, Any]:
    """Name, version and licence of a wheel, and what was built into it, from its metadata."""
    with zipfile.ZipFile(wheel) as archive:
        (path,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        metadata = email.message_from_bytes(archive.read(path))
        inventories = [
            json.loads(archive.read(path))
            for path in sorted(archive.namelist())
            if ".dist-info/sboms/" in path and path.endswith(".json")
        ]
    return {
        "name": str(metadata["Name"]),
        "version": str(metadata["Version"]),
        "licence": _licence(metadata),
        "contains": [
            {key: part[key] for key in ("name", "version", "purl")}
            for inventory in inventories
            for part in inventory.get("components", ())
            if part.get("purl", "").startswith("pkg:") and "version" in part
        ],
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
