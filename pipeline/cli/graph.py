"""`graph`: draws the compiled stages."""

from __future__ import annotations

import argparse

from pipeline.cli.session import Session
from pipeline.draw import FORMATS


def run(options: argparse.Namespace) -> int:
    """Print the drawings; returns the exit code."""
    session = Session(options)
    names = session.chosen([options.backup] if options.backup else [])
    draw = FORMATS[options.format]
    print("\n\n".join(draw(session.plan(name)) for name in names))
    return 0
