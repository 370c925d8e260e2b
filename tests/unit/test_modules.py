"""Modules of the user: found, used like any other component, and refused when unsafe."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline import api
from pipeline.cli.main import main
from schemas.load import InvalidConfiguration, load
from schemas.modules import API, ModuleRefused, extend
from tests.unit.test_components import ROOT

SHOUT = '''
from collections.abc import Iterable, Iterator
from typing import Literal
from pipeline.api import Field, Spec, StageContext, Text, Transform

class ShoutTransform(Spec):
    """Louder."""
    type: Literal["shout"]
    mark: Text = Field("!", description="What is added.")

class Shout(Transform):
    """Capitals and a mark."""
    suffix = ".loud"
    undo = "tr A-Z a-z"

    def __init__(self, spec):
        self._mark = spec.mark.encode()

    def apply(self, chunks, context):
        for chunk in chunks:
            yield chunk.upper()
        yield self._mark

    def invert(self, chunks, context):
        for chunk in chunks:
            yield chunk.lower().removesuffix(self._mark)

TRANSFORMS = {ShoutTransform: Shout}
'''
CONFIGURATION = """\
name: shop
modules: [shout.py]
storages: {here: {type: local, path: BACKUPS}}
backups:
  words:
    source: {type: command, command: [printf, hello]}
    stages: [{type: shout, mark: "?"}]
    fan_out: [{storage: here}]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tmp_path.chmod(0o755)
    write(tmp_path / "shout.py", SHOUT)
    write(tmp_path / "pipeline.yaml", CONFIGURATION.replace("BACKUPS", str(tmp_path / "kept")))
    return tmp_path


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o600)
    return path


def problems(folder: Path) -> str:
    with pytest.raises(InvalidConfiguration) as raised:
        load(folder / "pipeline.yaml", {})
    return "\n".join(map(str, raised.value.problems))


def test_a_run_and_its_restore_use_what_a_module_adds(folder: Path) -> None:
    config = str(folder / "pipeline.yaml")
    assert main(["run", config, "-q"]) == 0
    (stored,) = (folder / "kept" / "words" / "words").glob("*.loud")
    assert stored.read_bytes() == b"HELLO?"
    assert main(["verify", config]) == 0
    back = folder / "back"
    assert main(["restore", config, "--backup", "words", "--to", str(back)]) == 0
    assert back.read_bytes() == b"hello"


def test_what_a_module_adds_is_checked_like_everything_else(folder: Path) -> None:
    text = (folder / "pipeline.yaml").read_text()
    write(folder / "pipeline.yaml", text.replace('mark: "?"', "mrak: x"))
    assert "unknown key" in problems(folder)
    assert "did you mean mark" in problems(folder)
    write(folder / "pipeline.yaml", text.replace("type: shout", "type: shuot"))
    assert "did you mean shout" in problems(folder)


@pytest.mark.parametrize("mode", [0o622, 0o662, 0o660])
def test_a_file_that_others_may_write_is_refused(folder: Path, mode: int) -> None:
    (folder / "shout.py").chmod(mode)
    assert "pipeline.yaml:2:11: modules[0]: is not safe: others may write it" in problems(folder)


