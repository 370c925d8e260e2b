"""Runs the archive as a program, in a folder of its own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Finished = subprocess.CompletedProcess[str]


@dataclass
class Program:
    archive: Path
    folder: Path
    environment: dict[str, str]

    def configure(self, text: str, name: str = "pipeline.yaml") -> Path:
        """Write a configuration; `{here}` in it is the folder."""
        path = self.folder / name
        path.write_text(textwrap.dedent(text).replace("{here}", str(self.folder)))
        path.chmod(0o600)
        return path

    def command(self, *arguments: str | Path) -> list[str]:
        return [sys.executable, str(self.archive), *map(str, arguments)]

    def run(
        self,
        *arguments: str | Path,
        env: Mapping[str, str] | None = None,
        stdin: bytes | None = None,
        timeout: float = 90,
    ) -> Finished:
        """Run to the end."""
        done = subprocess.run(
            self.command(*arguments),
            cwd=self.folder,
            env={**self.environment, **(env or {})},
            input=stdin or b"",
            capture_output=True,
            timeout=timeout,
            check=False,
        )
        out, err = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        return Finished(done.args, done.returncode, out, err)

    def ok(self, *arguments: str | Path, **options: Any) -> str:
        """Run, expect exit code 0, return stdout."""
        done = self.run(*arguments, **options)
        assert done.returncode == 0, (done.returncode, done.stdout, done.stderr)
        return done.stdout

    def json(self, *arguments: str | Path, code: int = 0) -> Any:
        """Run with --json, expect an exit code, return the document."""
        done = self.run(*arguments, "--json")
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
        return json.loads(done.stdout)

    def start(self, *arguments: str | Path, **options: Any) -> subprocess.Popen[bytes]:
        """Run in the background; output goes to the file `output` in the folder."""
        with open(self.folder / "output", "wb") as output:
            return subprocess.Popen(
                self.command(*arguments),
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                **options,
            )


def wait_for(condition: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def files_below(folder: Path) -> list[str]:
    """Relative paths of all files, hidden ones included."""
    found = []
    for directory, _, names in os.walk(folder):
        found += [os.path.relpath(os.path.join(directory, name), folder) for name in names]
    return sorted(found)


def memory_ceiling(program: Program, config: Path) -> int:
    """The bytes that the run of the only backup of a configuration may take, as `check` says."""
    (ceiling,) = re.findall(r"memory at most ([\d.]+) MiB", program.ok("check", config))
    return int(float(ceiling) * (1 << 20))


def peak_memory(process: subprocess.Popen[bytes]) -> tuple[int, int]:
    """Wait for the end: (exit code, largest resident size in bytes, children not counted).

    The kernel's high-water mark is read while it runs: `ru_maxrss` would count what the test itself
    had in memory when it forked.
    """
    peak = 0
    while process.poll() is None:
        status = Path(f"/proc/{process.pid}/status").read_text()
        marks = re.findall(r"VmHWM:\s+(\d+) kB", status)
        peak = max([peak, *(int(mark) * 1024 for mark in marks)])
        time.sleep(0.02)
    return process.returncode, peak
