"""What a build gives: the same bytes each time, an inventory, digests, slim archives."""

from __future__ import annotations

import hashlib
import importlib.resources
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from referencing import Registry, Resource

from tests.e2e.archive import start

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("pyz")]  # so that build/ holds the parts

ROOT = Path(__file__).resolve().parents[2]


def build(output: Path, *options: str | Path, umask: int = 0o022, **env: str) -> str:
    """Build an archive; the dependencies come from build/. What was printed."""
    command = [sys.executable, ROOT / "zipapp" / "build.py", "--output", output, *options]
    done = subprocess.run(
        command,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        umask=umask,
        cwd=output.parent,
        env={**os.environ, **env},
    )
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an archive, the same for its platform alone, and what lies beside them."""
    folder = tmp_path_factory.mktemp("built")
    build(folder / "nxs-backup.pyz", "--slim", SOURCE_DATE_EPOCH="1700000000")
    return folder


def test_is_reproducible(tmp_path: Path) -> None:
    """The same sources give the same bytes at another time, in another place, for another user."""
    for name in ("one", "two"):
        for package in ("pipeline", "schemas", "stages"):
            shutil.copytree(ROOT / package, tmp_path / name / package, copy_function=shutil.copy)
    surroundings = {"LC_ALL": "C", "TZ": "Asia/Tokyo", "PYTHONHASHSEED": "7"}
    build(tmp_path / "one" / "a.pyz", "--source", tmp_path / "one")
    build(tmp_path / "two" / "a.pyz", "--source", tmp_path / "two", umask=0o077, **surroundings)
    for name in ("a.pyz", "a.cdx.json", "SHA256SUMS"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
        assert (tmp_path / "one" / name).stat().st_mode == (tmp_path / "two" / name).stat().st_mode


def test_time_of_a_build_is_the_one_it_is_given(built: Path) -> None:
    with zipfile.ZipFile(built / "nxs-backup.pyz") as archive:
        assert {info.date_time for info in archive.infolist()} == {(2023, 11, 14, 22, 13, 20)}
    inventory = json.loads((built / "nxs-backup.cdx.json").read_text())
    assert inventory["metadata"]["timestamp"] == "2023-11-14T22:13:20Z"


def test_digests_are_those_of_the_files(built: Path) -> None:
    lines = (built / "SHA256SUMS").read_text().splitlines()
    told = {name: digest for digest, name in (line.split("  ") for line in lines)}
    there = {path.name for path in built.iterdir()} - {"SHA256SUMS"}
    assert set(told) == there
    assert len(there) == 4
    for name, digest in told.items():
        assert hashlib.sha256((built / name).read_bytes()).hexdigest() == digest


def test_archive_for_one_platform_runs(built: Path, tmp_path: Path) -> None:
    (slim,) = built.glob("nxs-backup-*.pyz")
    done = start(slim, "version", "--json", cache=tmp_path / "cache")
    assert done.returncode == 0, done.stderr
    (platform,) = json.loads(done.stdout)["build"]["platforms"]
    assert slim.name == f"nxs-backup-{platform}.pyz"


def test_version_tells_what_is_inside(pyz: Path, tmp_path: Path) -> None:
    done = start(pyz, "version", "--json", cache=tmp_path / "cache")
    inside = json.loads(done.stdout)["build"]
    assert len(inside["build"]) == 16
    named = {entry["name"].lower(): entry for entry in inside["dependencies"]}
    for line in (ROOT / "zipapp" / "requirements.lock").read_text().splitlines():
        name, separator, version = line.partition("==")
        if separator and name in ("pydantic", "cryptography", "asyncssh", "apprise", "pymongo"):
            assert named[name]["version"] == version.split()[0]
            assert named[name]["licence"] not in ("", "unknown")


@pytest.mark.parametrize("name", ["nxs-backup.cdx.json"])
def test_inventory_is_as_its_format_says(built: Path, name: str) -> None:
    inventory = json.loads((built / name).read_text())
    validator().validate(inventory)
    assert inventory["metadata"]["component"]["name"] == "nxs-backup"
    purls = {part["purl"]: part for part in inventory["components"]}
    assert len(purls) > 50
    compiled = next(part for purl, part in purls.items() if "/cryptography@" in purl)
    assert any(part["purl"].startswith("pkg:cargo/asn1@") for part in compiled["components"])


def validator() -> jsonschema.protocols.Validator:
    """Of CycloneDX 1.5; the schema names two others."""
    folder = importlib.resources.files("cyclonedx.schema") / "_res"
    base = "http://cyclonedx.org/schema/"
    schemas: dict[str, Any] = {
        name: json.loads((folder / name).read_text())
        for name in (
            "bom-1.5.SNAPSHOT.schema.json",
            "spdx.SNAPSHOT.schema.json",
            "jsf-0.82.SNAPSHOT.schema.json",
        )
    }
    registry: Registry[Any] = Registry().with_resources(
        (base + name, Resource.from_contents(schema)) for name, schema in schemas.items()
    )
    return jsonschema.Draft7Validator(schemas["bom-1.5.SNAPSHOT.schema.json"], registry=registry)
