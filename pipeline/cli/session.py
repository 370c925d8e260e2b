"""What all commands that read a configuration share."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from pipeline import registry
from pipeline.errors import ConfigError
from pipeline.graph import Plan, compile_backup, unknown
from pipeline.redact import Redactor
from pipeline.registry import Storages
from schemas.load import InvalidConfiguration, Loaded, load
from schemas.pipeline import Pipeline


class Session:
    """A loaded configuration and its storages, for one command."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.loaded = _load(options)
        registry.add(self.loaded.extensions.components)
        self.redactor = Redactor(self.loaded.secrets)
        self.storages = Storages(self.pipeline.storages)
        self._plans: dict[str, Plan] = {}

    @property
    def pipeline(self) -> Pipeline:
        return self.loaded.pipeline

    def chosen(self, names: Sequence[str]) -> list[str]:
        """The named backups, all when none is named.

        Raises:
            UnknownName: one of them does not exist.
        """
        for name in names:
            if name not in self.pipeline.backups:
                raise unknown("backup", name, list(self.pipeline.backups))
        return list(dict.fromkeys(names)) or list(self.pipeline.backups)

    def plan(self, name: str) -> Plan:
        """The compiled backup, made once."""
        if name not in self._plans:
            self._plans[name] = compile_backup(self.pipeline, name, self.storages)
        return self._plans[name]

    def print_json(self, document: Any) -> None:
        print(json.dumps(self.redactor.document(document), indent=2))

    def say(self, text: str) -> None:
        print(self.redactor.text(text))

    def complain(self, text: str) -> None:
        print(self.redactor.text(text), file=sys.stderr)


def _load(options: argparse.Namespace) -> Loaded:
    """Load the configuration; problems go to stderr, one after the other."""
    environ = {**_read_env_file(options.env_file), **os.environ}
    try:
        loaded = load(options.file, environ)
    except InvalidConfiguration as invalid:
        for problem in invalid.problems:
            print(problem, file=sys.stderr)
        errors = sum(problem.severity == "error" for problem in invalid.problems)
        raise ConfigError(f"{errors} {'problem' if errors == 1 else 'problems'}") from None
    for warning in loaded.warnings:
        print(warning, file=sys.stderr)
    return loaded


def _read_env_file(path: str | None) -> dict[str, str]:
    """NAME=VALUE lines; comments and empty lines are passed over, quotes around a value removed."""
    if path is None:
        return {}
    try:
        with open(path, encoding="utf-8") as file:
            lines = [line.strip() for line in file]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f'the file "{path}" given by --env-file cannot be read') from error
    found = {}
    for number, line in enumerate(lines, start=1):
        if not line or line.startswith("#"):
            continue
        name, equals, value = line.removeprefix("export ").partition("=")
        if not equals or not name.strip().isidentifier():
            raise ConfigError(f'"{path}", line {number}: is not NAME=VALUE')
        found[name.strip()] = _unquoted(value.strip())
    return found


def _unquoted(value: str) -> str:
    quoted = len(value) >= 2 and value[0] == value[-1] and value[0] in "'\""
    return value[1:-1] if quoted else value


def wants_color(options: argparse.Namespace, is_terminal: bool) -> bool:
    """Colours only on a terminal, and never against the user's wish."""
    return is_terminal and not options.no_color and not os.environ.get("NO_COLOR")


def log_level(options: argparse.Namespace) -> str:
    """`-v` adds debug, `-q` leaves warnings and errors, `-qq` errors."""
    if options.verbose:
        return "debug"
    return ("info", "warning", "error")[min(options.quiet, 2)]
