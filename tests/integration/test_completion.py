"""Completion in the real shells, by the key that a person presses."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.terminal import Terminal
from tests.unit.test_components import ROOT

pytestmark = pytest.mark.integration

CONFIGURATION = """\
name: shop
storages:
  nas: {type: local, path: "${NOT_SET}"}
  offsite: {type: sftp, unknown: key}
backups:
  crm-db: {source: {type: stdin}, fan_out: [{storage: nas}]}
  files.all: {}
"""
LINES = {
    "command": ("ch", "check"),
    "option": ("run pipeline.yaml --dry", "--dry-run"),
    "choice": ("graph pipeline.yaml --format mer", "mermaid"),
    "word-of-a-placeholder": ("verify pipeline.yaml --at la", "latest"),
    "type": ("init files mongo", "mongodb"),
    "file": ("check pip", "pipeline.yaml"),
    "backup": ("run pipeline.yaml --backup cr", "crm-db"),
    "storage": ("list pipeline.yaml --storage of", "offsite"),
    "storage-after-equals": ("list pipeline.yaml --storage=of", "offsite"),
}


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A directory with a configuration, and the program in `bin`."""
    (tmp_path / "pipeline.yaml").write_text(CONFIGURATION)
    program = tmp_path / "bin" / "nxs-backup"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m pipeline "$@"\n', encoding="utf-8"
    )
    program.chmod(0o755)
    return tmp_path


def environ(here: Path) -> dict[str, str]:
    return {"PATH": f"{here}/bin:/usr/bin:/bin", "HOME": str(here), "TERM": "xterm"}


def pressed(shell: list[str], setup: str, here: Path, line: str, wanted: str) -> None:
    """Type a line and Tab: the shell completes what is unique."""
    with Terminal(shell, here, environ(here)) as terminal:
        terminal.type(f"{setup}; echo re''ady\n")
        terminal.expect("ready")
        terminal.type(f"nxs-backup {line}\t")
        rest = wanted.removeprefix(line.rpartition(" ")[2].rpartition("=")[2])
        terminal.expect(f"nxs-backup {line}")
        terminal.expect(rest)


def in_bash(here: Path, line: str, wanted: str) -> None:
    setup = 'eval "$(nxs-backup completion bash)"'
    pressed(["bash", "--norc", "--noprofile", "-i"], setup, here, line, wanted)


def in_zsh(here: Path, line: str, wanted: str) -> None:
    setup = 'autoload -U compinit; compinit -u -D; eval "$(nxs-backup completion zsh)"'
    pressed(["zsh", "-f", "-i"], setup, here, line, wanted)


def in_fish(here: Path, line: str, wanted: str) -> None:
    found = fish(here, f'complete -C "nxs-backup {line}"')
    words = [each.partition("\t")[0].rpartition("=")[2] for each in found]
    assert words == [wanted]


def fish(here: Path, command: str) -> list[str]:
    done = subprocess.run(
        ["fish", "--no-config", "-c", f"nxs-backup completion fish | source; {command}"],
        cwd=here,
        env=environ(here),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout.splitlines()


SHELLS: dict[str, Callable[[Path, str, str], None]] = {
    "bash": in_bash,
    "zsh": in_zsh,
    "fish": in_fish,
}


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("shell", SHELLS)
def test_a_word_is_completed(shell: str, line: str, here: Path) -> None:
    SHELLS[shell](here, *LINES[line])


def test_fish_shows_what_words_mean(here: Path) -> None:
    found = dict(each.split("\t") for each in fish(here, 'complete -C "nxs-backup "'))
    assert found["check"] == "check the configuration"
    assert not {"worker", "complete"} & found.keys()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_is_right_to_its_shell(shell: str, here: Path) -> None:
    script = subprocess.run(
        ["nxs-backup", "completion", shell], env=environ(here), capture_output=True, check=True
    ).stdout
    checked = subprocess.run([shell, "-n"], input=script, capture_output=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, b"")
