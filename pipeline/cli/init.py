"""`init`: writes a commented configuration to start from, by names of types or by questions."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import socket
import sys
from dataclasses import replace
from pathlib import Path

from pipeline.cli._init.ask import ask, ask_for, until_right
from pipeline.cli._init.found import find
from pipeline.cli._init.parts import UNIONS, choose, types
from pipeline.cli._init.render import render
from pipeline.cli._init.text import variables
from pipeline.errors import NxsError
from schemas.problems import listed, suggest

_USUAL_FILE = "pipeline.yaml"


def run(options: argparse.Namespace) -> int:
    """Write the configuration; returns the exit code."""
    output = options.output
    if output is not None:
        _refuse_existing(output, options.force)
    found = find()
    if options.types or not (sys.stdin.isatty() and sys.stderr.isatty()):
        choice = choose(_project(), options.types or found, found)
    else:
        choice = ask_for(_project(), found)
        if output is None and sys.stdout.isatty():
            output = until_right(lambda: ask("\nWrite it to", _USUAL_FILE), _new_file)
    text = render(replace(choice, is_brief=options.brief))
    if output is None:
        print(text, end="")
    else:
        _write(output, text, options.force)
    _tell_next_steps(output, text)
    return 0


def known_type(text: str) -> str:
    """A type, as argparse wants it.

    Raises:
        argparse.ArgumentTypeError: there is none of that name.
    """
    known = [name for kind in UNIONS for name in types(kind)]
    if text not in known:
        raise argparse.ArgumentTypeError(f"unknown type; {suggest(text, known, 'types')}")
    return text


def _project() -> str:
    """The name of this machine, as far as it can be one of a project."""
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", socket.gethostname().partition(".")[0])
    return name.lstrip("_.-")[:100] or "backups"


def _new_file(path: str) -> str:
    if os.path.lexists(path):
        raise ValueError("exists already; give another name")
    return path


def _refuse_existing(path: str, force: bool) -> None:
    if not force and os.path.lexists(path):
        raise NxsError(f'"{path}" exists already', "--force replaces it")


def _write(path: str, text: str, force: bool) -> None:
    """A file that only its owner can read; all of it or none."""
    fresh = Path(f"{path}.new") if force else Path(path)
    try:
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with open(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
            fresh.replace(path)
        except BaseException:
            fresh.unlink(missing_ok=True)
            raise
    except OSError as error:
        reason = (error.strerror or "unknown error").lower()
        raise NxsError(f'"{path}" cannot be written: {reason}') from None


def _tell_next_steps(output: str | None, text: str) -> None:
    names = variables(text)
    if names:
        print(f"set, or give by --env-file: {listed(names, 'and')}", file=sys.stderr)
    print(f"then: nxs-backup check {shlex.quote(output or 'FILE')} --connect", file=sys.stderr)