def test_a_directory_that_others_may_write_is_refused(folder: Path) -> None:
    folder.chmod(0o777)
    assert "is not safe: others may write its directory" in problems(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file away")
def test_a_file_of_somebody_else_is_refused(folder: Path) -> None:
    os.chown(folder / "shout.py", 12345, 12345)
    assert "is not safe" in problems(folder)


WRONG = {
    "missing": (None, "cannot be read: no such file"),
    "fails": (
        "x = 1\n1 / 0",
        "fails with ZeroDivisionError when it is loaded\n    hint: see line 2 of shout.py",
    ),
    "fails further inside": (
        "import json\n\njson.loads('{')",
        "fails with JSONDecodeError when it is loaded\n    hint: see line 3 of shout.py",
    ),
    "syntax": (
        "x = 1\ndef",
        "fails with SyntaxError when it is loaded\n    hint: see line 2 of shout.py",
    ),
    "import": (
        "import no_such_thing",
        'fails with ModuleNotFoundError when it is loaded\n    hint: "no_such_thing" is not',
    ),
    "nothing": ("x = 1", "adds nothing"),
    "another version": (f"API = {API + 1}", f"is written for version {API + 1} of the contracts"),
    "no dictionary": ("SOURCES = []", "has no dictionary in SOURCES"),
    "no model": ("SOURCES = {int: int}", "has a component without a type"),
    "known type": (SHOUT.replace('"shout"', '"zstd"'), 'its type "zstd" exists already'),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_module_that_cannot_be_used_is_named_with_the_reason(folder: Path, case: str) -> None:
    text, message = WRONG[case]
    (folder / "shout.py").unlink()
    if text is not None:
        write(folder / "shout.py", text)
    assert f"modules[0]: {message}" in problems(folder)


MISUSED = {
    "no contract": (
        SHOUT.replace("class Shout(Transform)", "class Shout"),
        'the module "shout.py" maps "shout" to what is no Transform',
    ),
    "no class": (
        SHOUT.replace("{ShoutTransform: Shout}", "{ShoutTransform: len}"),
        'maps "shout" to what is no Transform',
    ),
    "a method is missing": (
        SHOUT.replace("def invert", "def other"),
        'the transform "shout" of the module "shout.py" cannot be made: TypeError',
    ),
    "it cannot be made": (
        SHOUT.replace("spec.mark.encode()", "{}['mark']"),
        'the transform "shout" of the module "shout.py" cannot be made: KeyError',
    ),
}


@pytest.mark.parametrize("case", MISUSED)
def test_a_class_that_cannot_be_used_is_a_wrong_configuration_that_names_the_module(
    folder: Path, case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text, message = MISUSED[case]
    write(folder / "shout.py", text)
    assert main(["check", str(folder / "pipeline.yaml")]) == 78
    assert message in capsys.readouterr().err


def test_an_error_in_the_code_of_a_module_names_the_stage(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write(folder / "shout.py", SHOUT.replace("yield chunk.upper()", "yield chunk[None]"))
    assert main(["run", str(folder / "pipeline.yaml"), "--json"]) == 1
    (artifact,) = json.loads(capfd.readouterr().out)["backups"][0]["artifacts"]
    assert artifact["error"].startswith("stage shout: TypeError: ")


def test_the_code_of_an_unsafe_module_is_not_run(folder: Path) -> None:
    write(folder / "shout.py", f"open({str(folder / 'ran')!r}, 'w')").chmod(0o666)
    problems(folder)
    assert not (folder / "ran").exists()


def test_two_modules_must_not_add_the_same_type(folder: Path) -> None:
    write(folder / "again.py", SHOUT)
    with pytest.raises(ModuleRefused, match="exists already"):
        extend([folder / "shout.py", folder / "again.py"])


def test_a_configuration_with_modules_reaches_another_process(folder: Path) -> None:
    loaded = load(folder / "pipeline.yaml", {})
    data = pickle.dumps(loaded.pipeline)
    code = (
        "import pickle, sys; from schemas.modules import extend; extend([sys.argv[1]]);"
        "pipeline = pickle.load(sys.stdin.buffer);"
        "print(pipeline.backups['words'].stages[0].mark)"
    )
    command = [sys.executable, "-c", code, str(folder / "shout.py")]
    done = subprocess.run(command, input=data, capture_output=True, cwd=ROOT, check=True)
    assert done.stdout == b"?\n"


def test_every_name_of_the_contracts_exists() -> None:
    namespace: dict[str, Any] = {}
    exec("from pipeline.api import *", namespace)
    assert set(api.__all__) <= set(namespace)


def test_the_example_backs_up_a_repository(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    shutil.copytree(ROOT / "examples" / "modules", tmp_path / "modules")
    for path in (tmp_path / "modules", *(tmp_path / "modules").iterdir()):
        path.chmod(0o700)
    config = write(tmp_path / "recipe.yaml", (ROOT / "examples" / "recipe-module.yaml").read_text())
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@example.net"]
    subprocess.run(["git", "init", "-q", tmp_path / "work"], check=True)
    commit = [*git, "commit", "-q", "--allow-empty", "-m", "first"]
    subprocess.run(commit, cwd=tmp_path / "work", check=True)
    (tmp_path / "git").mkdir()
    clone = ["git", "clone", "-q", "--bare", tmp_path / "work", tmp_path / "git" / "shop.git"]
    subprocess.run(clone, check=True)
    variables = f"REPOSITORIES={tmp_path / 'git'}\nBACKUPS={tmp_path / 'kept'}\n"
    known = ["--env-file", str(write(tmp_path / "variables", variables))]
    assert main(["check", str(config), "--connect", *known]) == 0
    assert main(["run", str(config), "-q", *known]) == 0
    to = ["--backup", "repositories", "--to", str(tmp_path / "shop.bundle")]
    assert main(["restore", str(config), *to, *known]) == 0
    subprocess.run(["git", "clone", "-q", "shop.bundle", "back"], cwd=tmp_path, check=True)
    told = subprocess.run(
        ["git", "log", "--format=%s"], cwd=tmp_path / "back", capture_output=True, check=True
    )
    assert told.stdout == b"first\n"
