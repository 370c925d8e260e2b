"""The dependencies as parts of an archive; see `layout` in `payload.py` for what is in which."""

from __future__ import annotations

import json
import lzma
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import payload
import wheels
from payload import Files, Group, Part
from wheels import Target

HERE = os.path.dirname(os.path.abspath(__file__))
_RECIPE = ("requirements.lock", "targets.toml", "dependencies.py", "shrink.py", "wheels.py")
_QUICK = [{"id": lzma.FILTER_LZMA2, "preset": 1, "dict_size": 64 << 20}]


@dataclass(frozen=True)
class Dependencies:
    """What an archive holds besides our own code.

    Attributes:
        parts: compressed.
        packages: `name`, `version`, `licence`, `contains` (what was built into it: `name`,
            `version`, `purl`), and `size`: about how many bytes of the parts it takes.
    """

    parts: list[Part]
    packages: list[dict[str, Any]]


class Workshop:
    """Downloads, shrinks and compresses; what was done before is taken from `cache`.

    Args:
        config: the content of targets.toml.
        preset: effort of xz, 0 to 9.
    """

    def __init__(self, config: dict[str, Any], preset: int, cache: str) -> None:
        self._config, self._preset, self._cache = config, preset, cache
        self._files: dict[tuple[wheels.Pin, Target], Files] = {}
        self._packages: dict[str, dict[str, Any]] = {}

    def collect(self, targets: list[Target]) -> Dependencies:
        """The dependencies of an archive for these targets."""
        recipe = [_read(os.path.join(HERE, name)).decode() for name in (*_RECIPE, "payload.py")]
        key = wheels.digest(*recipe, str(self._preset), *(target.name for target in targets))
        record = os.path.join(self._cache, "deps", key, "record.json")
        if not os.path.exists(record):
            self._make(targets, record)
        kept = json.loads(_read(record))
        parts = [Part(n, _read(self._place(content, n)), content) for n, content in kept["parts"]]
        return Dependencies(parts, kept["packages"])

    def _make(self, targets: list[Target], record: str) -> None:
        plan = self._fetch(targets)
        wanted: dict[str, dict[int, Files]] = {}
        owners: dict[str, str] = {}
        for target, pins in plan.items():
            together = wanted.setdefault(target.platform, {}).setdefault(target.minor, {})
            for pin in pins:
                files = self._files[pin, wheels.provider(pin, target, self._config)]
                together.update(files)
                owners |= dict.fromkeys(files, pin.name)
        groups = payload.layout(wanted)
        contents = {name: payload.content(found) for name, found in groups.items()}
        sizes = dict.fromkeys(sorted(set(owners.values())), 0)
        for name, size in self._compress(groups, contents).items():
            for package, share in _shares(groups[name], owners, size):
                sizes[package] += share
        packages = [{**self._packages[name], "size": sizes[name]} for name in sizes]
        kept = {"parts": list(contents.items()), "packages": packages}
        write(record, json.dumps(kept).encode())

    def _fetch(self, targets: list[Target]) -> dict[Target, list[wheels.Pin]]:
        """Have the files of the wheels of these targets; which each of them needs."""
        lock = _read(os.path.join(HERE, "requirements.lock")).decode()
        plan = {target: wheels.pins(lock, target, self._config["absent"]) for target in targets}
        providers: dict[Target, set[wheels.Pin]] = {}
        for target, pins in plan.items():
            for pin in pins:
                provider = wheels.provider(pin, target, self._config)
                if (pin, provider) not in self._files:
                    providers.setdefault(provider, set()).add(pin)
        for provider, missing in providers.items():
            folder = os.path.join(self._cache, "wheels")
            paths = wheels.fetch(missing, provider, self._config, folder)
            for pin, path in zip(sorted(missing), paths, strict=True):
                self._files[pin, provider] = wheels.files(path, pin, provider, self._config)
                self._packages.setdefault(pin.name, wheels.describe(path))
        return plan

    def _compress(self, groups: dict[str, list[Group]], contents: dict[str, str]) -> dict[str, int]:
        """Have the parts compressed; their sizes."""

        def compress(name: str) -> int:
            place = self._place(contents[name], name)
            if not os.path.exists(place):
                write(place, payload.pack(groups[name], self._preset, name))
            return os.path.getsize(place)

        print(f"compressing {', '.join(groups)}", flush=True)
        # Threads suffice: while it compresses, Python is not in the way.
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return dict(zip(groups, pool.map(compress, groups), strict=True))

    def _place(self, content: str, name: str) -> str:
        recipe = _read(os.path.join(HERE, "payload.py")).decode()
        key = wheels.digest(recipe, str(self._preset), name, content)
        return os.path.join(self._cache, "parts", f"{key}.xz")


def _shares(groups: list[Group], owners: dict[str, str], size: int) -> Iterable[tuple[str, int]]:
    """What each package takes of a part of `size` bytes.

    Measured by compressing each on its own: in the part, they are compressed together.
    """
    contents: dict[str, list[bytes]] = {}
    for _, files in groups:
        for path in sorted(files):
            contents.setdefault(owners[path], []).append(files[path])
    alone = {
        package: len(lzma.compress(b"".join(content), lzma.FORMAT_XZ, filters=_QUICK))
        for package, content in contents.items()
    }
    total = sum(alone.values())
    return [(package, round(size * alone[package] / total)) for package in alone]


def write(path: str, content: bytes) -> None:
    """Write a file so that it is either there as a whole or not at all."""
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    temporary = f"{path}.{os.getpid()}.tmp"
    with open(temporary, "wb") as file:
        file.write(content)
    os.chmod(temporary, 0o755 if content.startswith(b"#!") else 0o644)
    os.replace(temporary, path)


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()
