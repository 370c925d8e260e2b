"""Which version of a program is installed."""

from __future__ import annotations

import re
import subprocess

# mysqldump tells its own version before that of the package it is from.
_VERSION = re.compile(r"(?:Ver \S+ Distrib )?(\d+(?:\.\d+)+[\w.+-]*)")
_PATIENCE = 10.0


def version(path: str) -> str | None:
    """What a program says after `--version`; None when it does not tell."""
    try:
        done = subprocess.run(
            [path, "--version"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_PATIENCE,
            start_new_session=True,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = _VERSION.search(done.stdout.decode(errors="replace"))
    return found[1] if found else None
