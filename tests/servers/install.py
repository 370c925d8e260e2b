"""Makes the servers that no package of Debian has: `python -m tests.servers.install`.

What cannot be had here is said, and the tests that need it skip with the same reason.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tests.servers import postgres
from tests.servers.base import ServerFailed, one_at_a_time

_HERE = Path(__file__).resolve().parent


def _script(path: Path) -> Callable[[], object]:
    def build() -> None:
        with one_at_a_time(path.name.removeprefix("install-")):
            done = subprocess.run([path], capture_output=True, text=True, check=False)
        if done.returncode:
            raise ServerFailed(done.stderr.strip()[-1000:])

    return build


def _everything() -> dict[str, Callable[[], object]]:
    found = {path.name: _script(path) for path in sorted(_HERE.glob("install-*"))}
    wheels = (_HERE / "postgresql").glob("*.txt")
    for major in sorted(int(path.stem) for path in wheels):
        found[f"PostgreSQL {major}"] = lambda major=major: postgres.programs(major)  # type: ignore[misc]
    if postgres.can_run_old():
        found[f"PostgreSQL {postgres.OLD}"] = lambda: postgres.programs(postgres.OLD)
    return found


def main() -> None:
    """Make them all; one that cannot be made does not stop the others."""
    for name, make in _everything().items():
        started = time.monotonic()
        try:
            make()
            print(f"{name}: ready, {time.monotonic() - started:.0f} s", flush=True)
        except ServerFailed as reason:
            print(f"{name}: not here: {reason}", flush=True)


if __name__ == "__main__":
    main()
