"""Two builds from the wheels up: by another Python, for another user, elsewhere; the same bytes."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.e2e.portability.systems import ROOT, installed_pythons

SURROUNDINGS = [
    {"umask": 0o022, "env": {}},
    {"umask": 0o077, "env": {"LC_ALL": "C", "TZ": "Asia/Tokyo", "PYTHONHASHSEED": "7"}},
]


def test_build_is_reproducible(tmp_path: Path) -> None:
    pythons = sorted(installed_pythons().items())
    if len(pythons) < 2:
        pytest.skip("there is only one Python")
    built = []
    for number, (_, python) in enumerate((pythons[0], pythons[-1])):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "wheels").symlink_to(ROOT / "build" / "wheels")
        umask, env = SURROUNDINGS[number]["umask"], SURROUNDINGS[number]["env"]
        command = [python, ROOT / "zipapp" / "build.py", "--cache", folder, "--preset", "0"]
        subprocess.run(
            [*command, "--pythons", "311,314", "--output", folder / "nxs-backup.pyz"],
            cwd=folder,
            umask=umask,
            env={**os.environ, **env},
            stdout=subprocess.DEVNULL,
            check=True,
        )
        names = ("nxs-backup.pyz", "nxs-backup.cdx.json", "SHA256SUMS")
        built.append([(folder / name).read_bytes() for name in names])
    assert built[0] == built[1]
