"""What all tests share: both event loops, and which of them may run side by side."""

from __future__ import annotations

import functools
import re
from pathlib import Path

import pytest

_RUNS = re.compile(r'Runner\(|RunLock\(|main\(\[|"-m", "pipeline"|\bprogram: Program\b')
"""What a file does that runs backups: their locks are seen by all processes of the machine."""


@functools.cache
def _group(path: Path) -> str:
    return "runs" if _RUNS.search(path.read_text()) else str(path)


@pytest.hookimpl(tryfirst=True)  # before xdist looks at the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One process for each file; a single one for all that run backups, which would find the locks
    of the others held.
    """
    for item in items:
        item.add_marker(pytest.mark.xdist_group(_group(item.path)))


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Every asynchronous test runs on both event loops."""
    backend: str = request.param
    return backend
