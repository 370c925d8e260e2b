"""What the README says is true: its configuration loads, its commands and files exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipeline.cli.main import main
from schemas.load import load
from tests.unit.test_components import KINDS, models

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


def test_its_configuration_loads(tmp_path: Path) -> None:
    text = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)[0]
    path = tmp_path / "pipeline.yaml"
    path.write_text(text)
    path.chmod(0o600)
    loaded = load(path, {"OPS_WEBHOOK": "https://ops.example.net/hook"})
    assert loaded.warnings == []
    assert list(loaded.pipeline.backups) == ["sites"]


@pytest.mark.parametrize("kind", KINDS)
def test_its_table_names_every_component(kind: str) -> None:
    heading = {"transforms": "stages"}.get(kind, kind)
    row = next(line for line in README.splitlines() if line.startswith(f"| {heading} |"))
    assert set(re.findall(r"`(\w+)`", row)) == set(models(KINDS[kind][0]))


@pytest.mark.parametrize("text", ["README.md", "CONTRIBUTING.md"])
def test_every_link_leads_somewhere(text: str) -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)", (ROOT / text).read_text()):
        assert (ROOT / target).exists(), target


def test_its_commands_and_options_exist(capsys: pytest.CaptureFixture[str]) -> None:
    lines = re.findall(r"nxs-backup\.pyz (\w+) ([^\n#]*)", README)
    assert len(lines) >= 6
    for command, arguments in lines:
        with pytest.raises(SystemExit) as ended:
            main([command, "--help"])
        assert ended.value.code == 0
        known = capsys.readouterr().out
        for option in re.findall(r"--[a-z-]+", arguments):
            assert option in known, (command, option)


def test_its_targets_are_in_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"`?make ([a-z]+)", README):
        assert f"\n{target}:" in makefile
