"""A v3 configuration, with all it includes, as a model, or every problem it has.

v3 reads YAML 1.1 with the names of keys in any case, takes `ENV:NAME` for a variable, and each
included file for one job.
"""

from __future__ import annotations

import glob
from collections.abc import Mapping as Environ
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from schemas.document import Entry, Mapping, Node, Scalar, Sequence, parse, plain, scalars
from schemas.explain import explain, keep_numbers_as_text, refuse_truths
from schemas.load import InvalidConfiguration
from schemas.positions import position
from schemas.problems import NOT_A_LIST, NOT_A_MAPPING, Position, Problem, Problems, suggest
from schemas.problems import Path as Keys
from schemas.shapes import Shape, shape, visit
from schemas.v3.model import ENV, Config, Fixed, Job

MAX_SIZE = 4 << 20
"""Bytes of one file."""

_WORDS = {
    **dict.fromkeys(("y", "yes", "on", "t", "1", "true"), True),
    **dict.fromkeys(("n", "no", "off", "f", "0", "false"), False),
}
_OLD_KEYS = {
    "auth_file": "v3 calls it mysql_auth_file",
    "special_keys": "v3 calls it db_extra_keys",
    "extra_keys": "v3 calls it db_extra_keys",
    "job": "v3 calls it job_name",
    "backup_dir": "v3 calls it backup_path",
    "store": "v3 calls it retention",
    "target": "v3 calls it targets, target_dbs or target_collections",
}


@dataclass(frozen=True)
class Read:
    """A v3 configuration without errors."""

    config: Config
    root: Mapping
    warnings: list[Problem]
    resolved: list[tuple[Keys, str]]
    """What came from a variable that had to be known now, and its name."""

    @property
    def variables(self) -> set[str]:
        """Names of all variables that the configuration refers to."""
        texts = (node.value for node in scalars(self.root) if isinstance(node.value, str))
        return {match[1] for text in texts if (match := ENV.search(text))}

    def at(self, path: Keys) -> Position:
        """Where something stands; the nearest place above it when it stands nowhere."""
        return position(self.root, path)


def read(path: str, environ: Environ[str, str]) -> Read:
    """Read the main file and the jobs it includes.

    Args:
        path: the file, as it is to be named in messages.
        environ: variables for what has to be known now.

    Raises:
        InvalidConfiguration: it has errors.
    """
    problems = Problems()
    root = _mapping(path, Position(path), problems)
    if root is None:
        raise InvalidConfiguration(problems.sorted())
    if "main" in root.entries and "jobs" not in root.entries:
        at = root.entries["main"].at
        problems.add(at, ("main",), "is of nxs-backup v2", "update it to v3 first, or write anew")
    _tidy(root, shape(Config), (), problems)
    _include(root, Path(path).parent, problems)
    resolved = _resolve(root, environ, problems)
    config = _validate(root, problems)
    if config is None or problems.have_errors:
        raise InvalidConfiguration(problems.sorted())
    return Read(config, root, problems.sorted(), resolved)


def _mapping(file: str, at: Position, problems: Problems) -> Mapping | None:
    try:
        with open(file, "rb") as stream:
            data = stream.read(MAX_SIZE + 1)
    except OSError as error:
        problems.add(at, (), f"cannot be read: {(error.strerror or 'unknown error').lower()}")
        return None
    if len(data) > MAX_SIZE:
        problems.add(Position(file), (), "is larger than 4MiB", "this is no configuration file")
        return None
    node = parse(data, file, problems)
    if isinstance(node, Mapping):
        return node
    if node is not None and not (isinstance(node, Scalar) and node.broken):
        problems.add(node.at, (), *NOT_A_MAPPING)
    return None


