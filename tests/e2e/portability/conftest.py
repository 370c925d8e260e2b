"""What all of these tests run: the archives that `make release` has built."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.e2e.portability.systems import RELEASE, ROOT


@pytest.fixture(scope="session")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that a system sees: the archives, and the demo."""
    folder = tmp_path_factory.mktemp("work")
    folder.chmod(0o755)
    for archive in RELEASE.glob("*.pyz"):
        shutil.copy(archive, folder)
    assert (folder / "nxs-backup.pyz").exists(), 'run "make release" first'
    shutil.copytree(ROOT / "examples", folder / "examples")
    (folder / "examples" / "quickstart.yaml").chmod(0o644)
    return folder
