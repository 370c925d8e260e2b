"""What the models expect at each place of the tree: the annotation of a node, and its model."""

from __future__ import annotations

import functools
import operator
import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from schemas.document import Mapping, Node, Scalar, Sequence
from schemas.problems import Path


@dataclass(frozen=True)
class Shape:
    """An annotation without ``Annotated`` and ``None``, and the metadata that stood around it."""

    annotation: Any
    metadata: tuple[Any, ...] = ()
    field: FieldInfo | None = None

    @property
    def members(self) -> tuple[Any, ...]:
        """The alternatives; one when it is no union."""
        if get_origin(self.annotation) in (Union, types.UnionType):
            return get_args(self.annotation)
        return (self.annotation,)

    @property
    def models(self) -> tuple[type[BaseModel], ...]:
        return tuple(member for member in self.members if _is_model(member))

    @property
    def is_union(self) -> bool:
        return len(self.members) > 1

    @property
    def tags(self) -> dict[str, type[BaseModel]]:
        """The values of ``type`` and their models; empty for anything that has no ``type``."""
        return {tag: model for model in self.models for tag in _tags(model)}

    @property
    def choices(self) -> tuple[str, ...]:
        """What a choice allows; empty for anything else."""
        literals = [member for member in self.members if get_origin(member) is Literal]
        return tuple(str(value) for literal in literals for value in get_args(literal))

    def model(self, node: Node | None) -> type[BaseModel] | None:
        """The model of a mapping: the only one, or the one its ``type`` names."""
        if len(self.models) == 1:
            return self.models[0]
        entry = node.entries.get("type") if isinstance(node, Mapping) else None
        tag = entry.node.value if entry and isinstance(entry.node, Scalar) else None
        return self.tags.get(tag) if isinstance(tag, str) else None

    def child(self, node: Node | None, part: str | int) -> Shape | None:
        """The shape below: of a field, of a value of a dictionary, or of an item."""
        model = self.model(node)
        if model is not None:
            info = model.model_fields.get(str(part))
            return None if info is None else of_field(info)
        wanted = list if isinstance(part, int) else dict
        for member in self.members:
            if get_origin(member) is wanted:
                return shape(get_args(member)[-1])
        return None


def shape(annotation: Any, metadata: tuple[Any, ...] = (), field: FieldInfo | None = None) -> Shape:
    """Strip ``Annotated`` and ``None`` from an annotation."""
    if get_origin(annotation) is Annotated:
        inner, *more = get_args(annotation)
        return shape(inner, (*metadata, *more), field)
    if get_origin(annotation) in (Union, types.UnionType):
        members = [member for member in get_args(annotation) if member is not type(None)]
        if len(members) == 1:
            return shape(members[0], metadata, field)
        if len(members) < len(get_args(annotation)):
            # Typing has no other way from a tuple to a union with `|`.
            return Shape(functools.reduce(operator.or_, members), metadata, field)
    return Shape(annotation, metadata, field)


def of_field(info: FieldInfo) -> Shape:
    """The shape of a field of a model."""
    return shape(info.annotation, tuple(info.metadata), info)


def visit(node: Node, at: Shape | None, path: Path = ()) -> Iterator[tuple[Path, Scalar, Shape]]:
    """Every scalar that a model knows, with its shape."""
    if at is None:
        return
    if isinstance(node, Scalar):
        yield path, node, at
    elif isinstance(node, Sequence):
        for index, item in enumerate(node.items):
            yield from visit(item, at.child(node, index), (*path, index))
    else:
        for key, entry in node.entries.items():
            yield from visit(entry.node, at.child(node, key), (*path, key))


def _is_model(member: Any) -> bool:
    return isinstance(member, type) and issubclass(member, BaseModel)


def _tags(model: type[BaseModel]) -> tuple[str, ...]:
    info = model.model_fields.get("type")
    return get_args(info.annotation) if info and get_origin(info.annotation) is Literal else ()
