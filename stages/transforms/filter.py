"""Any program that reads standard input and writes standard output."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator

from pipeline.context import StageContext
from pipeline.errors import TransformError
from pipeline.stage import CHUNK, Needed, Transform
from schemas.transforms import FilterTransform
from stages._child import Program, stream
from stages._program import look_up, needed, program_of, strict


class Filter(Transform):
    """Runs a program; it must read all of its input, and its exit code decides."""

    # Nobody knows what the program does, it may be gpg: the plain digest stays unpublished.
    encrypts = True
    memory = 4 * CHUNK

    def __init__(self, spec: FilterTransform) -> None:
        self.suffix = spec.suffix
        self._forward = program_of(spec, spec.command)
        self._backward: Program | None = None
        if spec.inverse is not None:
            self._backward = strict(program_of(spec, spec.inverse))

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

    def programs(self) -> list[Needed]:
        backward = [needed(self._backward, to_restore=True)] if self._backward else []
        return [needed(self._forward), *backward]

    def probe(self) -> list[str]:
        programs = [self._forward] + ([self._backward] if self._backward else [])
        return [look_up(program, TransformError) for program in programs]


COMPONENT = Filter
