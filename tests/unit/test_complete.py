"""What a word of the command line may become."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.cli.main import main

CONFIGURATION = """\
include: [more.yaml]
storages: {nas: {type: local}}
backups: {crm-db: {}, files: {}}
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pipeline.yaml").write_text(CONFIGURATION)
    (tmp_path / "more.yaml").write_text("storages: {offsite: {password: '${file:none}'}}\n")
    (tmp_path / "broken.yaml").write_text("backups: [")
    monkeypatch.chdir(tmp_path)


def candidates(capsys: pytest.CaptureFixture[str], line: str) -> list[str]:
    """What the word with the bar may become."""
    words = ["nxs-backup", *line.split(" ")]
    cursor = next(place for place, word in enumerate(words) if "|" in word)
    dotted = ["." + word.replace("|", "") for word in words]
    assert main(["complete", str(cursor), *dotted]) == 0
    told = capsys.readouterr()
    assert told.err == ""
    return [each.partition("\t")[0] for each in told.out.splitlines()]


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("ver|", ["verify", "version"]),
        ("work|", []),
        ("nonsense|", []),
        ("run |", [":files"]),
        ("run pipeline.yaml |", []),
        ("run pipeline.yaml --backup |", ["crm-db", "files"]),
        ("run pipeline.yaml --backup c|", ["crm-db"]),
        ("run pipeline.yaml --backup = c|", ["crm-db"]),
        ("run pipeline.yaml --backup =|", ["crm-db", "files"]),
        ("run --backup | pipeline.yaml", ["crm-db", "files"]),
        ("run --backup c| --dry-run pipeline.yaml", ["crm-db"]),
        ("run --backup |", []),
        ("list pipeline.yaml --storage |", ["nas", "offsite"]),
        ("list pipeline.yaml --storage=n|", ["--storage=nas"]),
        ("run broken.yaml --backup |", []),
        ("run missing.yaml --backup |", []),
        ("run pipeline.yaml --parallel |", []),
        ("run pipeline.yaml --log-format |", ["text", "json"]),
        ("verify pipeline.yaml --at |", ["latest", "all"]),
        ("restore pipeline.yaml --to |", [":files"]),
        ("restore pipeline.yaml --identity |", [":files"]),
        ("--no-color ver|", ["verify", "version"]),
        ("--env-file x ver|", ["verify", "version"]),
        ("-v run pipeline.yaml -q --backup f|", ["files"]),
        ("init sq|", ["sqlite"]),
        ("init sqlite s3 sl|", ["slack"]),
        ("completion |", ["bash", "zsh", "fish"]),
        ("prune pipeline.yaml --dr|", ["--dry-run"]),
    ],
)
def test_a_word_may_become(
    line: str, wanted: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert candidates(capsys, line) == wanted


def test_every_command_but_our_own_is_offered(capsys: pytest.CaptureFixture[str]) -> None:
    found = candidates(capsys, "|")
    assert {"run", "check", "restore", "init", "schema", "completion"} <= set(found)
    assert not {"worker", "complete"} & set(found)


def test_every_option_of_a_command_is_offered(capsys: pytest.CaptureFixture[str]) -> None:
    found = candidates(capsys, "run pipeline.yaml --|")
    assert {"--backup", "--dry-run", "--parallel", "--json", "--env-file", "--help"} <= set(found)
