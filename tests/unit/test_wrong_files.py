"""Wrong files: reported in full, at their place, in our own words, and without their values."""

from __future__ import annotations

import json
import random
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from schemas import notifiers, pipeline, sources, storages, transforms
from schemas.load import InvalidConfiguration, load
from schemas.problems import Problem
from schemas.shapes import Shape, of_field, shape

CASES = Path(__file__).parent / "wrong_files"
ENVIRON = {"BACKUP_USER": "backup", "EMPTY": ""}
UNIONS = {
    "source": sources.SourceSpec,
    "stage": transforms.TransformSpec,
    "storage": storages.StorageSpec,
    "notifier": notifiers.NotifierSpec,
}
CANARY = "canary-7f3a"


def problems_of(path: Path) -> InvalidConfiguration:
    with pytest.raises(InvalidConfiguration) as caught:
        load(path, ENVIRON)
    return caught.value


def names() -> list[str]:
    return sorted(path.name for path in CASES.iterdir() if path.suffix != ".md")


def expected(main: Path) -> str:
    """The leading comments of a file, with the lists filled in."""
    lines = []
    for line in main.read_text().splitlines():
        if not line.startswith("# "):
            break
        lines.append(re.sub(r"<(types|keys) of (\w+)>", filled_in, line.removeprefix("# ")))
    return "\n".join(lines)


def filled_in(match: re.Match[str]) -> str:
    if match[1] == "types":
        return ", ".join(sorted(shape(UNIONS[match[2]]).tags))
    model = next(
        found
        for module in (pipeline, sources, storages)
        if (found := getattr(module, match[2], None))
    )
    return ", ".join(sorted(model.model_fields))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def place(case: Path, folder: Path) -> None:
    """Copy a case, readable by its owner alone: what others may do is not what is tested here."""
    if case.is_dir():
        shutil.copytree(case, folder, dirs_exist_ok=True)
    else:
        shutil.copy(case, folder / "pipeline.yaml")
    for path in folder.rglob("*.yaml"):
        path.chmod(0o600)


@pytest.mark.parametrize("name", names())
def test_every_problem_is_reported_at_its_place(name: str, folder: Path) -> None:
    place(CASES / name, folder)
    wanted = expected(folder / "pipeline.yaml")
    assert wanted, "the file says nothing about what is wrong with it"
    assert str(problems_of(Path("pipeline.yaml"))) == wanted


@pytest.mark.parametrize("name", names())
def test_messages_keep_to_the_style(name: str, folder: Path) -> None:
    place(CASES / name, folder)
    for problem in problems_of(Path("pipeline.yaml")).problems:
        for text in filter(None, (problem.message, problem.hint)):
            assert not text.endswith((".", "!", " "))
            assert not text[0].isupper()
            assert "pydantic" not in text
            assert "Input" not in text


BYTES = {
    "not-utf-8": (
        b"name: shop\nhost: w\xe9b\n",
        "2:8: is not UTF-8 text\n    hint: save the file as UTF-8",
    ),
    "utf-16": (
        "name: shop\n".encode("utf-16"),
        "1:1: is not UTF-8 text\n    hint: save the file as UTF-8",
    ),
    "control-character": (
        b"name: shop\nhost: w\x07b\n",
        "2:8: a control character, which YAML does not allow\n    hint: remove it",
    ),
    "nothing": (b"", "1:1: is empty\n    hint: write a sample with: nxs-backup init"),
    "only-a-null": (b"---\n~\n", "1:1: is empty\n    hint: write a sample with: nxs-backup init"),
    "too-large": (
        b"#" * (2 << 20),
        "1:1: is larger than 512KiB\n    hint: put parts of it into files to include",
    ),
}


@pytest.mark.parametrize("case", BYTES)
def test_bytes_that_are_no_text_are_reported(case: str, folder: Path) -> None:
    data, wanted = BYTES[case]
    path = folder / "pipeline.yaml"
    path.write_bytes(data)
    path.chmod(0o600)
    assert str(problems_of(Path("pipeline.yaml"))) == f"pipeline.yaml:{wanted}"