def _tidy(node: Node, expected: Shape | None, path: Keys, problems: Problems) -> None:
    """Give keys the case of our model, report those that v3 does not know, drop empty values."""
    if isinstance(node, Sequence):
        for index, item in enumerate(node.items):
            below = expected.child(node, index) if expected else None
            _tidy(item, below, (*path, index), problems)
    model = expected.model(node) if expected and isinstance(node, Mapping) else None
    if not isinstance(node, Mapping) or model is None:
        return
    known = {name.casefold(): name for name in model.model_fields}
    entries, node.entries = node.entries, {}
    for key, entry in entries.items():
        name = known.get(key.casefold())
        if name is None:
            hint = _OLD_KEYS.get(key) or suggest(key, model.model_fields, "keys")
            message = "is no key of v3, which refuses it; it is left out"
            problems.add(entry.at, (*path, key), message, hint, "warning")
        elif not (isinstance(entry.node, Scalar) and entry.node.value is None):
            node.entries[name] = entry
            below = expected.child(node, name) if expected else None
            _tidy(entry.node, below, (*path, name), problems)


def _include(root: Mapping, folder: Path, problems: Problems) -> None:
    """Add the jobs of the included files to those of the main one."""
    entry = root.entries.get("include_jobs_configs")
    patterns = entry.node if entry else None
    jobs = root.entries.setdefault("jobs", Entry(root.at, Sequence(root.at)))
    if not isinstance(patterns, Sequence) or not isinstance(jobs.node, Sequence):
        if entry and not isinstance(patterns, Sequence):
            problems.add(entry.at, ("include_jobs_configs",), *NOT_A_LIST)
        return
    for index, item in enumerate(patterns.items):
        pattern = str(item.value) if isinstance(item, Scalar) else ""
        path: Keys = ("include_jobs_configs", index)
        files = sorted(glob.glob(str(folder / pattern))) if pattern else []
        if not files:
            hint = "a relative pattern starts at the folder of the main file"
            problems.add(item.at, path, "matches no file", hint, "warning")
        for file in files:
            job = _mapping(file, item.at, problems)
            if job is not None:
                _tidy(job, shape(Job), ("jobs", len(jobs.node.items)), problems)
                jobs.node.items.append(job)


def _resolve(
    root: Mapping, environ: Environ[str, str], problems: Problems
) -> list[tuple[Keys, str]]:
    """Put in variables that must be known now, and take the words of YAML 1.1 for truths."""
    resolved = []
    for path, scalar, found in visit(root, shape(Config)):
        is_fixed = any(isinstance(mark, Fixed) for mark in found.metadata)
        match = ENV.search(scalar.value) if isinstance(scalar.value, str) else None
        if is_fixed and match:
            name = match[1]
            scalar.value = scalar.text = environ.get(name, "")
            resolved.append((path, name))
            if not scalar.value:
                scalar.broken = True
                message = f'comes from the variable "{name}", which is not set here'
                problems.add(scalar.at, path, message, "set it for the conversion")
        if found.annotation is bool and isinstance(scalar.value, str):
            scalar.value = _WORDS.get(scalar.value.lower(), scalar.value)
    return resolved


def _validate(root: Mapping, problems: Problems) -> Config | None:
    keep_numbers_as_text(root, Config)
    refuse_truths(root, Config, problems)
    try:
        config = Config.model_validate(plain(root))
    except ValidationError as error:
        explain(error.errors(include_url=False, include_input=False), root, Config, problems)
        return None
    _check_names(root, config, problems)
    return config


def _check_names(root: Mapping, config: Config, problems: Problems) -> None:
    """Storages and jobs stand once, and every storage that is named exists."""
    found = Read(config, root, [], [])
    known = {"local"}
    for index, connect in enumerate(config.storage_connects):
        path: Keys = ("storage_connects", index, "name")
        if connect.name in known:
            problems.add(found.at(path), path, "is defined twice", "keep one of them")
        known.add(connect.name)
    for number, job in enumerate(config.jobs):
        for index, options in enumerate(job.storages_options):
            path = ("jobs", number, "storages_options", index, "storage_name")
            if options.storage_name not in known:
                hint = suggest(options.storage_name, known, "storages")
                problems.add(found.at(path), path, "is no entry of storage_connects", hint)
    if not config.jobs:
        problems.add(root.at, ("jobs",), "is empty, so that there is nothing to convert")
