"""`worker`: one artifact for another process of this program; see `pipeline.worker`."""

from __future__ import annotations

import argparse

from pipeline import worker


def run(options: argparse.Namespace) -> int:  # noqa: ARG001
    """Do what the parent sends; returns the exit code."""
    worker.serve()
    return 0
