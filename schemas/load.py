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
from typing import Any, Literal
from urllib.parse import unquote

from pydantic import BaseModel, SecretStr, ValidationError

from schemas.document import Mapping as MappingNode
from schemas.document import Scalar, Sequence, plain
from schemas.explain import explain, keep_numbers_as_text, refuse_truths
from schemas.include import Includer
from schemas.interpolate import Interpolator
from schemas.modules import NONE, Extensions, ModuleRefused, extend
from schemas.overlaps import check_overlaps
from schemas.pipeline import Pipeline
from schemas.positions import position
from schemas.problems import Path as Keys
from schemas.problems import Position, Problem, Problems
from schemas.references import check_references
from schemas.shapes import Shape, shape, visit

MIN_SECRET = 4
"""Characters: shorter strings are not redacted, they would hit ordinary words."""

_MIN_TOKEN = 12
"""The same for parts of an address."""

_SECRET_NAME = re.compile(r"(?i)\$\{(file:|cred:|cmd:|\w*(pass|pwd|secret|token|key|credential))")
_USERINFO = re.compile(
    r"(?<![A-Za-z0-9+.-])[A-Za-z][A-Za-z0-9+.-]{0,31}://[^\s/?#@:]*:([^\s/?#]+)@"
)


@dataclass(frozen=True)
class Loaded:
    """A configuration without errors."""

    pipeline: Pipeline
    warnings: list[Problem]
    secrets: frozenset[str] = field(repr=False)
    """What must be cut out of everything that is shown."""
    files: list[Path]
    """The configuration files that were read, in order."""
    root: MappingNode = field(repr=False)
    extensions: Extensions = NONE
    """What its modules add."""

    def problem(
        self,
        path: Keys,
        message: str,
        hint: str | None = None,
        severity: Literal["error", "warning"] = "error",
    ) -> Problem:
        """What turned out to be wrong when a value was used, at its place in the file."""
        problems = Problems()
        problems.add(position(self.root, path), path, message, hint, severity)
        return problems.sorted()[0]


class InvalidConfiguration(Exception):
    """The configuration cannot be used.

    `problems` holds all errors and warnings, by file, line and column, and no value of the file.
    """

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


def load(
    path: str | Path, environ: Mapping[str, str] | None = None, allow_commands: bool = False
) -> Loaded:
    """Read a configuration file, and what it includes.

    Args:
        path: the file, as it is to be named in messages.
        environ: the variables for ``${NAME}``; by default those of this process.
        allow_commands: whether ``${cmd:...}`` may run programs.

    Raises:
        InvalidConfiguration: it has errors.
    """
    problems = Problems()
    variables = os.environ if environ is None else environ
    interpolator = Interpolator(variables, problems, allow_commands)
    includer = Includer(interpolator, problems)
    includer.read(str(path))
    pipeline, extensions = None, NONE
    if includer.root is not None:
        extensions = _extensions(includer.root, problems)
        pipeline = _validate(includer.root, includer.complete, extensions.pipeline, problems)
        expected = shape(extensions.pipeline)
        _warn_of_readers(includer.root, includer.modes, expected, problems)
        _warn_of_arguments(includer.root, expected, problems)
    if pipeline is not None and includer.root is not None:
        check_overlaps(pipeline, includer.root, problems)
    if pipeline is None or includer.root is None or problems.have_errors:
        raise InvalidConfiguration(problems.sorted())
    arguments = _secret_arguments(includer.root, shape(extensions.pipeline))
    secrets = _redactable({*_secrets(pipeline), *interpolator.outside_values, *arguments})
    warnings = problems.sorted()
    return Loaded(pipeline, warnings, secrets, includer.files, includer.root, extensions)


def load_extensions(path: str | Path, environ: Mapping[str, str] | None = None) -> Extensions:
    """What the modules of a configuration add, whatever else may be wrong with it.

    Args:
        path: the file, as it is to be named in messages.
        environ: the variables for ``${NAME}``; by default those of this process.

    Raises:
        InvalidConfiguration: it cannot be read, or one of its modules cannot be used.
    """
    problems = Problems()
    includer = Includer(
        Interpolator(os.environ if environ is None else environ, problems), problems
    )
    includer.read(str(path))
    if includer.root is None:
        raise InvalidConfiguration(problems.sorted())
    extensions = _extensions(includer.root, problems)
    of_modules = [found for found in problems.sorted() if found.path.startswith("modules")]
    if of_modules:
        raise InvalidConfiguration(of_modules)
    return extensions


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
    """Secrets in the clear where others can read them, and files that anybody can read."""
    told: set[str] = set()
    for path, scalar, found in visit(root, expected):
        file = scalar.at.file
        if modes.get(file, 0) & 0o044 and _is_secret_in_clear(scalar, found):
            told.add(file)
            message = "is a secret in the clear, in a file that others can read"
            hint = f"chmod 600 {shlex.quote(file)}; or write ${{NAME}} or ${{file:/path}} here"
            problems.add(scalar.at, path, message, hint, "warning")
    for file, mode in modes.items():
        if mode & 0o004 and file not in told:
            message = "can be read by others, and may hold secrets"
            problems.add(Position(file), (), message, f"chmod 600 {shlex.quote(file)}", "warning")


def _is_secret_in_clear(scalar: Scalar, found: Shape) -> bool:
    if scalar.origin != "literal" or not isinstance(scalar.value, str):
        return False
    is_secret = found.annotation is SecretStr and bool(scalar.value)
    return is_secret or _USERINFO.search(scalar.value) is not None


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
        yield from _tokens(value.get_secret_value())
    elif isinstance(value, str):
        for match in _USERINFO.finditer(value):
            yield match[1]
            yield unquote(match[1])


def _tokens(address: str) -> Iterator[str]:
    """What is secret by itself in an address that is: a program may show its path alone.

    A token is long and has digits; a word of the path is none, nor is the name of the host.
    """
    _, is_address, rest = address.partition("://")
    host, _, path = rest.partition("/")
    parts = [part for part in re.split("[@:]", host) if "." not in part]
    for part in (*parts, *re.split("[/?&=#:]", path)) if is_address else ():
        if len(part) >= _MIN_TOKEN and re.search("[0-9]", part):
            yield part
            yield unquote(part)


def _redactable(secrets: set[str]) -> frozenset[str]:
    everything = secrets | {secret.strip() for secret in secrets}
    return frozenset(secret for secret in everything if len(secret) >= MIN_SECRET)