def test_a_missing_file_is_reported(folder: Path) -> None:
    assert str(problems_of(folder / "none.yaml")) == (
        f"{folder}/none.yaml:1:1: cannot be read: no such file or directory\n"
        "    hint: check the path; a relative one starts at the folder of this file"
    )


def test_a_folder_is_reported(folder: Path) -> None:
    assert str(problems_of(folder)) == (
        f"{folder}:1:1: cannot be read: is a directory\n"
        "    hint: name a file; a folder is included as folder/*.yaml"
    )


def test_an_error_has_no_cause_that_holds_the_input(folder: Path) -> None:
    (folder / "pipeline.yaml").write_text(f"name: {CANARY} {CANARY}\n")
    error = problems_of(folder / "pipeline.yaml")
    assert error.__cause__ is None
    assert error.__context__ is None


# --- values never appear


WRONG_VALUES: list[Any] = [
    CANARY,
    [CANARY],
    [[CANARY]],
    {"type": CANARY},
    {"key": CANARY},
    {"key": {"key": CANARY}},
]
"""The canary in every kind of value."""


def filled(at: Shape, value: Any, depth: int = 0) -> Any:
    """The whole tree a model allows, with `value` at every end."""
    if at.models and depth < 9:
        blocks = [block(model, value, depth) for model in at.models]
        return blocks[0] if len(blocks) == 1 else blocks
    below = at.child(None, 0)
    if below is not None:
        entries = filled(below, value, depth + 1)
        return entries if isinstance(entries, list) and below.is_union else [entries]
    below = at.child(None, "any")
    if below is not None:
        entries = filled(below, value, depth + 1)
        if not isinstance(entries, list) or not below.is_union:
            return {"any": entries}
        return {f"any{number}": entry for number, entry in enumerate(entries)}
    return value


