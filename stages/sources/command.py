"""The standard output of any program: the way to back up software that has no source of its own."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pipeline.context import StageContext
from pipeline.errors import SourceError
from pipeline.stage import CHUNK, Artifact, Needed, Source
from schemas.sources import CommandSource
from stages._child import Program, capture, stream
from stages._program import look_up, needed, program_of

_SHELL = ("bash", "-o", "errexit", "-o", "nounset", "-o", "pipefail", "-c")


@dataclass(frozen=True)
class Item:
    """One of those that a program is run for."""

    name: str
    value: str


class Command(Source):
    """Runs a program; its exit code decides whether the output is complete.

    Args:
        backup: name of the backup, and of the artifact when it has no other.
    """

    def __init__(self, spec: CommandSource, backup: str = "command") -> None:
        self._spec = spec
        self._backup = backup
        self._files: dict[str, str] = {}
        """Of the artifacts whose program has printed the path of one."""

    def artifacts(self) -> list[Artifact]:
        spec = self._spec
        items = self._items(StageContext())
        if items is None:
            return [Artifact(spec.name or self._backup, spec.suffix, min_size=spec.min_size)]
        return [
            Artifact(item.name, spec.suffix, target=item, min_size=spec.min_size) for item in items
        ]

    def stream(self, artifact: Artifact, context: StageContext) -> Iterator[bytes]:
        item = artifact.target
        program = self._program(item if isinstance(item, Item) else None)
        if self._spec.prints == "path":
            path = self._files[artifact.name] = _path_in(capture(program, context, SourceError))
            yield from _file(path, context)
        else:
            yield from stream(program, context, SourceError)

    def programs(self) -> list[Needed]:
        return [needed(program) for program in self._programs()]

    def release(self, artifact: Artifact) -> None:
        path = self._files.pop(artifact.name, None)
        try:
            if path is not None:
                os.unlink(path)
        except OSError as error:
            reason = (error.strerror or "").lower()
            raise SourceError(f'"{path}" cannot be removed: {reason}') from None

    def probe(self) -> list[str]:
        facts = [look_up(program, SourceError) for program in self._programs()]
        if self._spec.list_command:
            facts.append(f"{len(self.artifacts())} items")
        return facts

    def _items(self, context: StageContext) -> list[Item] | None:
        spec = self._spec
        if spec.for_each is not None:
            return [Item(value, value) for value in spec.for_each]
        if spec.list_command is None:
            return None
        printed = capture(self._program(None, spec.list_command), context, SourceError)
        items = list(_parse(printed, spec.list_command[0]))
        if len({item.name for item in items}) < len(items):
            raise SourceError(f'"{spec.list_command[0]}" named an item twice')
        return items

    def _programs(self) -> list[Program]:
        """What it runs; with items, before they are put in."""
        lister = self._spec.list_command
        return [self._program(None)] + ([self._program(None, lister)] if lister else [])

    def _program(self, item: Item | None, other: Sequence[str] | None = None) -> Program:
        spec = self._spec
        argv = other or spec.command or [*_SHELL, spec.shell or ""]
        if item is None:
            return program_of(spec, argv)
        if spec.command:
            argv = [_filled(argument, item) for argument in argv]
        return program_of(spec, argv, {"ITEM": item.value, "NAME": item.name})


COMPONENT = Command


def _filled(argument: str, item: Item) -> str:
    parts = argument.split("{name}")
    return item.name.join(part.replace("{item}", item.value) for part in parts)


def _parse(printed: bytes, program: str) -> Iterator[Item]:
    """Items from lines `item`, or `name TAB item`.

    Raises:
        SourceError: there are none, or one has no name.
    """
    lines = [line for line in printed.decode("utf-8", "surrogateescape").splitlines() if line]
    if not lines:
        raise SourceError(f'"{program}" printed no items')
    for line in lines:
        name, tab, value = line.partition("\t")
        if not name:
            raise SourceError(f'"{program}" printed an item without a name')
        yield Item(name, value if tab else name)


def _path_in(printed: bytes) -> str:
    """The file that nxs-backup v3 was told of in this way."""
    try:
        path = json.loads(printed)["full_path"]
    except (ValueError, KeyError, TypeError):
        path = None
    if not isinstance(path, str) or not os.path.isabs(path):
        raise SourceError(
            'the program did not print {"full_path": "/a/file"}',
            "its messages belong to standard error",
        )
    return path


def _file(path: str, context: StageContext) -> Iterator[bytes]:
    """The content of a file."""
    try:
        with open(path, "rb", buffering=0) as file:
            context.expected = os.fstat(file.fileno()).st_size
            while chunk := file.read(CHUNK):
                context.teardown.check()
                yield chunk
    except OSError as error:
        raise SourceError(f'"{path}" cannot be read: {(error.strerror or "").lower()}') from error
