"""What a conversion collects: findings, comments, and the secrets that stood in clear."""

from __future__ import annotations

import re
from collections.abc import Container
from dataclasses import dataclass, field
from typing import Literal

from schemas.problems import Path, Position, show_path
from schemas.v3.load import Read
from schemas.v3.model import ENV

Kind = Literal["decide", "danger", "changed", "dropped"]
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class Finding:
    """Something the user should know about the conversion."""

    kind: Kind
    """`decide`: by hand, before the first run; `danger`: what v3 risked; `changed`: the same key
    means something else; `dropped`: it has no counterpart."""
    at: Position
    key: str
    """In the v3 configuration, as `jobs[0].sources[1].connect.db_password`."""
    message: str


@dataclass(frozen=True)
class SecretNote:
    """A secret that stood in clear, and the variable that takes its place."""

    variable: str
    at: Position
    key: str


@dataclass
class Notes:
    """Where the parts of the conversion write down what they find.

    Args:
        read: the v3 configuration, for the places in its files.
        keep_secrets: leave secrets in clear instead of replacing them by variables.
    """

    read: Read
    keep_secrets: bool = False
    findings: list[Finding] = field(default_factory=list)
    secrets: list[SecretNote] = field(default_factory=list)
    comments: dict[Path, list[str]] = field(default_factory=dict)
    """Lines above a key of our document."""
    _variables: dict[str, str] = field(default_factory=dict, repr=False)
    """Secrets and their variables: one that stands twice gets one."""

    def decide(self, path: Path, message: str, ours: Path | None = None) -> None:
        """Something to be decided by hand; with `ours`, also a comment there."""
        self._add("decide", path, message)
        if ours is not None:
            self.comment(ours, f"TODO {message}")

    def danger(self, path: Path, message: str) -> None:
        self._add("danger", path, message)

    def changed(self, path: Path, message: str) -> None:
        self._add("changed", path, message)

    def dropped(self, path: Path, message: str) -> None:
        self._add("dropped", path, message)

    def _add(self, kind: Kind, path: Path, message: str) -> None:
        finding = Finding(kind, self.read.at(path), show_path(path), message)
        if finding not in self.findings:
            self.findings.append(finding)

    def comment(self, ours: Path, line: str) -> None:
        lines = self.comments.setdefault(ours, [])
        if line not in lines:
            lines.append(line)

    def text(self, path: Path, value: str) -> str:
        """Text as our file has it: `${NAME}` for `ENV:NAME`; a dollar stands for itself."""
        match = ENV.search(value)
        if match is None:
            return value.replace("$", "$$")
        if match.start():
            self.changed(path, "v3 took the variable alone, and lost the text before ENV:")
        if not _VARIABLE.fullmatch(match[1]):
            self.decide(path, "the name of its variable cannot be used here; rename the variable")
        return "${" + re.sub(r"[^A-Za-z0-9_]", "_", match[1]) + "}"

    def secret(self, path: Path, value: str, *words: str) -> str:
        """The same for a secret; one in clear becomes a variable named after `words`."""
        if ENV.search(value) or self.keep_secrets:
            return self.text(path, value)
        variable = self._variables.get(value)
        if variable is None:
            taken = {*self._variables.values(), *self._names_in_use()}
            variable = _free(_upper("_".join(words)), taken)
            self._variables[value] = variable
            self.secrets.append(SecretNote(variable, self.read.at(path), show_path(path)))
        return "${" + variable + "}"

    def _names_in_use(self) -> set[str]:
        return self.read.variables


def _upper(words: str) -> str:
    name = re.sub(r"[^A-Z0-9]+", "_", words.upper()).strip("_") or "SECRET"
    return name if not name[0].isdigit() else f"V_{name}"


def plain_name(text: str, otherwise: str) -> str:
    """A name that may stand in a path: letters, digits, `_`, `.` and `-`."""
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-._")[:80]
    return name or otherwise


def free_name(name: str, taken: Container[str]) -> str:
    """The name, with a number when it is taken."""
    return _free(name, taken, "-")


def _free(name: str, taken: Container[str], dash: str = "_") -> str:
    if name not in taken:
        return name
    number = 2
    while f"{name}{dash}{number}" in taken:
        number += 1
    return f"{name}{dash}{number}"
