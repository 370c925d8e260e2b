"""The guide to modules: its components are checked, run and restored as they stand there."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from pipeline import api
from pipeline.cli.main import main
from tests.markdown import DOCS, blocks, codes

PAGE = DOCS / "modules.md"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The files of the guide; each module begins with the name of its file."""
    tmp_path.chmod(0o755)
    for block in blocks(PAGE, "python"):
        first, _, code = block.text.partition("\n")
        write(tmp_path / first.removeprefix("# "), code)
    (configuration,) = blocks(PAGE, "yaml")
    text = configuration.text.replace("/srv/box", str(tmp_path / "box"))
    write(tmp_path / "pipeline.yaml", text.replace("/run/", f"{tmp_path}/"))
    (tmp_path / "box").mkdir()
    return tmp_path


def write(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o600)


def test_check_knows_and_probes_them(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = str(folder / "pipeline.yaml")
    assert main(["check", config, "--connect", "--notify"]) == 0, capsys.readouterr()
    said = capsys.readouterr().out
    for fact in ("packages are listed by dpkg", f"folder {folder}/box", "a test message was sent"):
        assert fact in said
    assert (folder / "backup-marker").read_text() == "notification tested\n"
    assert [path for path in (folder / "box").rglob("*") if path.is_file()] == []


def test_a_run_and_all_that_follows_it(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    config = str(folder / "pipeline.yaml")
    listed = subprocess.run(["dpkg", "--get-selections"], capture_output=True, check=True).stdout
    assert main(["run", config, "--json"]) == 0
    (artifact,) = json.loads(capfd.readouterr().out)["backups"][0]["artifacts"]
    assert artifact["counts"] == {"packages": listed.count(b"\n")}
    assert "[ok] system: ok" in (folder / "backup-marker").read_text()
    assert main(["verify", config]) == 0
    assert main(["list", config]) == 0
    to = ["--backup", "system", "--to", str(folder / "back")]
    assert main(["restore", config, *to]) == 0
    assert (folder / "back").read_bytes() == listed
    (manifest,) = (folder / "box").rglob("*.manifest.json")
    line = json.loads(manifest.read_text())["restore"]
    assert line.startswith("bzip2 -d < ")
    undone = subprocess.run(
        line.rpartition(" | ")[0], shell=True, cwd=manifest.parent, capture_output=True, check=True
    )
    assert undone.stdout == listed


def test_a_failure_leaves_nothing(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    config = folder / "pipeline.yaml"
    write(config, config.read_text().replace("{type: packages}", "{type: packages, pattern: no-x}"))
    assert main(["run", str(config), "-q"]) == 1
    assert main(["check", str(config), "--connect"]) == 1
    assert "no package has such a name" in capfd.readouterr().out
    assert [path for path in (folder / "box").rglob("*") if path.is_file()] == []


def test_rotation_and_prune_work_on_its_storage(folder: Path) -> None:
    config = folder / "pipeline.yaml"
    write(config, config.read_text().replace("{last: 7}", "{last: 1}"))
    for _ in range(2):
        assert main(["run", str(config), "-q"]) == 0
    assert len(list((folder / "box").rglob("*.manifest.json"))) == 1
    assert main(["prune", str(config)]) == 0


def test_every_name_of_the_contracts_that_it_mentions_is_one() -> None:
    imported = {
        name.strip()
        for block in blocks(PAGE, "python")
        for lines in block.text.split("from pipeline.api import ")[1:]
        for name in lines.partition(")" if lines.startswith("(") else "\n")[0].strip("(").split(",")
        if name.strip()
    }
    mentioned = {code for code in codes(PAGE) if code.isidentifier() and code[0].isupper()}
    unknown = {"API"} | {name for name in mentioned if name.isupper()}
    assert imported <= set(api.__all__)
    assert mentioned - unknown <= set(api.__all__)
