"""Where `restore` and `verify` get the private key from: a file, a variable, or the terminal."""

from __future__ import annotations

import argparse
import getpass
import os
import warnings

from pipeline.errors import NxsError
from schemas.age_keys import decode_identity


def identity(options: argparse.Namespace) -> str | None:
    """A file with the private key; None when none is given.

    A key that is typed in or comes from a variable is in memory only, and the file a name for that.

    Raises:
        NxsError: the variable is not set, or there is no terminal to ask at.
    """
    if options.identity_env is not None:
        return _in_memory(_of_variable(options.identity_env), "the variable of --identity-env")
    if options.identity_prompt:
        return _in_memory(_asked(), "what was typed in")
    given: str | None = options.identity
    return given


def _of_variable(name: str) -> str:
    key = os.environ.get(name, "").strip()
    if not key:
        raise NxsError(f'the variable "{name}" of --identity-env is not set or empty')
    return key


def _asked() -> str:
    try:
        with warnings.catch_warnings():
            # Without a terminal it would read from standard input, and show what is typed.
            warnings.simplefilter("error", getpass.GetPassWarning)
            return getpass.getpass("private key (AGE-SECRET-KEY-1...): ")
    except (getpass.GetPassWarning, EOFError):
        raise NxsError(
            "there is no terminal to ask for the private key", "give --identity or --identity-env"
        ) from None


def _in_memory(text: str, what: str) -> str:
    """A file that has no name and goes with this process."""
    lines = [line.strip() for line in text.splitlines()]
    for line in [line for line in lines if line and not line.startswith("#")] or [""]:
        try:
            decode_identity(line)
        except ValueError as problem:
            raise NxsError(f"{what} {problem}") from None
    descriptor = os.memfd_create("identity")
    os.write(descriptor, text.encode())
    return f"/proc/self/fd/{descriptor}"
