"""`init` asks in a real terminal."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas.load import load
from tests.terminal import Terminal
from tests.unit.test_components import ROOT

pytestmark = pytest.mark.integration
QUESTION = "Numbers or names"


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    command = [sys.executable, "-m", "pipeline", "init"]
    with Terminal(command, tmp_path, {"PYTHONPATH": str(ROOT)}) as started:
        yield started


def answer(terminal: Terminal, *pairs: tuple[str, str]) -> None:
    for question, text in pairs:
        terminal.expect(question)
        terminal.expect("]: ")
        terminal.type(text + "\n")


CHOSEN = ((QUESTION, "files"), (QUESTION, "s3"), (QUESTION, ""), (QUESTION, ""))


def test_a_configuration_is_made_of_answers(terminal: Terminal, tmp_path: Path) -> None:
    assert "1  files" in terminal.expect("stdin")
    answer(
        terminal,
        *CHOSEN,
        ("name", "my shop"),
        ("must be a plain name; 1 to 100 letters", "shop"),
        ("paths", "srv/www"),
        ("must be an absolute path; start it with /", "/etc '/srv/my files'"),
        ("bucket", "copies"),
        ("endpoint", "s3.example.net"),
        ("must be the address of a service", "-"),
        ("Write it to", ""),
    )
    assert terminal.wait() == 0
    assert "secret_key: from the variable S3_SECRET_KEY" in terminal.seen
    path = tmp_path / "pipeline.yaml"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    pipeline = load(path, {"S3_ACCESS_KEY": "key", "S3_SECRET_KEY": "secret"}).pipeline
    assert pipeline.name == "shop"
    assert pipeline.backups["files"].source.paths == ["/etc", "/srv/my files"]  # type: ignore[union-attr]
    assert pipeline.storages["s3"].bucket == "copies"  # type: ignore[union-attr]
    assert pipeline.storages["s3"].endpoint is None  # type: ignore[union-attr]
    assert [stage.type for stage in pipeline.backup("files").stages] == ["zstd"]


def test_numbers_choose_too_and_a_wrong_one_is_asked_again(terminal: Terminal) -> None:
    answer(terminal, (QUESTION, "99"), ("known types: command, files", "1, 2"), (QUESTION, "1"))
    answer(terminal, (QUESTION, "gzip age"), (QUESTION, ""), ("name", ""))
    assert "source files" in terminal.expect("paths")
    answer(terminal, ("", ""), ("source command\r\n", ""))


def test_ctrl_c_leaves_nothing(terminal: Terminal, tmp_path: Path) -> None:
    answer(terminal, *CHOSEN)
    terminal.expect("name")
    terminal.type("\x03")
    assert terminal.wait() == 130
    assert os.listdir(tmp_path) == []


def test_an_end_of_the_answers_leaves_nothing(terminal: Terminal, tmp_path: Path) -> None:
    terminal.expect(QUESTION)
    terminal.type("\x04")
    assert terminal.wait() == 1
    assert "error: the answers ended" in terminal.seen
    assert os.listdir(tmp_path) == []


def test_an_existing_file_stays(terminal: Terminal, tmp_path: Path) -> None:
    (tmp_path / "pipeline.yaml").write_text("mine")
    answer(
        terminal,
        (QUESTION, "files"),
        (QUESTION, "local"),
        (QUESTION, ""),
        (QUESTION, ""),
        ("name", ""),
        ("paths", "/etc"),
        ("path", ""),
        ("Write it to", "pipeline.yaml"),
        ("exists already; give another name", "other.yaml"),
    )
    assert terminal.wait() == 0
    assert (tmp_path / "pipeline.yaml").read_text() == "mine"
    assert (tmp_path / "other.yaml").read_text().startswith("# yaml-language-server")
