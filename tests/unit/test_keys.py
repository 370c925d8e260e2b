"""Every key a user may write says what it is, carries units, and has an example that works."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from pydantic import BaseModel, ValidationError

from schemas.base import parse_duration, parse_rate, parse_size
from schemas.document import parse, plain
from schemas.examples import example, example_of_model, first_keys
from schemas.explain import keep_numbers_as_text, refuse_truths
from schemas.problems import Problems
from schemas.publish import PIPELINE
from schemas.shapes import of_field
from tests.unit.models import every_key, every_model
from tests.unit.test_components import COMPONENTS, EXAMPLES

SCHEMA = json.loads(PIPELINE.read_text())
UNITS = {parse_size: "64MiB", parse_rate: "20MiB/s", parse_duration: "30s"}
MEASURED = re.compile(
    r"\b(bytes?|[KMG]i?B|milliseconds?|seconds?|minutes?|hours?|percent)\b|%", re.IGNORECASE
)
"""Words of a quantity that is measured, not counted."""
COUNTED = {"hourly", "readers"}
"""Keys whose descriptions have such a word, and which are counted all the same."""

keys = pytest.mark.parametrize(
    ("model", "key"), every_key(), ids=[f"{model.__name__}.{key}" for model, key in every_key()]
)


def described(model: type[BaseModel], key: str) -> dict[str, Any]:
    """A key as the published schema has it."""
    owner = SCHEMA if model.__name__ == "Pipeline" else SCHEMA["$defs"][model.__name__]
    found: dict[str, Any] = owner["properties"][key]
    return found


def unit(model: type[BaseModel], key: str) -> str | None:
    """An example of the unit that a key is written with."""
    functions = (getattr(item, "func", None) for item in of_field(model.model_fields[key]).metadata)
    return next((UNITS[function] for function in functions if function in UNITS), None)


@pytest.mark.parametrize("model", every_model(), ids=lambda model: model.__name__)
def test_a_block_says_what_it_is(model: type[BaseModel]) -> None:
    assert (model.__doc__ or "").split("\n")[0].endswith((".", "wiki"))


@keys
def test_a_key_says_what_it_is(model: type[BaseModel], key: str) -> None:
    text = described(model, key).get("description", "")
    assert text, "it needs a description"
    assert text[0].isupper() or text.startswith("`"), "a description is a sentence"
    assert text.endswith((".", "wiki")), "a description is a sentence"


@keys
def test_what_is_measured_has_a_unit(model: type[BaseModel], key: str) -> None:
    at = of_field(model.model_fields[key])
    if unit(model, key):
        assert described(model, key)["title"].startswith(("Size in B", "Rate", "Time in ms"))
        return
    assert at.annotation is not float, "a bare fraction: what does it measure?"
    if at.annotation is int and key not in COUNTED:
        assert not MEASURED.search(described(model, key)["description"]), "it needs a unit"


@keys
def test_a_key_has_an_example_that_works(model: type[BaseModel], key: str) -> None:
    at = of_field(model.model_fields[key])
    value = example(key, at)
    problems = list(validator(model, key).iter_errors(value))
    assert problems == []
    assert wrong_at(model, {key: value}) == []


@keys
def test_every_published_example_and_default_is_valid(model: type[BaseModel], key: str) -> None:
    published = described(model, key)
    defaults = [published["default"]] if "default" in published else []
    for value in [*published.get("examples", []), *defaults]:
        assert list(validator(model, key).iter_errors(value)) == []
        assert wrong_at(model, {key: value}) == []


def validator(model: type[BaseModel], key: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator({**described(model, key), "$defs": SCHEMA["$defs"]})


def wrong_at(model: type[BaseModel], values: dict[str, Any]) -> list[Any]:
    """What a model has to say about one key; its rules between keys are another matter."""
    try:
        model.model_validate({**example_of_model(model), **values})
    except ValidationError as error:
        return [found for found in error.errors() if found["loc"] and found["loc"][0] in values]
    return []


VALUES: list[Any] = [
    5,
    "5",
    1.5,
    True,
    "no",
    None,
    "",
    "a/b",
    "/a",
    "30s",
    ["a"],
    [5],
    {},
    {"a": 5},
]
STRICTER = [re.compile(r"name|legacy_directory"), re.compile(r"exclude_if_present")]
"""Keys that want quotes around a number in the schema: alone, and in a list."""


@keys
def test_the_schema_takes_what_the_model_takes(model: type[BaseModel], key: str) -> None:
    check = validator(model, key)
    for value in VALUES:
        taken, faults = loaded(model, key, value), list(check.iter_errors(value))
        is_quoted = isinstance(value, (int, float)) or value == [5]
        if not (is_quoted and any(name.fullmatch(key) for name in STRICTER)):
            assert not (taken == [] and faults), value
        assert not (taken and not faults and "value_error" not in taken), value


def loaded(model: type[BaseModel], key: str, value: Any) -> list[str]:
    """What the loader has against a value of one key: the kinds of errors."""
    problems = Problems()
    document = json.dumps({**example_of_model(model), key: value})
    root: Any = parse(document.encode(), "", problems)
    keep_numbers_as_text(root, model)
    refuse_truths(root, model, problems)
    own = ["int_type" for found in problems.sorted() if re.match(rf"{key}\b", found.path)]
    taken = plain(root)
    return own + [found["type"] for found in wrong_at(model, {key: taken[key]})]


@pytest.mark.parametrize("model", every_model(), ids=lambda model: model.__name__)
def test_no_key_is_published_that_does_not_exist(model: type[BaseModel]) -> None:
    owner = SCHEMA if model.__name__ == "Pipeline" else SCHEMA["$defs"][model.__name__]
    assert list(owner["properties"]) == list(model.model_fields)


def test_nothing_is_published_that_is_no_model() -> None:
    names = {model.__name__ for model in every_model()}
    unions = {"Source", "Stage", "Storage", "Notifier"}
    assert set(SCHEMA["$defs"]) == (names | unions) - {"Pipeline"}


@pytest.mark.parametrize("model", every_model(), ids=lambda model: model.__name__)
def test_suggested_keys_exist_and_are_optional(model: type[BaseModel]) -> None:
    for key in getattr(model, "suggested", ()):
        assert not model.model_fields[key].is_required()


@keys
def test_a_block_that_init_comments_out_says_something_without_its_sign(
    model: type[BaseModel], key: str
) -> None:
    at = of_field(model.model_fields[key])
    if len(at.models) == 1 and model.model_fields[key].get_default() is None:
        assert first_keys(at.models[0]), "it needs a key that is required, or suggested"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_keys_in_the_comments_of_an_example_exist(path: Path) -> None:
    known = {key for _, key in every_key()} | {name for _, name in COMPONENTS}
    commented = re.findall(r"^ *# ([a-z]+(?:_[a-z]+)*): \S", path.read_text(), re.MULTILINE)
    assert set(commented) - {"yaml"} <= known
