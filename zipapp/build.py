"""Builds nxs-backup.pyz, the whole program in one file. Runs with any Python >= 3.10 that has pip.

The archive depends on the checkout, the lock and the options alone: built twice, it is the same.
What is costly is kept in build/: the wheels, and the compressed dependencies.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import re
import subprocess
import sys
import time
from typing import Any

import payload
import wheels
from payload import Files, Part
from wheels import Target

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
CACHE = os.path.join(ROOT, "build")
PACKAGES = ("pipeline", "schemas", "stages")
BOOT = ("__main__.py", "_boot.py", "_loaders.py", "_unpack.py")
# Members of a zip file cannot be older.
EARLIEST = 315532800


def main() -> None:
    """Build what the command line asks for."""
    if importlib.util.find_spec("pip") is None:
        _restart_with_pip()
    options = _options()
    config = _toml(os.path.join(HERE, "targets.toml"))
    targets = _targets(options, config)
    parts, dependencies = _dependencies(targets, config, options.preset)
    files = _own_files(options.source)
    minors = sorted({target.minor for target in targets})
    own = payload.pack([(minors, files)], options.preset, is_x86=False)
    parts = [Part("app", own, _content(files)), *parts]
    archive = _archive(parts, dependencies, targets, options.source)
    _write(options.output, archive)
    digest = hashlib.sha256(archive).hexdigest()
    print(f"{options.output}: {len(archive) / 1e6:.1f} MB, sha256 {digest}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Build nxs-backup.pyz.")
    parser.add_argument("--output", default=os.path.join(ROOT, "dist", "nxs-backup.pyz"))
    parser.add_argument(
        "--pythons", help='such as "310,311" or "all"; default: the Python that runs this'
    )
    parser.add_argument(
        "--platforms", help='such as "x86_64-gnu,aarch64-musl" or "all"; default: this machine'
    )
    parser.add_argument("--preset", type=int, default=6, help="effort of xz, 0 to 9 (default: 6)")
    parser.add_argument("--source", default=ROOT, help="the checkout whose packages go in")
    return parser.parse_args()


def _targets(options: argparse.Namespace, config: dict[str, Any]) -> list[Target]:
    """Every Python on every platform, by platform and then popularity."""
    platforms, minors = list(config["platforms"]), list(config["pythons"])
    if options.platforms != "all":
        platforms = (options.platforms or _this_platform()).split(",")
    if options.pythons != "all":
        asked = (options.pythons or f"3{sys.version_info[1]}").split(",")
        minors = [m for m in minors if f"3{m}" in asked]
        if len(minors) < len(asked):
            raise SystemExit(f'build.py: not all of "{",".join(asked)}" are in targets.toml')
    for platform in platforms:
        if platform not in config["platforms"]:
            raise SystemExit(f'build.py: platform "{platform}" is not in targets.toml')
    return [Target(platform, minor) for platform in platforms for minor in minors]


def _this_platform() -> str:
    sys.path.insert(0, os.path.join(HERE, "boot"))
    import _boot  # type: ignore[import-not-found,unused-ignore]

    return str(_boot.platform())


def _dependencies(
    targets: list[Target], config: dict[str, Any], preset: int
) -> tuple[list[Part], list[dict[str, str]]]:
    """The parts with the dependencies, and what they are; from build/ when nothing has changed."""
    recipe = [_text(os.path.join(HERE, name)) for name in ("requirements.lock", "targets.toml")]
    recipe += [_text(os.path.join(HERE, name)) for name in ("build.py", "wheels.py", "payload.py")]
    key = wheels.digest(*recipe, str(preset), *(target.name for target in targets))
    folder = os.path.join(CACHE, "deps", key)
    record = os.path.join(folder, "record.json")
    if os.path.exists(record):
        kept = json.loads(_text(record))
        parts = [Part(n, _bytes(os.path.join(folder, n + ".xz")), d) for n, d in kept["parts"]]
        return parts, kept["dependencies"]
    parts, dependencies = _build_dependencies(targets, config, preset)
    for part in parts:
        _write(os.path.join(folder, part.name + ".xz"), part.compressed)
    kept = {"parts": [[p.name, p.content] for p in parts], "dependencies": dependencies}
    _write(record, json.dumps(kept).encode())
    return parts, dependencies


def _build_dependencies(
    targets: list[Target], config: dict[str, Any], preset: int
) -> tuple[list[Part], list[dict[str, str]]]:
    lock = _text(os.path.join(HERE, "requirements.lock"))
    wanted: dict[str, dict[int, Files]] = {}
    described: dict[tuple[str, str], dict[str, str]] = {}
    for target in targets:
        pins = wheels.requirements(lock, target, config["absent"])
        folder = os.path.join(CACHE, "wheels", target.name)
        found = wanted.setdefault(target.platform, {}).setdefault(target.minor, {})
        for wheel in wheels.download(pins, target, config["platforms"][target.platform], folder):
            found.update(wheels.files(wheel, config["prune"]))
            about = wheels.describe(wheel)
            described[about["name"].lower(), about["version"]] = about
    print(f"compressing for {', '.join(wanted)}", flush=True)
    common = _common(wanted)
    groups = {"common": [(sorted({t.minor for t in targets}), common)]}
    groups |= {platform: payload.group(files, common) for platform, files in wanted.items()}
    parts = [
        Part(
            name,
            payload.pack(files, preset, name.startswith("x86_64")),
            wheels.digest(*(f"{minors}{_content(found)}" for minors, found in files)),
        )
        for name, files in groups.items()
    ]
    return parts, [described[key] for key in sorted(described)]


def _common(wanted: dict[str, dict[int, Files]]) -> Files:
    """Files that every target has alike; machine code stays with its platform."""
    first, *others = (files for minors in wanted.values() for files in minors.values())
    return {
        path: content
        for path, content in first.items()
        if ".so" not in path and all(files.get(path) == content for files in others)
    }


def _own_files(source: str) -> Files:
    """Our own packages: the code and the data beside it."""
    found: Files = {}
    for package in PACKAGES:
        if not os.path.isdir(os.path.join(source, package)):
            raise SystemExit(f'build.py: there is no "{package}" in "{source}"')
        for folder, folders, names in os.walk(os.path.join(source, package)):
            folders[:] = sorted(name for name in folders if name != "__pycache__")
            for name in sorted(names):
                if name.endswith((".py", ".json")):
                    path = os.path.join(folder, name)
                    found[os.path.relpath(path, source)] = _bytes(path)
    return found


def _archive(
    parts: list[Part], dependencies: list[dict[str, str]], targets: list[Target], source: str
) -> bytes:
    boot = {name: _bytes(os.path.join(HERE, "boot", name)) for name in BOOT}
    build = wheels.digest(_content(boot), *(f"{part.name}={part.content}" for part in parts))
    minors = sorted({target.minor for target in targets}, reverse=True)
    platforms = sorted({target.platform for target in targets})
    constants = f"BUILD = {build!r}\nPYTHONS = {minors!r}\nPLATFORMS = {platforms!r}\n"
    info = {
        "version": _version(source),
        "build": build,
        "pythons": [f"3.{minor}" for minor in reversed(minors)],
        "platforms": platforms,
        "dependencies": dependencies,
    }
    members = {
        **boot,
        "_build.py": constants.encode(),
        "nxs_build_info.json": json.dumps(info, indent=1).encode(),
    }
    seconds = max(int(os.environ.get("SOURCE_DATE_EPOCH", EARLIEST)), EARLIEST)
    return payload.assemble(parts, members, time.gmtime(seconds))


def _version(source: str) -> str:
    """The version of our program, without importing it: its dependencies may not be installed."""
    path = os.path.join(source, "pipeline", "version.py")
    match = re.search(r'^VERSION = "(.+)"$', _text(path), re.MULTILINE)
    if not match:
        raise SystemExit(f'build.py: there is no VERSION in "{path}"')
    return match[1]


def _content(files: Files) -> str:
    rows = (f"{path}={hashlib.sha256(files[path]).hexdigest()}" for path in sorted(files))
    return wheels.digest(*rows)


def _restart_with_pip() -> None:
    """Go on with a Python of our own, when the running one came without pip."""
    home = os.path.join(CACHE, "pip")
    python = os.path.join(home, "bin", "python")
    if sys.executable == python:
        raise SystemExit("build.py: pip is missing: install python3-pip or python3-venv")
    if subprocess.run([sys.executable, "-m", "venv", home], check=False).returncode:
        raise SystemExit("build.py: pip is missing: install python3-pip or python3-venv")
    os.execv(python, [python, *sys.argv])


def _toml(path: str) -> dict[str, Any]:
    try:
        import tomllib  # type: ignore[import-not-found,unused-ignore]
    except ModuleNotFoundError:  # Python 3.10
        from pip._vendor import tomli as tomllib  # type: ignore[import-untyped,no-redef,unused-ignore]
    return dict(tomllib.loads(_text(path)))


def _text(path: str) -> str:
    return _bytes(path).decode()


def _bytes(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _write(path: str, content: bytes) -> None:
    """Write a file so that it is either there as a whole or not at all."""
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    temporary = f"{path}.{os.getpid()}.tmp"
    with open(temporary, "wb") as file:
        file.write(content)
    if content.startswith(payload.SHEBANG):
        os.chmod(temporary, 0o755)
    os.replace(temporary, path)


if __name__ == "__main__":
    main()
