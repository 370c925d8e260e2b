"""`complete`, for the scripts of `completion`: what the word under the cursor may become.

It knows the command line from its parser, and the names of backups and storages from the FILE that
stands on it. One candidate a line, with a tab before its description; `:files` asks the shell for
names of files.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

from schemas.document import Mapping, Node
from schemas.include import Includer
from schemas.interpolate import Interpolator
from schemas.problems import Problems

FILES = ":files"
_SECTIONS = {"backup": "backups", "storage": "storages"}
"""Options whose values are names of the configuration, and where they stand there."""
_FILE_WORDS = ("FILE", "TARGET", "DIRECTORY", "_CONF")
"""In the placeholder of a value that is a file."""

Candidate = tuple[str, str]
"""A word and its description."""


def run(options: argparse.Namespace) -> int:
    """Print the candidates; returns the exit code."""
    words = [word.removeprefix(".") for word in options.words[1:]]
    line = Line(options.parser, words, options.cursor - 1)
    for word, description in line.candidates():
        print(f"{word}\t{description}" if description else word)
    return 0


class Line:
    """A command that is being typed.

    Args:
        parser: of the program.
        words: all words after its name.
        cursor: the place of the word under the cursor; one more than the last for a new word.
    """

    def __init__(self, parser: argparse.ArgumentParser, words: Sequence[str], cursor: int) -> None:
        self._parser = parser
        self._pending: argparse.Action | None = None
        """The option that waits for its value."""
        self._given: list[str] = []
        """The arguments that are no options, after the command."""
        for word in words[:cursor]:
            self._take(word)
        self._word = words[cursor] if cursor < len(words) else ""
        self._before: tuple[argparse.ArgumentParser, argparse.Action | None, list[str]]
        self._before = (self._parser, self._pending, list(self._given))
        for word in (self._word, *words[cursor + 1 :]):
            self._take(word)
        self._file = self._given_file()

    def candidates(self) -> Iterator[Candidate]:
        """What the word may become, in the order of the parser."""
        parser, pending, given = self._before
        name, equals, value = self._word.partition("=")
        if pending is None and equals and name in _options(parser):
            pending = _options(parser)[name]
            return self._starting(value, self._values(pending), f"{name}=")
        if pending is not None:
            return self._starting(self._word.removeprefix("="), self._values(pending), "")
        if self._word.startswith("-"):
            return self._starting(self._word, _described(parser), "")
        return self._starting(self._word, self._arguments(parser, given), "")

    def _take(self, word: str) -> None:
        """Go past a word that is complete."""
        options = _options(self._parser)
        if self._pending is not None:
            # bash makes three words of --option=value.
            self._pending = self._pending if word == "=" else None
        elif word.startswith("-") and word != "-":
            action = options.get(word)
            self._pending = action if action is not None and action.nargs != 0 else None
        else:
            commands = _commands(self._parser)
            if commands is None:
                self._given.append(word)
            elif word in commands.choices:
                self._parser = commands.choices[word]

    @staticmethod
    def _starting(word: str, candidates: Iterator[Candidate], prefix: str) -> Iterator[Candidate]:
        for candidate, description in candidates:
            if candidate == FILES or candidate.startswith(word):
                yield (candidate if candidate == FILES else prefix + candidate), description

    def _arguments(
        self, parser: argparse.ArgumentParser, given: Sequence[str]
    ) -> Iterator[Candidate]:
        commands = _commands(parser)
        if commands is not None:
            for listed in commands._choices_actions:
                yield listed.dest, listed.help or ""
            return
        places = [action for action in parser._actions if not action.option_strings]
        for place, action in enumerate(places):
            if place == len(given) or (action.nargs == "*" and place < len(given)):
                yield from self._values(action)

    def _values(self, action: argparse.Action) -> Iterator[Candidate]:
        """What may stand as the value of an option or as an argument."""
        placeholder = str(action.metavar or "")
        if action.choices is not None:
            yield from ((str(choice), "") for choice in action.choices)
        elif action.dest in _SECTIONS:
            yield from ((name, "") for name in _names(self._file, _SECTIONS[action.dest]))
        elif action.dest == "types":
            yield from _types()
        elif placeholder.endswith(_FILE_WORDS):
            yield FILES, ""
        else:
            yield from ((word, "") for word in placeholder.split("|") if word.islower())

    def _given_file(self) -> str | None:
        """The configuration on the line."""
        places = [action.dest for action in self._parser._actions if not action.option_strings]
        return self._given[0] if self._given and places[:1] == ["file"] else None


def _commands(
    parser: argparse.ArgumentParser,
) -> argparse._SubParsersAction[argparse.ArgumentParser] | None:
    found = (each for each in parser._actions if isinstance(each, argparse._SubParsersAction))
    return next(found, None)


def _options(parser: argparse.ArgumentParser) -> dict[str, argparse.Action]:
    return parser._option_string_actions


def _described(parser: argparse.ArgumentParser) -> Iterator[Candidate]:
    for name, action in _options(parser).items():
        if name.startswith("--"):
            yield name, (action.help or "").partition("; ")[0]


def _types() -> Iterator[Candidate]:
    from pipeline.cli._init.parts import UNIONS, types

    for kind in UNIONS:
        for name, model in types(kind).items():
            yield name, (model.__doc__ or "").partition("\n")[0]


class _Unresolved(Interpolator):
    """Leaves references as they are: a key press reads no secret."""

    def resolve(self, root: Node, folder: Path) -> None:
        pass


def _names(file: str | None, section: str) -> list[str]:
    """The names in a section of a configuration, whatever else is wrong with it."""
    if file is None:
        return []
    problems = Problems()
    includer = Includer(_Unresolved({}, problems), problems)
    includer.read(str(Path(file).expanduser()))
    entry = includer.root.entries.get(section) if includer.root is not None else None
    return list(entry.node.entries) if entry and isinstance(entry.node, Mapping) else []
