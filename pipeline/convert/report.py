"""The report of a conversion, as Markdown that is plain enough to read as it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pipeline.convert.notes import Finding, Kind, Notes
from schemas.problems import Problem

_TITLES: dict[Kind, str] = {
    "decide": "To decide by hand, before the first run",
    "danger": "What v3 did dangerously, or not at all",
    "changed": "What means something else now",
    "dropped": "What has no counterpart, and was left out",
}
_PLACES = 6


def to_report(notes: Notes, warnings: Sequence[Problem], wrong: Sequence[Problem]) -> str:
    """The text of the report.

    Args:
        warnings: what reading the v3 configuration gave.
        wrong: what is still wrong with the result, or looks wrong.
    """
    return "\n".join(_lines(notes, warnings, wrong)) + "\n"


def _lines(notes: Notes, warnings: Sequence[Problem], wrong: Sequence[Problem]) -> Iterator[str]:
    yield "# Conversion from nxs-backup v3"
    if wrong:
        yield from ("", "## Still wrong with the result", "")
        yield from (f"- {_problem(problem)}" for problem in wrong)
    if notes.secrets:
        yield from ("", "## Secrets that stood in clear", "")
        yield "Each became a variable (equal ones the same), which has to be set before a run:"
        yield "in the environment, or in a file for `--env-file`."
        yield ""
        for secret in notes.secrets:
            yield f"- `{secret.variable}`: {secret.key}, {secret.at.file}:{secret.at.line}"
    for kind, title in _TITLES.items():
        found = [finding for finding in notes.findings if finding.kind == kind]
        if found:
            yield from ("", f"## {title}", "")
            yield from _findings(found)
    if warnings:
        yield from ("", "## What v3 would have complained about", "")
        yield from (f"- {_problem(problem)}" for problem in warnings)


def _findings(found: Sequence[Finding]) -> Iterator[str]:
    """One line for each message, with the places it is about."""
    by_message: dict[str, list[Finding]] = {}
    for finding in found:
        by_message.setdefault(finding.message, []).append(finding)
    for message, same in by_message.items():
        yield f"- {message}"
        for finding in same[:_PLACES]:
            yield f"  - {finding.key}, {finding.at.file}:{finding.at.line}"
        if len(same) > _PLACES:
            yield f"  - and {len(same) - _PLACES} more"


def _problem(problem: Problem) -> str:
    hint = f" ({problem.hint})" if problem.hint else ""
    return f"{problem.file}:{problem.line}: {problem.path}: {problem.message}{hint}"


def to_env_file(notes: Notes) -> str:
    """A template for `--env-file`: every variable that a secret became, without a value."""
    lines = [
        "# Values of secrets that stood in the configuration of v3. Keep this file to yourself."
    ]
    for secret in notes.secrets:
        lines += [f"# {secret.key}, {secret.at.file}:{secret.at.line}", f"{secret.variable}="]
    return "\n".join(lines) + "\n"
