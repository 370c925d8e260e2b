"""`graph`: draws the compiled stages."""

from __future__ import annotations

import argparse
import sys

from pipeline.cli.session import Session
from pipeline.draw import FORMATS, ascii_only


def run(options: argparse.Namespace) -> int:
    """Print the drawing; returns the exit code."""
    session = Session(options)
    names = session.chosen([options.backup] if options.backup else [])
    drawing = FORMATS[options.format]([session.plan(name) for name in names])
    session.say(drawing if _can_show(drawing) else ascii_only(drawing))
    return 0


def _can_show(drawing: str) -> bool:
    try:
        drawing.encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
