"""The JSON Schema of the configuration, as an independent validator sees it."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from pipeline.cli.main import main
from schemas.document import Mapping, parse, plain
from schemas.explain import keep_numbers_as_text, refuse_truths
from schemas.json_schema import pipeline_schema
from schemas.modules import extend
from schemas.pipeline import Pipeline
from schemas.problems import Problems
from schemas.publish import PIPELINE, render
from tests.unit.test_components import EXAMPLES, ROOT
from tests.unit.test_wrong_files import CASES

LINE = "# yaml-language-server: $schema=../schemas/pipeline.schema.json"
PUBLISHED = jsonschema.Draft202012Validator(json.loads(PIPELINE.read_text()))


def faults(document: Any, validator: jsonschema.Draft202012Validator = PUBLISHED) -> list[str]:
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(document)]


def read(path: Path) -> Mapping | None:
    """A file as its author wrote it, with nothing included; None when it is no YAML for us."""
    problems = Problems()
    node = parse(path.read_bytes(), path.name, problems)
    return node if isinstance(node, Mapping) and not problems.have_errors else None


def document(path: Path) -> Any:
    node = read(path)
    assert node is not None
    return plain(node)


def test_the_published_schema_is_fresh() -> None:
    assert PIPELINE.read_text() == render(pipeline_schema()), "python -m schemas.publish"


def test_it_is_a_schema_of_its_draft() -> None:
    jsonschema.Draft202012Validator.check_schema(PUBLISHED.schema)
    references = set(re.findall(r'"#/\$defs/(\w+)"', PIPELINE.read_text()))
    assert references <= PUBLISHED.schema["$defs"].keys()
    assert {"Source", "Stage", "Storage", "Notifier"} <= references


def test_the_command_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    assert capsys.readouterr().out == PIPELINE.read_text()


def test_the_command_prints_that_of_manifests(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", "--manifest"]) == 0
    assert capsys.readouterr().out == PIPELINE.with_name("manifest.schema.json").read_text()


def test_what_modules_add_is_part_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    tmp_path.chmod(0o755)
    for place in (tmp_path / "examples").rglob("*"):
        place.chmod(place.stat().st_mode & ~0o022)
    (tmp_path / "examples").chmod(0o755)
    path = tmp_path / "examples" / "recipe-module.yaml"
    path.write_text(path.read_text() + "unknown: ${NOT_SET}\n")
    assert main(["schema", str(path)]) == 0, "other faults of the file do not matter"
    extended = jsonschema.Draft202012Validator(json.loads(capsys.readouterr().out))
    example = document(ROOT / "examples" / "recipe-module.yaml")
    assert faults(example, extended) == []
    assert faults(example) != []


def test_a_module_that_cannot_be_used_is_a_problem_of_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "pipeline.yaml"
    path.write_text("modules: [none.py]\nname: x y\n")
    assert main(["schema", str(path)]) == 78
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.splitlines() == [
        f"{path}:1:11: modules[0]: cannot be read: no such file or directory",
        "    hint: check the path",
        "error: 1 problem",
    ]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_valid(path: Path, tmp_path: Path) -> None:
    example = document(path)
    validator = PUBLISHED
    if "modules" in example:
        module = tmp_path / "module.py"
        shutil.copy(path.parent / example["modules"][0], module)
        module.chmod(0o600)
        tmp_path.chmod(0o755)
        validator = jsonschema.Draft202012Validator(pipeline_schema(extend([module]).pipeline))
    assert faults(example, validator) == []


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_tells_editors_where_the_schema_is(path: Path) -> None:
    assert path.read_text().splitlines()[0] == LINE
    assert (path.parent / LINE.partition("=")[2]).resolve() == PIPELINE


# --- the wrong files


WRONG = [path for path in sorted(CASES.glob("*.yaml")) if read(path)]
"""Those that can be read as YAML: the faults of others, no schema sees."""
WITH_UNITS = {"buffer", "block_size"}


def errors_of_the_model(root: Mapping) -> list[ErrorDetails]:
    """What the model says of a file, before references are resolved."""
    problems = Problems()
    keep_numbers_as_text(root, Pipeline)
    refuse_truths(root, Pipeline, problems)
    truths = [ErrorDetails(type="int_type", loc=(), msg="", input=True)] * problems.have_errors
    try:
        Pipeline.model_validate(plain(root))
    except ValidationError as error:
        return [*truths, *error.errors()]
    return truths


def can_be_seen(error: ErrorDetails, root: Mapping) -> bool:
    """Rules of our own, bounds of sizes and times, and what a reference stands for, cannot."""
    if error["type"] == "missing" and len(error["loc"]) == 1:
        return "include" not in root.entries
    given = error["input"]
    is_bound = error["type"].endswith(("_than", "_than_equal", "multiple_of"))
    is_reference = isinstance(given, str) and "${" in given
    is_own = error["type"] == "value_error"
    return not (is_own or is_reference or (is_bound and error["loc"][-1] in WITH_UNITS))


@pytest.mark.parametrize("path", WRONG, ids=lambda path: path.stem)
def test_a_wrong_file_is_invalid_where_a_schema_can_see_it(path: Path) -> None:
    root = read(path)
    assert root is not None
    found = faults(plain(root))
    errors = errors_of_the_model(root)
    if any(can_be_seen(error, root) for error in errors):
        assert found != []
    elif not errors:
        assert found == []


def test_a_schema_can_see_many_wrong_files() -> None:
    assert sum(bool(faults(document(path))) for path in WRONG) > 50


REFERENCE = "${ANY}"
GOOD: dict[str, Any] = {
    "name": "shop",
    "storages": {"nas": {"type": "sftp", "host": "nas", "user": "backup", "path": "/srv"}},
    "backups": {
        "db": {
            "source": {"type": "mysql", "host": "db", "databases": ["shop"]},
            "fan_out": [{"storage": "nas", "rotate": {"daily": 7}}],
        }
    },
}


@pytest.mark.parametrize(
    ("storage", "is_valid"),
    [
        ({"port": REFERENCE}, True),
        ({"port": "1${REST}"}, True),
        ({"port": "22"}, True),
        ({"port": "no"}, False),
        ({"port": 70000}, False),
        ({"timeout": REFERENCE}, True),
        ({"timeout": "${T:-30s}"}, True),
        ({"timeout": "1h 30m"}, True),
        ({"timeout": "30"}, False),
        ({"timeout": 30}, False),
        ({"password": REFERENCE}, True),
        ({"password": 1234}, True),
        ({"password": True}, False),
        ({"password": ["x"]}, False),
        ({"host_key_check": REFERENCE}, True),
        ({"host_key_check": "off"}, True),
        ({"host_key_check": 7}, False),
        ({"user": 1000}, True),
        ({"user": ""}, False),
        ({"pasword": "x"}, False),
        ({"type": "stfp"}, False),
    ],
    ids=str,
)
def test_what_may_stand_for_a_value(storage: dict[str, Any], is_valid: bool) -> None:
    storages = {"nas": {**GOOD["storages"]["nas"], **storage}}
    assert (faults({**GOOD, "storages": storages}) == []) is is_valid


def test_a_fault_is_told_of_the_type_that_was_meant() -> None:
    storages = {"nas": {"type": "s3"}}
    assert faults({**GOOD, "storages": storages}) == [
        "$.storages.nas: 'bucket' is a required property"
    ]


def test_included_files_may_hold_what_is_required() -> None:
    assert faults({"include": ["conf.d/*.yaml"]}) == []
    assert faults({"storages": {}}) != []


def test_defaults_may_hold_what_a_backup_needs() -> None:
    backup = {"source": {"type": "files", "paths": ["/etc"]}}
    defaults = {"fan_out": [{"storage": "nas"}], "stages": [{"type": "zstd"}]}
    assert faults({**GOOD, "defaults": defaults, "backups": {"etc": backup}}) == []
    assert faults({**GOOD, "defaults": {"source": backup["source"]}}) != []


@pytest.mark.parametrize("section", ["storages", "notifiers", "backups"])
def test_names_have_a_form(section: str) -> None:
    assert any("does not match" in fault for fault in faults({**GOOD, section: {"a/b": {}}}))
