"""Drift: every component has its module, model, example and place in a contract suite."""

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path
from typing import Any, get_args

import jsonschema
import pytest

from pipeline.stage import Notifier, Source, Storage, Transform
from schemas.load import load
from schemas.notifiers import NotifierSpec
from schemas.publish import MANIFEST, manifest_schema, render
from schemas.sources import SourceSpec
from schemas.storages import StorageSpec
from schemas.transforms import TransformSpec

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))


def models(union: Any) -> dict[str, type]:
    """Models of a tagged union by their `type`."""
    members = get_args(get_args(union)[0]) if get_args(union) else (union,)
    return {get_args(model.model_fields["type"].annotation)[0]: model for model in members}


KINDS: dict[str, tuple[Any, type, str]] = {
    "sources": (SourceSpec, Source, "source"),
    "transforms": (TransformSpec, Transform, "transform"),
    "storages": (StorageSpec, Storage, "storage"),
    "notifiers": (NotifierSpec, Notifier, "notifier"),
}
COMPONENTS = [(kind, name) for kind, (union, _, _) in KINDS.items() for name in models(union)]


@pytest.mark.parametrize(("kind", "name"), COMPONENTS)
def test_a_component_is_one_module_found_by_its_type(kind: str, name: str) -> None:
    component = importlib.import_module(f"stages.{kind}.{name}").COMPONENT
    assert issubclass(component, KINDS[kind][1])
    assert component.__doc__


@pytest.mark.parametrize("kind", KINDS)
def test_every_module_is_a_component(kind: str) -> None:
    files = (ROOT / "stages" / kind).glob("*.py")
    found = {path.stem for path in files if not path.stem.startswith("_")}
    assert found == set(models(KINDS[kind][0]))


@pytest.mark.parametrize(("kind", "name"), COMPONENTS)
def test_a_component_has_an_example_that_uses_it(kind: str, name: str) -> None:
    path = ROOT / "examples" / f"{KINDS[kind][2]}-{name}.yaml"
    assert f"type: {name}" in path.read_text()


@pytest.mark.parametrize(("kind", "name"), COMPONENTS)
def test_a_component_is_in_a_contract_suite(kind: str, name: str) -> None:
    suites = (ROOT / "tests" / "contracts").glob(f"test_{KINDS[kind][2]}*.py")
    text = "".join(f"{path.stem}\n{path.read_text()}" for path in suites)
    assert f'id="{name}' in text or f'"{name}"' in text or f"test_{KINDS[kind][2]}_{name}" in text


@pytest.mark.parametrize(("kind", "name"), COMPONENTS)
def test_every_key_says_what_it_is(kind: str, name: str) -> None:
    model: Any = models(KINDS[kind][0])[name]
    assert model.__doc__
    silent = [key for key, field in model.model_fields.items() if not field.description]
    assert [key for key in silent if key != "type"] == []


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_loads_without_a_problem(path: Path, tmp_path: Path) -> None:
    # In a place of its own: a module must be safe from others.
    tmp_path.chmod(0o755)
    shutil.copytree(path.parent, tmp_path, dirs_exist_ok=True)
    for place in tmp_path.rglob("*"):
        place.chmod(place.stat().st_mode & ~0o077)  # it may hold secrets
    assert load(tmp_path / path.name, {}).warnings == []


def test_every_example_belongs_to_a_component_or_is_a_recipe() -> None:
    prefixes = tuple(f"{word}-" for _, _, word in KINDS.values())
    for path in EXAMPLES:
        assert path.stem.startswith((*prefixes, "recipe-", "quickstart")), path


def test_the_published_schema_of_the_manifest_is_fresh() -> None:
    assert MANIFEST.read_text() == render(manifest_schema()), "python -m schemas.publish"


def test_a_manifest_satisfies_its_published_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(manifest_schema())
    document = {
        "format": "nxs-backup",
        "format_version": 1,
        "program_version": "4",
        "run": "1",
        "project": "shop",
        "host": "web",
        "backup": "db",
        "artifact": "crm",
        "taken_at": "2026-11-23T03:15:00Z",
        "object": "crm_2026-11-23T03-15-00Z.sql",
        "source": {"type": "command"},
        "stored_size": 1,
        "stored_sha256": "0" * 64,
        "plain_size": 1,
        "restore": "cat x",
    }
    schema = json.loads(MANIFEST.read_text())
    jsonschema.validate(document, {**schema, "required": list(document)})
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**document, "stored_sha256": "x"}, schema)
