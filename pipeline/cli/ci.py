"""Continuous integration: problems as annotations, grouped logs, a summary of the run.

Formats: "Workflow commands for GitHub Actions" (also of Gitea and Forgejo), and "Custom collapsible
sections" of GitLab. Commands go to stderr, among the logs: stdout is for results.
"""

from __future__ import annotations

import argparse
import os
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping

from pipeline.redact import printable
from pipeline.report import BackupReport, Outcome, RunReport, format_seconds, format_size
from schemas.problems import Problem

_SUMMARY_FILE = "GITHUB_STEP_SUMMARY"


class Ci(ABC):
    """What one service understands: text to write, without its last newline."""

    @abstractmethod
    def annotation(self, level: str, title: str, text: str) -> str | None:
        """Something to see at a glance; None when the service has no such thing."""

    @abstractmethod
    def problem(self, problem: Problem) -> str | None:
        """The same, at a place in a file."""

    @abstractmethod
    def open_group(self, title: str) -> str:
        """What follows is shown folded."""

    @abstractmethod
    def close_group(self) -> str: ...

    @abstractmethod
    def summarize(self, report: RunReport) -> None:
        """Leave a summary of the run where the service shows it.

        Raises:
            OSError: it cannot be written.
        """


class GitHub(Ci):
    """GitHub Actions.

    Args:
        environ: the variables of the process.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._workspace = environ.get("GITHUB_WORKSPACE")
        self._summary = environ.get(_SUMMARY_FILE)

    def annotation(self, level: str, title: str, text: str) -> str:
        return _command(level, {"title": title}, text)

    def problem(self, problem: Problem) -> str:
        place = {
            "file": self._relative(problem.file),
            "line": str(problem.line),
            "col": str(problem.column),
            "title": problem.path or "configuration",
        }
        text = f"{problem.message}\nhint: {problem.hint}" if problem.hint else problem.message
        return _command(problem.severity, place, text)

    def open_group(self, title: str) -> str:
        return f"::group::{_data(title)}"

    def close_group(self) -> str:
        return "::endgroup::"

    def summarize(self, report: RunReport) -> None:
        if self._summary:
            with open(self._summary, "a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(summary_of(report))

    def _relative(self, file: str) -> str:
        """Files are known by their path in the repository."""
        if not self._workspace:
            return file
        path = os.path.relpath(os.path.abspath(file), self._workspace)
        return file if path.startswith("..") else path


class GitLab(Ci):
    """GitLab CI, which has no annotations of lines: what is wrong stands in the log as it is."""

    def __init__(self) -> None:
        self._open: list[str] = []
        self._number = 0

    def annotation(self, level: str, title: str, text: str) -> None:  # noqa: ARG002
        return None

    def problem(self, problem: Problem) -> None:  # noqa: ARG002
        return None

    def open_group(self, title: str) -> str:
        self._number += 1
        name = f"nxs_backup_{os.getpid()}_{self._number}"
        self._open.append(name)
        start = f"section_start:{int(time.time())}:{name}[collapsed=true]"
        return f"\x1b[0K{start}\r\x1b[0K{printable(title)}"

    def close_group(self) -> str:
        return f"\x1b[0Ksection_end:{int(time.time())}:{self._open.pop()}\r\x1b[0K"

    def summarize(self, report: RunReport) -> None:
        """There is no place for one; the report on stdout is all there is to say."""


def find(options: argparse.Namespace, environ: Mapping[str, str]) -> Ci | None:
    """The service that this process runs in, unless the user does not want to know."""
    if options.ci is False:
        return None
    if environ.get("GITLAB_CI"):
        return GitLab()
    # A container in a job often has no variables of it: then the user has to say so.
    return GitHub(environ) if options.ci or environ.get("GITHUB_ACTIONS") else None


def _command(name: str, properties: Mapping[str, str], text: str) -> str:
    told = ",".join(f"{key}={_property(value)}" for key, value in properties.items())
    return f"::{name} {told}::{_data(text)}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def harmless(text: str) -> str:
    """Lines of ours that hold names from elsewhere, so that none of them can pass for a command."""
    return re.sub(r"(?m)^(\s*)(::|##\[)", r"\1|\2", text)


def findings_of(report: RunReport) -> Iterator[tuple[str, str, str]]:
    """Level, title and text for each backup that did not go well: services show few of them."""
    for backup in report.backups:
        if backup.outcome is not Outcome.OK:
            bad = backup.outcome in (Outcome.FAILED, Outcome.INTERRUPTED)
            text = "\n".join(_reasons(backup)) or backup.outcome.value
            level = "error" if bad else "warning"
            yield level, f"{backup.name}: {backup.outcome.value}", report.redactor.text(text)
    if report.notifications:
        text = report.redactor.text("\n".join(report.notifications))
        yield "warning", "notifications failed", text


def _reasons(backup: BackupReport) -> Iterator[str]:
    if backup.error:
        yield backup.error
    for artifact in backup.artifacts:
        if artifact.error:
            yield f"{artifact.name}: {artifact.error}"
        for branch in artifact.branches:
            if branch.error:
                yield f"{artifact.name} on {branch.storage}: {branch.error}"
        if artifact.skipped_total:
            number = artifact.skipped_total
            yield f"{artifact.name}: {number} not read, first: {artifact.skipped[0]}"
    yield from backup.problems


_COLUMNS = ("backup", "artifact", "storage", "outcome", "read", "stored", "time")


def summary_of(report: RunReport) -> str:
    """A run as Markdown: a row for each artifact on each storage, then what is wrong."""
    head = f"{report.project} on {report.host}: {report.outcome.value}"
    lines = [f"### {_cell(head)}, {format_seconds(report.seconds)}", ""]
    lines += [_row(_COLUMNS), _row(["---"] * len(_COLUMNS))]
    for backup in report.backups:
        lines += map(_row, _rows(backup))
    for level, title, text in findings_of(report):
        lines += ["", f"**{level}: {_cell(title)}**", ""]
        lines += [f"- {_cell(line)}" for line in text.split("\n")]
    return report.redactor.text("\n".join(lines)) + "\n\n"


def _rows(backup: BackupReport) -> Iterator[list[str]]:
    if not any(artifact.branches for artifact in backup.artifacts):
        time_taken = format_seconds(backup.seconds)
        yield [backup.name, "", "", backup.outcome.value, "", "", time_taken]
    for artifact in backup.artifacts:
        for branch in artifact.branches:
            # A stream that broke off is what failed the branch.
            failed = artifact.error is not None and branch.outcome is not Outcome.OK
            outcome = artifact.outcome if failed else branch.outcome
            stored = "" if branch.stored_size is None else format_size(branch.stored_size)
            read, seconds = format_size(artifact.plain_size), format_seconds(artifact.seconds)
            where = [backup.name, artifact.name, branch.storage]
            yield [*where, outcome.value, read, stored, seconds]


def _row(cells: list[str] | tuple[str, ...]) -> str:
    return f"| {' | '.join(map(_cell, cells))} |"


def _cell(text: str) -> str:
    """Text that is no markup, whatever is in it."""
    return re.sub(r"([\\`*_{}\[\]<>#|~&])", r"\\\1", printable(text))
