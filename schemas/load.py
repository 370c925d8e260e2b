"""YAML files to a `Pipeline`, or to every problem they have: the only reader of configuration.

The passes: read and merge files, resolve references, validate shapes, check names between parts.
All of them report into one list, so a file is corrected in one go.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from pydantic import BaseModel, SecretStr, ValidationError

from schemas.document import Mapping as MappingNode
from schemas.document import Scalar, Sequence, plain
from schemas.explain import explain, keep_numbers_as_text, refuse_truths
from schemas.include import Includer
from schemas.interpolate import Interpolator
from schemas.modules import NONE, Extensions, ModuleRefused, extend
from schemas.pipeline import Pipeline
from schemas.problems import Position, Problem, Problems
from schemas.references import check_references
from schemas.shapes import Shape, shape, visit

MIN_SECRET = 4
"""Characters: shorter strings are not redacted, they would hit ordinary words."""

_SECRET_NAME = re.compile(r"(?i)\$\{(file:|\w*(pass|pwd|secret|token|key|credential))")
_USERINFO = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s/?#@:]*:([^\s/?#]+)@")


@dataclass(frozen=True)
class Loaded:
    """A configuration without errors."""

    pipeline: Pipeline
    warnings: list[Problem]
    secrets: frozenset[str] = field(repr=False)
    """What must be cut out of everything that is shown."""
    files: list[Path]
    """The configuration files that were read, in order."""
    extensions: Extensions = NONE
    """What its modules add."""


class InvalidConfiguration(Exception):
    """The configuration cannot be used.

    `problems` holds all errors and warnings, by file, line and column, and no value of the file.
    """

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


def load(path: str | Path, environ: Mapping[str, str] | None = None) -> Loaded:
    """Read a configuration file, and what it includes.

    Args:
        path: the file, as it is to be named in messages.
        environ: the variables for ``${NAME}``; by default those of this process.

    Raises:
        InvalidConfiguration: it has errors.
    """
    problems = Problems()
    interpolator = Interpolator(os.environ if environ is None else environ, problems)
    includer = Includer(interpolator, problems)
    includer.read(str(path))
    pipeline, extensions = None, NONE
    if includer.root is not None:
        extensions = _extensions(includer.root, problems)
        pipeline = _validate(includer.root, includer.complete, extensions.pipeline, problems)
        expected = shape(extensions.pipeline)
        _warn_of_readers(includer.root, includer.modes, expected, problems)
        _warn_of_arguments(includer.root, expected, problems)
    if pipeline is None or problems.have_errors:
        raise InvalidConfiguration(problems.sorted())
    arguments = _secret_arguments(includer.root, shape(extensions.pipeline))
    secrets = _redactable({*_secrets(pipeline), *interpolator.file_values, *arguments})
    return Loaded(pipeline, problems.sorted(), secrets, includer.files, extensions)


def _extensions(root: MappingNode, problems: Problems) -> Extensions:
    """What the modules add that the configuration names; nothing when one cannot be used."""
    entry = root.entries.get("modules")
    items = entry.node.items if entry and isinstance(entry.node, Sequence) else []
    named = [item for item in items if isinstance(item, Scalar) and isinstance(item.value, str)]
    files: list[Path] = []
    found = NONE
    for number, item in enumerate(named):
        files.append(Path(item.at.file).parent / str(item.value))
        try:
            found = extend(files)
        except ModuleRefused as refused:
            problems.add(item.at, ("modules", number), refused.message, refused.hint)
            files.pop()
    return found


def _validate(
    root: MappingNode, complete: bool, model: type[Pipeline], problems: Problems
) -> Pipeline | None:
    keep_numbers_as_text(root, model)
    refuse_truths(root, model, problems)
    if complete:
        check_references(root, problems)
    try:
        return model.model_validate(plain(root))
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
    # What is missing may stand in the file that could not be read.
    kept = [item for item in found if complete or item["type"] != "missing" or len(item["loc"]) > 1]
    explain(kept, root, model, problems)
    return None


def _warn_of_readers(
    root: MappingNode, modes: Mapping[str, int], expected: Shape, problems: Problems
) -> None:
    in_clear = {
        scalar.at.file
        for _, scalar, found in visit(root, expected)
        if found.annotation is SecretStr and scalar.origin == "literal" and scalar.value
    }
    for file, mode in modes.items():
        if mode & 0o004 or (mode & 0o040 and file in in_clear):
            message = "can be read by others, and may hold secrets"
            problems.add(Position(file), (), message, f"chmod 600 {shlex.quote(file)}", "warning")


def _arguments(
    root: MappingNode, expected: Shape
) -> Iterator[tuple[tuple[str | int, ...], Scalar]]:
    """Arguments of programs that get a secret put in, going by the name of the variable."""
    for path, scalar, _ in visit(root, expected):
        if not {"command", "inverse"}.isdisjoint(path) and _SECRET_NAME.search(scalar.raw):
            yield path, scalar


def _warn_of_arguments(root: MappingNode, expected: Shape, problems: Problems) -> None:
    for path, scalar in _arguments(root, expected):
        message = "puts a secret where every user of this machine can read it"
        hint = "pass it to the program through `env`, or in a file"
        problems.add(scalar.at, path, message, hint, "warning")


def _secret_arguments(root: MappingNode | None, expected: Shape) -> Iterator[str]:
    for _, scalar in _arguments(root, expected) if root is not None else ():
        yield str(scalar.value)


def _secrets(value: Any) -> Iterator[str]:
    """Every secret of a model, and the passwords inside its URLs."""
    if isinstance(value, BaseModel):
        for _, child in value:
            yield from _secrets(child)
    elif isinstance(value, dict):
        for child in value.values():
            yield from _secrets(child)
    elif isinstance(value, (list, tuple)):
        for child in value:
            yield from _secrets(child)
    elif isinstance(value, SecretStr):
        yield value.get_secret_value()
        yield from _secrets(value.get_secret_value())
    elif isinstance(value, str):
        for match in _USERINFO.finditer(value):
            yield match[1]
            yield unquote(match[1])


def _redactable(secrets: set[str]) -> frozenset[str]:
    everything = secrets | {secret.strip() for secret in secrets}
    return frozenset(secret for secret in everything if len(secret) >= MIN_SECRET)
