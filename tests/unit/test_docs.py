"""What the documentation says is true: its configurations load, its commands and keys exist."""

from __future__ import annotations

import argparse
import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from ruamel.yaml import YAML

import schemas
from docs import reference
from pipeline.cli.main import _parser, main
from pipeline.metrics import HELP, PREFIX
from schemas.load import load
from schemas.pipeline import Backup, Pipeline
from tests.markdown import (
    DOCS,
    PAGES,
    ROOT,
    Block,
    anchors,
    blocks,
    codes,
    commands,
    prose,
    value_for,
)

README = ROOT / "README.md"
TEXTS = [README, ROOT / "CONTRIBUTING.md", *PAGES]
GENERATED = DOCS / "reference"


def id_of(value: Path | Block) -> str:
    return value.id if isinstance(value, Block) else str(value.relative_to(ROOT))


def of_language(*languages: str) -> list[Block]:
    return [block for page in TEXTS for block in blocks(page, *languages)]


# -- configurations --------------------------------------------------------------------------------


def whole(part: dict[str, Any]) -> dict[str, Any]:
    """A configuration that can be loaded, out of the part of one that a page shows."""
    if not part.keys() <= Pipeline.model_fields.keys():
        assert part.keys() <= Backup.model_fields.keys(), sorted(part)
        part = {"backups": {"shown": {"source": {"type": "files", "paths": ["/etc"]}, **part}}}
    document: dict[str, Any] = {"name": "shown", **part}
    storages = document.setdefault("storages", {})
    used = document.get("defaults", {}).get("fan_out", [])
    for backup in document.get("backups", {}).values():
        used = used + backup.get("fan_out", [])
    for branch in used:
        name = branch["storage"]
        storages.setdefault(name, {"type": "local", "path": f"/srv/{name}"})
    storages = storages or {"disk": {"type": "local", "path": "/srv/backups"}}
    source = {"type": "files", "paths": ["/etc"]}
    everything: dict[str, Any] = {"source": source}
    everything["fan_out"] = [{"storage": name} for name in storages]
    everything["notify"] = list(document.get("notifiers", {}))
    document["storages"] = storages
    backups = document.setdefault("backups", {"crm-db": everything})
    for backup in backups.values():
        if "fan_out" not in document.get("defaults", {}):
            backup.setdefault("fan_out", everything["fan_out"])
    return document


def is_alerts(block: Block) -> bool:
    return block.text.startswith("- alert:")


ALERTS = [block for block in of_language("yaml") if is_alerts(block)]
# What names modules is run with them, in test_docs_modules.py.
CONFIGURATIONS = [
    block
    for block in of_language("yaml")
    if not is_alerts(block) and "\nmodules:" not in block.text
]


@pytest.mark.parametrize("block", ALERTS, ids=id_of)
def test_alerts_are_about_metrics_that_exist(block: Block) -> None:
    named = re.findall(rf"\b{PREFIX}(\w+)", block.text + "".join(codes(block.page)))
    assert len(named) > 4
    assert set(named) - HELP.keys() == set()


@pytest.mark.parametrize("block", CONFIGURATIONS, ids=id_of)
def test_a_configuration_loads(block: Block, tmp_path: Path) -> None:
    yaml = YAML(typ="safe", pure=True)
    document = whole(yaml.load(block.text))
    for name in document.get("include", []):
        included = tmp_path / name.replace("*", "more")
        included.parent.mkdir(exist_ok=True)
        included.touch(mode=0o600)
    path = tmp_path / "pipeline.yaml"
    with open(path, "w") as file:
        YAML().dump(document, file)
    text = re.sub(r"\$\{(file|cred):[^\s\"]*?\}(?=[\"\s])", "something", path.read_text())
    path.write_text(text)
    path.chmod(0o600)
    environment = {name: value_for(name) for name in re.findall(r"\$\{([A-Z0-9_]+)", text)}
    assert [str(problem) for problem in load(path, environment).warnings] == []


def test_the_message_about_a_mistake_is_what_the_program_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = DOCS / "first-backup.md"
    script = blocks(page, "sh")[0].text
    right = script.partition("<<'END'\n")[2].partition("END\n")[0]
    (tmp_path / "pipeline.yaml").write_text(right.replace("paths:", "path:"))
    (tmp_path / "pipeline.yaml").chmod(0o600)
    monkeypatch.chdir(tmp_path)
    assert main(["check", "pipeline.yaml"]) == 78
    (shown,) = [block.text for block in blocks(page, "text") if "hint:" in block.text]
    said = capsys.readouterr().err
    assert [line for line in shown.splitlines() if line not in said] == [], said


