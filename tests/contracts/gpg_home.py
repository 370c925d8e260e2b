"""A home directory of gpg with the key of the tests in it."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).parent
PUBLIC = HERE / "gpg_public.asc"
PRIVATE = HERE / "gpg_private.asc"
FINGERPRINT = "D400FFD0D087D0B93C5F20F94390F7518C8CC487"


@contextmanager
def gpg_home(*files: Path) -> Iterator[Path]:
    """A new home with the keys of these files; its agent is ended at the end."""
    # Not pytest's tmp_path: the name of the agent's socket would be too long.
    home = Path(tempfile.mkdtemp(prefix="nxs-gpg-"))
    # Else the agent takes its time to find out how much work a passphrase should cost here.
    (home / "gpg-agent.conf").write_text("s2k-count 65536\n")
    try:
        for file in files:
            command = ["gpg", "--homedir", home, "--batch", "--quiet", "--import", file]
            subprocess.run(command, check=True, capture_output=True)
        yield home
    finally:
        subprocess.run(["gpgconf", "--homedir", home, "--kill", "gpg-agent"], check=True)
        shutil.rmtree(home, ignore_errors=True)
