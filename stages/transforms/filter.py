"""Any program that reads standard input and writes standard output."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator

from pipeline.context import StageContext
from pipeline.errors import TransformError
from pipeline.stage import CHUNK, Transform
from schemas.transforms import FilterTransform
from stages._child import Program, locate, stream


class Filter(Transform):
    """Runs a program; it must read all of its input and exit with 0."""

    # Nobody knows what the program does, it may be gpg: the plain digest stays unpublished.
    encrypts = True
    memory = 4 * CHUNK

    def __init__(self, spec: FilterTransform) -> None:
        env = {name: value.get_secret_value() for name, value in spec.env.items()}
        self.suffix = spec.suffix
        self._forward = Program(spec.command, env)
        self._backward = None if spec.inverse is None else Program(spec.inverse, env)

    @property
    def undo(self) -> str:
        if self._backward is None:
            return f"INVERSE_OF_{self._forward.name}"
        return shlex.join(self._backward.argv)

    def apply(self, chunks: Iterable[bytes], context: StageContext) -> Iterator[bytes]:
        yield from stream(self._forward, context, TransformError, chunks)

    def invert(self, chunks: Iterable[bytes], context: StageContext) -> Iterator[bytes]:
        if self._backward is None:
            raise TransformError(f"cannot go back: {self.can_invert()}")
        yield from stream(self._backward, context, TransformError, chunks)

    def can_invert(self) -> str | None:
        if self._backward is None:
            return f'no "inverse" is given for the filter "{self._forward.name}"'
        return None

    def probe(self) -> list[str]:
        programs = [self._forward] + ([self._backward] if self._backward else [])
        return [f"{program.name} is {_locate(program)}" for program in programs]


def _locate(program: Program) -> str:
    return locate(program.argv[0], TransformError, program.env.get("PATH"))


COMPONENT = Filter