def test_the_graph_is_what_the_program_draws(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = DOCS / "how-it-works.md"
    (configuration,) = blocks(page, "yaml")
    (tmp_path / "pipeline.yaml").write_text(configuration.text)
    (tmp_path / "pipeline.yaml").chmod(0o600)
    assert main(["graph", str(tmp_path / "pipeline.yaml")]) == 0
    drawn = capsys.readouterr().out.partition("  memory at most")[0]
    assert drawn in [block.text for block in blocks(page, "text")]


# -- keys and commands -----------------------------------------------------------------------------


def models() -> Iterator[type[BaseModel]]:
    for path in Path(schemas.__path__[0]).glob("*.py"):
        module = importlib.import_module(f"schemas.{path.stem}")
        for found in vars(module).values():
            if isinstance(found, type) and issubclass(found, BaseModel):
                yield found


KEYS = {name for model in models() for name in model.model_fields} | {"metadata"}


@pytest.mark.parametrize("page", TEXTS, ids=id_of)
def test_every_key_with_a_value_exists(page: Path) -> None:
    named = [re.match(r"([a-z_]+): ?[^/\s]", code) for code in codes(page)]
    assert {match[1] for match in named if match} - KEYS == set()


def subparsers() -> dict[str, argparse.ArgumentParser]:
    (found,) = (a for a in _parser()._actions if isinstance(a, argparse._SubParsersAction))
    return dict(found.choices)


COMMANDS = subparsers()
_CALL = re.compile(r"(?:^|[\s/])nxs-backup(?:\.pyz)? ([a-z-]+)( .*)?$")


def calls(page: Path) -> Iterator[tuple[str, str]]:
    """Every call of the program in a block: the command, and what follows."""
    for block in blocks(page, "sh", "text"):
        for line in commands(block.text):
            match = _CALL.search(re.split(r"[|<>]|  +#|&& ", line)[0].rstrip())
            if match and (line.startswith(("nxs-backup ", "python3 ")) or match[1] in COMMANDS):
                yield match[1], match[2] or ""


@pytest.mark.parametrize("page", [p for p in TEXTS if p.parent != GENERATED], ids=id_of)
def test_every_command_is_understood(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command, arguments in calls(page):
        words = [command, *shlex.split(arguments, comments=True)]
        try:
            _parser().parse_args(words)
        except SystemExit:
            pytest.fail(f"{' '.join(words)}: {capsys.readouterr().err}")


@pytest.mark.parametrize("page", [p for p in TEXTS if p.parent != GENERATED], ids=id_of)
def test_every_option_in_the_text_exists(page: Path) -> None:
    everywhere = {option for parser in COMMANDS.values() for option in options(parser)}
    for code in codes(page):
        command, *rest = code.split()
        if command in COMMANDS:
            known = options(COMMANDS[command])
            wrong = [word for word in rest if word.startswith("--") and word not in known]
            assert wrong == [], code
        elif re.fullmatch(r"--[a-z-]+( [A-Z0-9:T.a-z-]+)?", code):
            assert command in everywhere, code


def options(parser: argparse.ArgumentParser) -> set[str]:
    return {option for action in parser._actions for option in action.option_strings}


def test_every_target_of_make_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    named = {
        name
        for page in TEXTS
        for name in re.findall(r"^make ([a-z]+)|`make ([a-z]+)", page.read_text(), re.M)
    }
    assert {a or b for a, b in named} - set(re.findall(r"^([a-z]+):", makefile, re.M)) == set()


# -- links and what is made ------------------------------------------------------------------------


@pytest.mark.parametrize("page", TEXTS, ids=id_of)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", prose(page)):
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        assert path.exists(), target
        assert not anchor or anchor in anchors(path), target


def test_the_reference_is_fresh() -> None:
    written = {path.name: path.read_text() for path in GENERATED.glob("*.md")}
    made = reference.pages()
    stale = [name for name in made.keys() | written.keys() if made.get(name) != written.get(name)]
    assert stale == [], "python -m docs.reference"


def test_the_first_page_names_every_other() -> None:
    linked = re.findall(r"\]\(([\w/-]+\.md)", prose(DOCS / "index.md"))
    pages = {str(page.relative_to(DOCS)) for page in PAGES} - {"index.md"}
    assert pages - set(linked) == set()
