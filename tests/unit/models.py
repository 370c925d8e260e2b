"""All models of the configuration, for tests that hold for each of them."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel

from schemas.pipeline import Pipeline
from schemas.shapes import Shape, of_field


def every_model() -> list[type[BaseModel]]:
    """What can stand anywhere in a configuration, each once."""
    found: dict[type[BaseModel], None] = {}
    waiting: list[type[BaseModel]] = [Pipeline]
    while waiting:
        model = waiting.pop()
        if model not in found:
            found[model] = None
            for info in model.model_fields.values():
                waiting.extend(_below(of_field(info)))
    return list(found)


def every_key() -> list[tuple[type[BaseModel], str]]:
    """Every key of every model."""
    return [(model, key) for model in every_model() for key in model.model_fields]


def _below(at: Shape) -> Iterator[type[BaseModel]]:
    yield from at.models
    if not at.models:
        for part in (0, "any"):
            inner = at.child(None, part)
            if inner is not None:
                yield from _below(inner)
