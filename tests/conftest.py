"""What all tests share: both event loops, and which of them may run side by side."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

_ROOT = Path(__file__).resolve().parents[1]
_RUNS = re.compile(r'Runner\(|RunLock\(|main\(\[|"-m", "pipeline"|\bprogram: Program\b')
"""What a file does that runs backups: their locks are seen by all processes of the machine."""


@functools.cache
def _group(file: str) -> str:
    return "runs" if _RUNS.search((_ROOT / file).read_text()) else file


class _Groups(LoadScopeScheduling):  # type: ignore[misc,unused-ignore]
    """One process for each file; a single one for all that run backups, which would find the locks
    of the others held.
    """

    def _split_scope(self, nodeid: str) -> str:
        return _group(nodeid.partition("::")[0])


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """Who gives the tests to the processes of `pytest -n`."""
    return _Groups(config, log)


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Every asynchronous test runs on both event loops."""
    backend: str = request.param
    return backend
