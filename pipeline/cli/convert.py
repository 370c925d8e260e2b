"""`convert`: a configuration of nxs-backup v3 as one of ours, with a report of what it means."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from pipeline.cli.session import environment
from pipeline.convert.convert import convert
from pipeline.convert.proof import problems_of
from pipeline.convert.report import to_env_file, to_report
from pipeline.convert.write import to_yaml
from pipeline.errors import ConfigError, NxsError
from schemas.load import InvalidConfiguration
from schemas.v3.load import Read, read


def run(options: argparse.Namespace) -> int:
    """Write the configuration, the report, and a template for its secrets."""
    found = _read(options)
    converted = convert(found, options.keep_secrets)
    text = to_yaml(converted.document, converted.notes.comments)
    wrong = problems_of(text, options.output or "pipeline.yaml")
    report = to_report(converted.notes, found.warnings, wrong)
    files = {}
    if options.output:
        files[options.output] = text
        if converted.notes.secrets:
            files[_env_name(options.output)] = to_env_file(converted.notes)
    if options.report:
        files[options.report] = report
    _write(files)
    if not options.output:
        sys.stdout.write(text)
    if not options.report:
        # Standard output is for the configuration, when nothing else takes that.
        (sys.stdout if options.output else sys.stderr).write(report)
    return 0


def _read(options: argparse.Namespace) -> Read:
    try:
        return read(options.file, environment(options))
    except InvalidConfiguration as invalid:
        for problem in invalid.problems:
            print(problem, file=sys.stderr)
        errors = sum(problem.severity == "error" for problem in invalid.problems)
        raise ConfigError(f"{errors} {'problem' if errors == 1 else 'problems'}") from None


def _env_name(output: str) -> str:
    return str(Path(output).with_suffix(".env"))


def _write(files: dict[str, str]) -> None:
    """Write new files that nobody else can read; none when one of them exists."""
    for name in files:
        if os.path.lexists(name):
            raise NxsError(f'"{name}" exists already', "remove it, or name another file")
    for name, text in files.items():
        try:
            descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError as error:
            reason = (error.strerror or "unknown error").lower()
            raise NxsError(f'"{name}" cannot be written: {reason}') from error
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
