"""A real journald, where /run and /var/log are its own: in a mount namespace."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.servers.base import IS_ROOT, find_program

_SESSION = """
import json, os, socket, subprocess, sys, time

journald, command, reads_stderr = json.loads(sys.argv[1])
for place in ("/run", "/var/log"):
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", place], check=True)
daemon = subprocess.Popen([journald], stderr=subprocess.DEVNULL)
try:
    deadline = time.monotonic() + 30
    while not os.path.exists("/run/systemd/journal/stdout"):
        assert time.monotonic() < deadline and daemon.poll() is None, "journald did not start"
        time.sleep(0.02)
    stream = None
    if reads_stderr:
        # As systemd does it for a service: identifier, unit, priority, prefixes, nothing forwarded.
        stream = socket.socket(socket.AF_UNIX)
        stream.connect("/run/systemd/journal/stdout")
        stream.sendall(b"nxs-backup\\n\\n6\\n1\\n0\\n0\\n0\\n")
        found = os.fstat(stream.fileno())
        os.environ["JOURNAL_STREAM"] = f"{found.st_dev}:{found.st_ino}"
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=stream)
    if stream:
        stream.close()
    subprocess.run(["journalctl", "--sync"], check=True)
    subprocess.run(["journalctl", "-o", "json", "--no-pager", "-t", "nxs-backup"], check=True)
finally:
    daemon.terminate()
    daemon.wait()
sys.exit(done.returncode)
"""


def can_run() -> bool:
    """Whether a mount namespace can be made here, as in a container it often cannot."""
    if not IS_ROOT:
        return False
    command = ["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/run"]
    return subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode == 0


def journal_of(
    command: Sequence[str], cwd: Path, environ: Mapping[str, str], reads_stderr: bool = False
) -> tuple[int, list[dict[str, Any]]]:
    """Run a program beside a journald: its exit code, and the entries of the journal.

    Args:
        reads_stderr: whether the journal is what stderr leads to, as for a service of systemd.
    """
    path = f"{os.environ.get('PATH', '')}:/lib/systemd:/usr/lib/systemd"
    journald = find_program("systemd-journald", *(f"{p}/systemd-journald" for p in path.split(":")))
    session = json.dumps([journald, list(command), reads_stderr])
    done = subprocess.run(
        ["unshare", "--mount", sys.executable, "-c", _SESSION, session],
        cwd=cwd,
        env=dict(environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        timeout=90,
        check=False,
    )
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]
