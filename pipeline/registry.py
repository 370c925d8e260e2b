"""From a model of the configuration to the stage that does the work.

A component is found by its `type`: `stages.<kind>.<type>`, attribute `COMPONENT`. It is imported on
first use, so a missing driver breaks only the backup that needs it, and starting is quick.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping
from functools import partial
from typing import Any, cast

from pipeline.errors import ConfigError, NxsError
from pipeline.stage import Exporter, Notifier, Source, Storage, Transform
from schemas.base import Spec
from schemas.manifest import ManifestStage
from schemas.pipeline import Pipeline
from schemas.transforms import bare_spec

_CONTRACTS: Mapping[str, type] = {
    "sources": Source,
    "transforms": Transform,
    "storages": Storage,
    "notifiers": Notifier,
}
_added: dict[tuple[str, str], Any] = {}


def add(components: Mapping[tuple[str, str], Any]) -> None:
    """Make the components of modules known, by kind and type.

    Raises:
        ConfigError: one does not keep the contract of its kind.
    """
    for (kind, type_name), component in components.items():
        contract = _CONTRACTS[kind]
        if not (isinstance(component, type) and issubclass(component, contract)):
            raise ConfigError(
                f'the module "{_file_of(component)}" maps "{type_name}" to what is no '
                f"{contract.__name__}",
                f"its class needs the base `{contract.__name__}` of pipeline.api",
            )
    _added.update(components)


def _file_of(component: Any) -> str:
    """The file of the module that a component comes from."""
    module = sys.modules.get(getattr(component, "__module__", ""))
    return os.path.basename(getattr(module, "__file__", None) or "of the configuration")


def _made(kind: str, spec: Spec, *arguments: Any) -> Any:
    """The component of a model; whatever goes wrong in one of a module names the module."""
    type_name = _type_of(spec)
    component = _component(kind, type_name)
    try:
        return component(spec, *arguments)
    except NxsError:
        raise
    except Exception as error:
        if (kind, type_name) not in _added:
            raise
        raise ConfigError(
            f'the {kind[:-1]} "{type_name}" of the module "{_file_of(component)}" cannot be made: '
            f"{type(error).__name__}: {error}",
            "its class has an error, or lacks a method of its contract",
        ) from error


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
    return cast(Source, _made("sources", spec, backup))


def make_transform(spec: Spec) -> Transform:
    """A transform."""
    return cast(Transform, _made("transforms", spec))


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
    return cast(Storage, _made("storages", spec))


def make_notifier(spec: Spec) -> Notifier:
    """A notifier."""
    return cast(Notifier, _made("notifiers", spec))


def make_exporter(name: str, pipeline: Pipeline) -> Exporter:
    """What tells a monitoring system about runs, from the settings of a configuration."""
    return cast(Exporter, _component("exporters", name)(pipeline))


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
