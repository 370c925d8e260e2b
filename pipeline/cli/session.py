"""What all commands that read a configuration share."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pipeline import registry
from pipeline.cli import ci
from pipeline.errors import ConfigError
from pipeline.graph import Plan, compile_backup, unknown
from pipeline.redact import Redactor
from pipeline.registry import Storages
from schemas.load import InvalidConfiguration, Loaded, load
from schemas.pipeline import Pipeline
from schemas.problems import Problem


class Session:
    """A loaded configuration and its storages, for one command."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.ci = ci.find(options, os.environ)
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

    @contextmanager
    def opening_log(self) -> Iterator[None]:
        """Tell a log file that cannot be opened as a problem of the configuration, at its line.

        Raises:
            ConfigError: the block did not find it usable.
        """
        try:
            yield
        except OSError as error:
            reason = (error.strerror or "unknown error").lower()
            hint = "its folder must exist, and the user who runs backups must be able to write it"
            problem = self.loaded.problem(("log", "file"), f"cannot be opened: {reason}", hint)
            raise refused(InvalidConfiguration([problem]), self.options) from None

    def annotate(self, level: str, title: str, text: str) -> None:
        """Have continuous integration show something at a glance."""
        if self.ci and (line := self.ci.annotation(level, title, self.redactor.text(text))):
            self.complain(line)

    def print_json(self, document: Any) -> None:
        print(json.dumps(self.redactor.document(document), indent=2))

    def say(self, text: str) -> None:
        print(self.redactor.text(text))

    def complain(self, text: str) -> None:
        print(self.redactor.text(text), file=sys.stderr)


def environment(options: argparse.Namespace) -> dict[str, str]:
    """The variables of this process, and those of `--env-file` that are not set there."""
    return {**_read_env_file(options.env_file), **os.environ}


def refused(invalid: InvalidConfiguration, options: argparse.Namespace) -> ConfigError:
    """The error that ends a command, after the problems have been told on stderr."""
    _tell(invalid.problems, options)
    errors = sum(problem.severity == "error" for problem in invalid.problems)
    return ConfigError(f"{errors} {'problem' if errors == 1 else 'problems'}")


def _load(options: argparse.Namespace) -> Loaded:
    """Load the configuration; problems go to stderr, one after the other."""
    try:
        loaded = load(options.file, environment(options), options.allow_commands)
    except InvalidConfiguration as invalid:
        raise refused(invalid, options) from None
    _tell(loaded.warnings, options)
    return loaded


def _tell(problems: Sequence[Problem], options: argparse.Namespace) -> None:
    service = ci.find(options, os.environ)
    for problem in problems:
        print(problem, file=sys.stderr)
        if service and (annotation := service.problem(problem)):
            print(annotation, file=sys.stderr)


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
