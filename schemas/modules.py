"""Modules: files of the user that add sources, stages, storages and notifiers.

A module is a Python file with any of the dictionaries `SOURCES`, `TRANSFORMS`, `STORAGES` and
`NOTIFIERS`: from the model of a component (what a user may write, with a `type` of its own) to the
class that does the work. See `pipeline/api.py` for what it may rely on.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import stat
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import or_
from pathlib import Path
from types import GenericAlias, ModuleType
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import Field, create_model

from schemas.base import Spec
from schemas.notifiers import NotifierSpec
from schemas.pipeline import Backup, Branch, Defaults, Name, Pipeline
from schemas.sources import SourceSpec
from schemas.storages import StorageSpec
from schemas.transforms import TransformSpec

API = 1
"""Version of what modules may rely on; a module that names another one as `API` is refused."""

_UNIONS: dict[str, Any] = {
    "sources": SourceSpec,
    "transforms": TransformSpec,
    "storages": StorageSpec,
    "notifiers": NotifierSpec,
}
_HOME = "nxs_backup_modules"
"""The package that modules, and the models made of them, can be found under: pickles need that."""


class ModuleRefused(Exception):
    """A file cannot be used as a module.

    Args:
        message: what is wrong with it.
        hint: what to do.
    """

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


@dataclass(frozen=True)
class Extensions:
    """What the modules of a configuration add."""

    pipeline: type[Pipeline] = Pipeline
    """The model of the configuration, which knows the new types."""
    components: Mapping[tuple[str, str], Any] = field(default_factory=dict)
    """The class of each new component, by kind (`sources`...) and type."""
    files: tuple[str, ...] = ()


NONE = Extensions()


def extend(files: Sequence[str | Path]) -> Extensions:
    """Load modules, and make the model of a configuration that may use them.

    Raises:
        ModuleRefused: a file may be written by others, fails, or holds something else.
    """
    if not files:
        return NONE
    added: dict[str, list[type[Spec]]] = {kind: [] for kind in _UNIONS}
    components: dict[tuple[str, str], Any] = {}
    taken = {(kind, name) for kind, union in _UNIONS.items() for name in _types(union)}
    for file in files:
        module = _load(Path(file))
        for kind, model, component in _declared(module):
            key = (kind, _type_of(model))
            if key in taken:
                raise ModuleRefused(f'its type "{key[1]}" exists already', "give it another name")
            taken.add(key)
            added[kind].append(model)
            components[key] = component
    if not components:
        raise ModuleRefused(
            "adds nothing", "it needs SOURCES, TRANSFORMS, STORAGES or NOTIFIERS; see the guide"
        )
    return Extensions(_extended(added), components, tuple(map(str, files)))


def _load(path: Path) -> ModuleType:
    _refuse_unsafe(path)
    name = f"{_HOME}.{hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    sys.modules.setdefault(_HOME, ModuleType(_HOME))
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ModuleRefused("is no Python file", "its name must end with .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise _failed(path, error) from error
    wanted = getattr(module, "API", API)
    if wanted != API:
        raise ModuleRefused(
            f"is written for version {wanted} of the contracts, and this is {API}",
            "get a version of the module that fits",
        )
    return module


def _failed(path: Path, error: Exception) -> ModuleRefused:
    """Why a module could not be loaded: what, and in which of its lines."""
    what = type(error).__name__
    if isinstance(error, ModuleNotFoundError):
        hint = f'"{error.name}" is not installed; modules may use what Python and the archive have'
        return ModuleRefused(f"fails with {what} when it is loaded", hint)
    line = error.lineno if isinstance(error, SyntaxError) else None
    for frame, number in traceback.walk_tb(error.__traceback__):
        line = number if frame.f_code.co_filename == str(path) else line
    where = f"see line {line} of {path.name}" if line else f"look at {path.name}"
    return ModuleRefused(f"fails with {what} when it is loaded", where)


def _refuse_unsafe(path: Path) -> None:
    """Whoever may write the file, or replace it, could do everything that we may."""
    try:
        found = {place: place.stat() for place in (path, path.resolve().parent)}
    except OSError as error:
        reason = (error.strerror or "unreadable").lower()
        raise ModuleRefused(f"cannot be read: {reason}", "check the path") from None
    for place, status in found.items():
        is_ours = status.st_uid in (0, os.geteuid())
        if not is_ours or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            what = "it" if place == path else "its directory"
            raise ModuleRefused(
                f"is not safe: others may write {what}",
                f"it must belong to you or root; chmod go-w {place.name}",
            )


def _declared(module: ModuleType) -> list[tuple[str, type[Spec], Any]]:
    found = []
    for kind in _UNIONS:
        declared = getattr(module, kind.upper(), {})
        if not isinstance(declared, dict):
            raise ModuleRefused(f"has no dictionary in {kind.upper()}", "map models to classes")
        found += [(kind, model, component) for model, component in declared.items()]
    return found


def _type_of(model: Any) -> str:
    is_spec = isinstance(model, type) and issubclass(model, Spec)
    info = model.model_fields.get("type") if is_spec else None
    if info is None or get_origin(info.annotation) is not Literal:
        raise ModuleRefused(
            "has a component without a type",
            'its model needs the base `Spec` and a key `type: Literal["name"]`',
        )
    return str(get_args(info.annotation)[0])


def _members(union: Any) -> tuple[type[Spec], ...]:
    inner = get_args(union)[0] if get_origin(union) is Annotated else union
    return get_args(inner) or (inner,)


def _types(union: Any) -> list[str]:
    return [get_args(model.model_fields["type"].annotation)[0] for model in _members(union)]


def _extended(added: Mapping[str, Sequence[type[Spec]]]) -> type[Pipeline]:
    """The models again, with larger unions where there is something to add."""
    source, stage, storage, notifier = (
        Annotated[reduce(or_, (*_members(union), *added[kind])), Field(discriminator="type")]
        for kind, union in _UNIONS.items()
    )
    stages = _generic(list, stage)
    branch = _variant(Branch, stages=stages)
    fan_out = _generic(list, branch)
    backup = _variant(Backup, source=source, stages=stages, fan_out=fan_out)
    defaults = _variant(Defaults, stages=stages | None, fan_out=fan_out | None)
    pipeline: type[Pipeline] = _variant(
        Pipeline,
        storages=_generic(dict, Name, storage),
        notifiers=_generic(dict, Name, notifier),
        defaults=defaults,
        backups=_generic(dict, Name, backup),
    )
    return pipeline


def _generic(container: Any, *items: Any) -> Any:
    return GenericAlias(container, items)


def _variant(model: Any, **annotations: Any) -> Any:
    """The model with other types of some fields."""
    make: Any = create_model
    fields = {name: (kind, model.model_fields[name]) for name, kind in annotations.items()}
    made = make(model.__name__, __base__=model, __module__=_HOME, __doc__=model.__doc__, **fields)
    setattr(sys.modules[_HOME], model.__name__, made)
    return made
