"""The standard output of any program."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

from pipeline.context import StageContext
from pipeline.errors import SourceError
from pipeline.stage import Artifact, Source
from schemas.sources import CommandSource
from stages._child import Program, stream


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
        return [Artifact(spec.name or self._backup, spec.suffix, min_size=spec.min_size)]

    def stream(self, artifact: Artifact, context: StageContext) -> Iterator[bytes]:
        yield from stream(self._program(), context, SourceError)

    def probe(self) -> list[str]:
        spec = self._spec
        if spec.cwd is not None and not os.path.isdir(spec.cwd):
            raise SourceError(f'the working directory "{spec.cwd}" does not exist')
        return [f'"{spec.command[0]}" is "{self._locate()}"']

    def _locate(self) -> str:
        name = self._spec.command[0]
        variable = self._spec.env.get("PATH")
        search = variable.get_secret_value() if variable else None
        if "/" in name:
            # A relative path counts from the directory the program starts in.
            name = os.path.join(self._spec.cwd or "", name)
        path = shutil.which(name, path=search)
        if path is None:
            raise SourceError(f'"{name}" was not found', "install it or give its full path")
        return path

    def _program(self) -> Program:
        spec = self._spec
        return Program(
            spec.command,
            env={name: value.get_secret_value() for name, value in spec.env.items()},
            cwd=spec.cwd,
            timeout=spec.timeout,
            ok_exit_codes=spec.ok_exit_codes,
        )


COMPONENT = Command
