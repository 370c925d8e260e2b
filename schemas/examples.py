"""A value for every key, as it may stand in the file: for `init`, the reference and the schema.

It is the `examples` of the key or of its type, else it follows from what is allowed there. A test
names the keys that have none.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from schemas.base import Spec
from schemas.shapes import Shape, of_field


class NoExample(LookupError):
    """Neither the key nor its type has an example."""


def example(key: str, at: Shape) -> Any:
    """A value of a key.

    Raises:
        NoExample: there is none.
    """
    given = _given(at)
    if given:
        return given[0]
    if at.annotation is SecretStr:
        return f"${{{key.upper()}}}"
    if at.annotation is bool:
        return not _default(at)
    if at.choices:
        return _default(at) or at.choices[0]
    if at.models:
        return example_of_model(at.models[0])
    inner = at.child(None, 0)
    if inner is not None:
        return [example(key, inner)]
    return _usual(key, at)


def example_of_model(model: type[BaseModel]) -> dict[str, Any]:
    """The keys of a block that are required, and those that are suggested."""
    return {name: example(name, of_field(model.model_fields[name])) for name in first_keys(model)}


def first_keys(model: type[BaseModel]) -> list[str]:
    """The keys that a first configuration has, in the order of the model; `type` comes first."""
    suggested = model.suggested if issubclass(model, Spec) else ()
    fields = model.model_fields.items()
    keys = [name for name, info in fields if info.is_required() or name in suggested]
    return sorted(keys, key=lambda name: name != "type")


def _given(at: Shape) -> list[Any]:
    if at.field is not None and at.field.examples:
        return at.field.examples
    infos = (item for item in at.metadata if isinstance(item, FieldInfo))
    return next((info.examples for info in infos if info.examples), [])


def _default(at: Shape) -> Any:
    found = at.field.get_default() if at.field is not None else None
    return None if found is PydanticUndefined else found


def _usual(key: str, at: Shape) -> Any:
    default = _default(at)
    if default in (None, "", [], {}):
        raise NoExample(key)
    return default
