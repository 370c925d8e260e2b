"""Builds nxs-backup.pyz, the whole program in one file. Runs with any Python >= 3.10 that has pip.

The archive depends on the checkout, the lock and the options alone: built twice, it is the same.
What is costly is kept in build/: the wheels, and the compressed dependencies. Beside the archive go
its inventory (`sbom.py`) and SHA256SUMS.
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

import assembly
import payload
import sbom
import wheels
from dependencies import Dependencies, Workshop, write
from payload import Files, Part
from wheels import Target

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
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
    workshop = Workshop(config, options.preset, options.cache)
    others = workshop.collect(targets)
    own: list[payload.Group] = [(None, _own_files(options.source))]
    app = Part("app", payload.pack(own, options.preset, "app"), payload.content(own))
    _print_sizes(app, others)
    digests = _build(options.output, app, others, targets, options.source)
    if options.slim:
        stem, extension = os.path.splitext(options.output)
        for platform in dict.fromkeys(target.platform for target in targets):
            its = [target for target in targets if target.platform == platform]
            path = f"{stem}-{platform}{extension}"
            digests |= _build(path, app, workshop.collect(its), its, options.source)
    sums = "".join(f"{digests[name]}  {name}\n" for name in sorted(digests))
    write(
        os.path.join(os.path.dirname(os.path.abspath(options.output)), "SHA256SUMS"), sums.encode()
    )


def _print_sizes(app: Part, others: Dependencies) -> None:
    """What takes how much of the archive, the largest first."""
    rows = [(len(app.compressed), "nxs-backup")]
    rows += [
        (package["size"], f"{package['name']} {package['version']}") for package in others.packages
    ]
    for size, name in sorted(rows, reverse=True):
        print(f"{size / 1e6:8.3f} MB  {name}")


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
    parser.add_argument(
        "--slim", action="store_true", help="also an archive for each of the platforms alone"
    )
    parser.add_argument("--source", default=ROOT, help="the checkout whose packages go in")
    parser.add_argument(
        "--cache", default=os.path.join(ROOT, "build"), help="where wheels and parts are kept"
    )
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


def _build(
    output: str, app: Part, others: Dependencies, targets: list[Target], source: str
) -> dict[str, str]:
    """Write an archive and its inventory; return the SHA-256 digest of each by its name."""
    info, archive = _archive([app, *others.parts], others.packages, targets, source)
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    inventory = sbom.inventory(info, others.packages, int(epoch) if epoch else None)
    digests = {}
    for path, content in (
        (output, archive),
        (os.path.splitext(output)[0] + ".cdx.json", inventory),
    ):
        write(path, content)
        digests[os.path.basename(path)] = hashlib.sha256(content).hexdigest()
    print(f"{output}: {len(archive) / 1e6:.1f} MB, sha256 {digests[os.path.basename(output)]}")
    return digests


def _archive(
    parts: list[Part], packages: list[dict[str, Any]], targets: list[Target], source: str
) -> tuple[dict[str, Any], bytes]:
    """What `version --json` tells of an archive, and the archive."""
    boot = {name: _bytes(os.path.join(HERE, "boot", name)) for name in BOOT}
    build = wheels.digest(
        payload.content([(None, boot)]), *(f"{part.name}={part.content}" for part in parts)
    )
    minors = sorted({target.minor for target in targets}, reverse=True)
    platforms = sorted({target.platform for target in targets})
    constants = f"BUILD = {build!r}\nPYTHONS = {minors!r}\nPLATFORMS = {platforms!r}\n"
    info = {
        "version": _version(source),
        "build": build,
        "pythons": [f"3.{minor}" for minor in reversed(minors)],
        "platforms": platforms,
        "dependencies": [
            {key: package[key] for key in ("name", "version", "licence")} for package in packages
        ],
    }
    members = {
        **boot,
        "_build.py": constants.encode(),
        "nxs_build_info.json": json.dumps(info, indent=1).encode(),
    }
    seconds = max(int(os.environ.get("SOURCE_DATE_EPOCH", EARLIEST)), EARLIEST)
    return info, assembly.assemble(parts, members, time.gmtime(seconds))


def _version(source: str) -> str:
    """The version of our program, without importing it: its dependencies may not be installed."""
    path = os.path.join(source, "pipeline", "version.py")
    match = re.search(r'^VERSION = "(.+)"$', _text(path), re.MULTILINE)
    if not match:
        raise SystemExit(f'build.py: there is no VERSION in "{path}"')
    return match[1]


def _restart_with_pip() -> None:
    """Go on with a Python of our own, when the running one came without pip."""
    home = os.path.join(ROOT, "build", "pip")
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


if __name__ == "__main__":
    main()