def block(model: type[BaseModel], value: Any, depth: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, info in model.model_fields.items():
        at = of_field(info)
        is_tag = name == "type" and at.choices
        entry = at.choices[0] if is_tag else filled(at, value, depth + 1)
        found[name] = entry
    return found


def every_source(tree: dict[str, Any]) -> dict[str, Any]:
    """`source` takes one of the union: a backup for each."""
    backups = {}
    for backup in tree["backups"].values():
        for number, source in enumerate(backup["source"]):
            backups[f"any{number}"] = {**backup, "source": source}
    return {**tree, "backups": backups}


@pytest.mark.parametrize("value", WRONG_VALUES, ids=repr)
def test_no_value_of_a_wrong_file_is_ever_shown(value: Any, tmp_path: Path) -> None:
    tree = every_source(filled(shape(pipeline.Pipeline), value))
    path = tmp_path / "pipeline.yaml"
    path.write_text(json.dumps(tree, indent=1))
    error = problems_of(path)
    assert len(error.problems) > 100 or value == CANARY
    assert CANARY not in str(error)
    assert CANARY not in repr(error)
    assert CANARY not in repr(error.problems)


@pytest.mark.parametrize(
    "text",
    [
        f"{CANARY}: [",
        f"key: @{CANARY}",
        f"key: !{CANARY} text",
        f"key: !!{CANARY} text",
        f"key: !e!{CANARY} text",
        f"key: *{CANARY}",
        f"key: &{CANARY} &{CANARY} text",
        f"key: 'a{CANARY}",
        f"key: '{CANARY}' {CANARY}",
        f"key: {CANARY}: {CANARY}",
        f"key: [{CANARY}, {{{CANARY}]",
        f"key: |{CANARY}",
        f'key: "\\q{CANARY}"',
        f"{CANARY}\n",
        f"- {CANARY}\n",
        f"key: ${{{CANARY}}}",
        f"key: ${{X{CANARY}",
        f"key: ${{file:{CANARY}}}",
        f"key: ${{file:\u0000{CANARY}}}",
        f"key: [{CANARY}]: {CANARY}",
        f"include: [{CANARY}, '{CANARY}*', './{CANARY}']",
        f"%{CANARY}\n---\nkey: [",
        f"--- {CANARY}\n--- {CANARY}\n",
    ],
)
def test_no_value_is_shown_when_the_structure_is_wrong(text: str, tmp_path: Path) -> None:
    path = tmp_path / "pipeline.yaml"
    path.write_text(text)
    error = problems_of(path)
    assert CANARY not in str(error)
    assert CANARY not in repr(error.problems)


def test_the_content_of_a_wrong_secret_file_is_not_shown(tmp_path: Path) -> None:
    (tmp_path / "port").write_text(CANARY)
    (tmp_path / "bytes").write_bytes(CANARY.encode() + b"\xff")
    path = tmp_path / "pipeline.yaml"
    path.write_text(
        "name: ${file:port} ${BACKUP_USER}\nhost: ${file:bytes}\n"
        "storages: {nas: {type: sftp, port: '${file:port}'}}\n"
    )
    assert CANARY not in str(problems_of(path))


# --- whatever stands in the file

# fmt: off
PIECES = [
    *"{}[],:&*!|>'\"%@`#-?$\\\n\t ~<=", "${", "${A:-", "<<: *x", "&x ", "*x", "- ", "? ", ": ",
    "!!int ", "!!map ", "!<", "---\n", "...\n", '"\\U99999999"', '"\\ud800"', '"\\0"', "\u2028",
    "\x85", "\ufeff", "0x", "1e999", ".inf", "|2-\n", 'include: ["\\0"]\n', 'include: ["*"]\n',
    "%YAML 1.2\n", "null", "true", "9" * 200, "é", "🐘",
]
# fmt: on
GOOD = """\
name: shop
storages: &s
  nas: {type: local, path: /srv/backups}
  hdd: {type: sftp, host: h, user: u, path: /, port: 22}
defaults: {stages: [{type: zstd, level: 3}], buffer: 64MiB}
backups:
  etc:
    source: {type: command, command: [dump, -a], env: {X: "${BACKUP_USER}"}}
    stages:
      - {type: throttle, rate: 20MiB/s}
      - type: filter
        command: [cat]
    fan_out:
      - storage: nas
        rotate: {daily: 7, within: 30d}
        required: false
    schedule: "15 3 * * *"
"""


@settings(max_examples=300, deadline=None, database=None)
@given(seed=st.integers(min_value=0), edits=st.integers(min_value=1, max_value=6))
def test_any_file_is_loaded_or_has_problems(seed: int, edits: int, tmp_path_factory: Any) -> None:
    choose = random.Random(seed)
    text = GOOD
    for _ in range(edits):
        at = choose.randrange(len(text) + 1)
        cut = choose.choice((0, 0, 1, 5, 40))
        text = text[:at] + choose.choice(PIECES) + text[at + cut :]
    path = tmp_path_factory.getbasetemp() / "pipeline.yaml"
    path.write_text(text)
    lines = 1 + sum(map(text.count, "\n\x85\u2028"))
    found = outcome(path)
    assert found
    assert all(1 <= problem.line <= lines for problem in found if isinstance(problem, Problem))


def outcome(path: Path) -> Sequence[object]:
    """The backups of a file, or its problems."""
    try:
        return list(load(path, ENVIRON).pipeline.backups)
    except InvalidConfiguration as error:
        return error.problems


def test_a_bomb_of_aliases_and_merges_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "pipeline.yaml"
    keys = ", ".join(f"k{number}: 1" for number in range(1000))
    path.write_text(f"a: &a {{{keys}}}\nb:\n  <<: [{', '.join(['*a'] * 5000)}]\n")
    assert "has too many values, those of its aliases included" in str(problems_of(path))


def test_nesting_through_aliases_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "pipeline.yaml"
    lines = [f"a{n}: &a{n} [[[[*a{n - 1}]]]]" for n in range(1, 300)]
    path.write_text("\n".join(["a0: &a0 x", *lines]))
    assert "is nested too deeply" in str(problems_of(path))


@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "? "])
def test_deep_nesting_is_refused(opening: str, tmp_path: Path) -> None:
    path = tmp_path / "pipeline.yaml"
    path.write_text(opening * 5000)
    assert "is nested too deeply" in str(problems_of(path))
