"""The standard output of any program: the way to back up software that has no source of its own."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pipeline.context import StageContext
from pipeline.errors import SourceError
from pipeline.stage import CHUNK, Artifact, Source
from schemas.sources import CommandSource
from stages._child import Program, capture, stream

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
            yield from _file(_path_in(capture(program, context, SourceError)), context)
        else:
            yield from stream(program, context, SourceError)

    def probe(self) -> list[str]:
        spec = self._spec
        if spec.cwd is not None and not os.path.isdir(spec.cwd):
            raise SourceError(f'the working directory "{spec.cwd}" does not exist')
        needed = [spec.command[0] if spec.command else _SHELL[0]]
        needed += spec.list_command[:1] if spec.list_command else []
        facts = [f'"{name}" is "{self._locate(name)}"' for name in needed]
        if spec.list_command:
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

    def _locate(self, name: str) -> str:
        variable = self._spec.env.get("PATH")
        search = variable.get_secret_value() if variable else None
        if "/" in name:
            # A relative path counts from the directory the program starts in.
            name = os.path.join(self._spec.cwd or "", name)
        path = shutil.which(name, path=search)
        if path is None:
            raise SourceError(f'"{name}" was not found', "install it or give its full path")
        return path

    def _program(self, item: Item | None, other: Sequence[str] | None = None) -> Program:
        spec = self._spec
        argv = other or spec.command or [*_SHELL, spec.shell or ""]
        env = {name: value.get_secret_value() for name, value in spec.env.items()}
        if item is not None:
            env |= {"ITEM": item.value, "NAME": item.name}
            if spec.command:
                argv = [_filled(argument, item) for argument in argv]
        return Program(
            argv,
            env=env,
            cwd=spec.cwd,
            user=spec.user,
            timeout=spec.timeout,
            ok_exit_codes=spec.ok_exit_codes,
        )


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
    """The content of a file, which is removed when all of it was read."""
    try:
        with open(path, "rb", buffering=0) as file:
            while chunk := file.read(CHUNK):
                context.teardown.check()
                yield chunk
        os.unlink(path)
    except OSError as error:
        raise SourceError(f'"{path}" cannot be read: {(error.strerror or "").lower()}') from error
