"""What all tests share: both event loops, and a look at what a test leaves behind."""

from __future__ import annotations

import pytest


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Every asynchronous test runs on both event loops."""
    backend: str = request.param
    return backend
