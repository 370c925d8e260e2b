"""From a model of the configuration to the stage that does the work.

A component is found by its `type`: `stages.<kind>.<type>`, attribute `COMPONENT`. It is imported on
first use, so a missing driver breaks only the backup that needs it, and starting is quick.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from functools import partial
from typing import Any, cast

from pipeline.errors import ConfigError
from pipeline.stage import Notifier, Source, Storage, Transform
from schemas.base import Spec
from schemas.manifest import ManifestStage
from schemas.transforms import bare_spec

_added: dict[tuple[str, str], Any] = {}


def add(components: Mapping[tuple[str, str], Any]) -> None:
    """Make the components of modules known, by kind and type."""
    _added.update(components)


def _component(kind: str, type_name: str) -> Any:
    if (kind, type_name) in _added:
        return _added[kind, type_name]
    try:
        return importlib.import_module(f"stages.{kind}.{type_name}").COMPONENT
    except ImportError as error:
        missing = error.name or "a module"
        raise ConfigError(
            f'{kind[:-1]} "{type_name}" cannot be used here: "{missing}" is not installed',
            f'install the package that provides "{missing}", or use the archive nxs-backup.pyz',
        ) from error


def _type_of(spec: Spec) -> str:
    return cast(str, spec.type)  # type: ignore[attr-defined]


def make_source(spec: Spec, backup: str) -> Source:
    """The source of a backup."""
    return cast(Source, _component("sources", _type_of(spec))(spec, backup))


def make_transform(spec: Spec) -> Transform:
    """A transform."""
    return cast(Transform, _component("transforms", _type_of(spec))(spec))


def make_index_key(identity_file: str) -> Transform:
    """What encrypts to the public keys that belong to the private ones in a file."""
    return cast(Transform, _component("transforms", "age").to_own_keys(identity_file))


def make_inverse(stage: ManifestStage, spec: Spec | None) -> Transform:
    """The transform that undoes a stage of a manifest.

    Args:
        spec: the stage of today's configuration that fits; None when there is none any more.

    Raises:
        ConfigError: without its settings it cannot be undone, or it is not known here.
    """
    found = spec or bare_spec(stage.type)
    if found is None:
        raise ConfigError(
            f'the stage "{stage.type}" of this backup is no longer in the configuration',
            f"restore it by hand with: {stage.undo}" if stage.undo else None,
        )
    return make_transform(found)


def make_storage(spec: Spec) -> Storage:
    """A storage; it connects on first use."""
    return cast(Storage, _component("storages", _type_of(spec))(spec))


def make_notifier(spec: Spec) -> Notifier:
    """A notifier."""
    return cast(Notifier, _component("notifiers", _type_of(spec))(spec))


class Storages:
    """The storages of a configuration, each made once, so that backups share its connections."""

    def __init__(self, specs: dict[str, Any]) -> None:
        self._make = {name: partial(make_storage, spec) for name, spec in specs.items()}
        self._made: dict[str, Storage] = {}

    def __getitem__(self, name: str) -> Storage:
        if name not in self._made:
            self._made[name] = self._make[name]()
        return self._made[name]

    def close(self) -> None:
        for storage in self._made.values():
            storage.close()


def rotation() -> Any:
    """The module `stages.rotate`, which the engine must not import itself."""
    return importlib.import_module("stages.rotate")
