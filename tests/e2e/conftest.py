"""The built archive, and a way to run it as a user would."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.e2e.program import Program
from tests.servers import places
from tests.servers.base import one_at_a_time
from tests.servers.places import Place
from tests.servers.sshd import Sshd

ROOT = Path(__file__).resolve().parents[2]
CONFIGURATION = """\
name: trial
storages:
  here: {type: local, path: /nonexistent/backups}
backups:
  greeting:
    source: {type: command, command: [echo, hello]}
    fan_out: [{storage: here, rotate: {last: 1}}]
"""


@pytest.fixture(scope="session")
def pyz() -> Path:
    """dist/nxs-backup.pyz for the Python that runs the tests, built when it is missing or stale."""
    with one_at_a_time("pyz"):
        made = subprocess.run(
            ["make", "-s", "pyz", f"PYTHON={sys.executable}"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=600,
        )
    assert made.returncode == 0, made.stdout
    return ROOT / "dist" / "nxs-backup.pyz"


@pytest.fixture(scope="session")
def warm_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache directory that all tests of the program share."""
    path = tmp_path_factory.mktemp("cache")
    path.chmod(0o700)
    return path


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """An empty cache directory."""
    return tmp_path / "cache"


@pytest.fixture
def configuration(tmp_path: Path) -> Path:
    """A valid file; checking it takes the dependencies."""
    (tmp_path / "pipeline.yaml").write_text(CONFIGURATION)
    return tmp_path / "pipeline.yaml"


@pytest.fixture
def program(pyz: Path, warm_cache: Path, tmp_path: Path) -> Program:
    """The archive, in an environment of its own and with a folder to work in."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "NXS_BACKUP_CACHE_DIR": str(warm_cache),
    }
    return Program(pyz, tmp_path, environment)


@pytest.fixture(params=places.MAKERS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """A place of each storage, one after the other."""
    with ExitStack() as stack:
        made = places.MAKERS[request.param](stack, tmp_path)
        if made is None:
            pytest.skip("no server can be run here")
        if made.keys["type"] == "s3":
            made.keys["max_size"] = "100GiB"  # With larger objects parts may grow, and memory too.
        yield made


@pytest.fixture(scope="module")
def sshd() -> Iterator[Sshd]:
    with Sshd() as server:
        yield server
