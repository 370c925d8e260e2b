"""What every transform must do: the suite that each implementation is run through."""

from __future__ import annotations

import importlib
import json
import os
import random
import re
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from pipeline.context import StageContext
from pipeline.errors import Aborted, TransformError
from pipeline.stage import CHUNK, Transform
from schemas.transforms import TransformSpec

ROOT = Path(__file__).parents[2]
SLACK = 24 << 20

MEASURE = """
import json, sys
from pipeline.context import StageContext
from tests.contracts.transform import build

def peak(field):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) << 10

transform = build(json.loads(sys.argv[1]))
block = bytes(range(256)) * 4096
list(transform.invert(transform.apply([block], StageContext()), StageContext()))
before = peak("VmRSS")
stored = transform.apply((block for _ in range(256)), StageContext())
size = sum(map(len, transform.invert(stored, StageContext())))
assert size == 256 * len(block), size
print(peak("VmHWM") - before, transform.memory)
"""


@dataclass(frozen=True)
class Case:
    """A transform as a user writes it."""

    spec: dict[str, Any]
    sees_damage: bool = True
    """Whether a stored stream that was cut or changed can be told from a whole one."""
    takes_zeros: bool = False
    """Whether zeros after the end are taken for the padding of a tape."""
    tool_writes: list[str] = field(default_factory=list)
    """The standard tool that writes what we read; empty when there is none."""

    def build(self) -> Transform:
        return build(self.spec)


def build(spec: dict[str, Any]) -> Transform:
    model: Any = TypeAdapter(TransformSpec).validate_python(spec)
    module = importlib.import_module(f"stages.transforms.{spec['type']}")
    transform = module.COMPONENT(model)
    assert isinstance(transform, Transform)
    return transform


def sample(size: int) -> bytes:
    """Bytes of which about half can be compressed, always the same."""
    source = random.Random(size)
    blocks = (
        source.randbytes(512) + b"all work and no play " * 24 for _ in range(size // 1016 + 1)
    )
    return b"".join(blocks)[:size]


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


def odd_sizes(data: bytes) -> Iterator[bytes]:
    source = random.Random(1)
    while data:
        size = source.choice([1, 7, 4095, 65536, 65537, CHUNK - 1, 3 * CHUNK])
        yield data[:size]
        data = data[size:]


def apply(transform: Transform, chunks: Iterable[bytes]) -> list[bytes]:
    return list(transform.apply(chunks, StageContext()))


def invert(transform: Transform, chunks: Iterable[bytes]) -> bytes:
    return b"".join(transform.invert(chunks, StageContext()))


def children() -> set[int]:
    """Children of this process, those included that nobody waited for."""
    pids: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        try:
            pids.update(map(int, (task / "children").read_text().split()))
        except (FileNotFoundError, ProcessLookupError):
            # A thread that has just ended; its children go to another one.
            pass
    return pids


@contextmanager
def leaving_nothing() -> Iterator[None]:
    """The block leaves no thread, no child and no file descriptor behind."""
    before = set(threading.enumerate()), children(), set(os.listdir("/proc/self/fd"))
    yield
    assert (set(threading.enumerate()), children(), set(os.listdir("/proc/self/fd"))) == before


class Broken(Exception):
    """What goes wrong before the transform."""


def broken_after(chunks: int) -> Iterator[bytes]:
    for _ in range(chunks):
        yield sample(CHUNK)
    raise Broken


PLAIN = {
    "empty": [],
    "one-byte": [b"x"],
    "exactly-a-chunk": [sample(CHUNK)],
    "several-chunks": cut(sample(5 * CHUNK), CHUNK),
    "a-byte-more": cut(sample(2 * CHUNK + 1), CHUNK),
    "small-chunks": cut(sample(100_000), 999),
    "odd-sizes": list(odd_sizes(sample(6 * CHUNK + 17))),
}


class TransformContract:
    """Run for each case."""

    @pytest.mark.parametrize("name", PLAIN)
    def test_a_stream_comes_back(self, case: Case, name: str) -> None:
        transform = case.build()
        with leaving_nothing():
            stored = apply(transform, PLAIN[name])
            assert invert(transform, stored) == b"".join(PLAIN[name])

    @pytest.mark.parametrize("size", [1, 13, 100_000_000], ids=["bytes", "small", "whole"])
    def test_stored_chunks_of_any_size_are_read(self, case: Case, size: int) -> None:
        plain = sample(20_000)
        stored = b"".join(apply(case.build(), [plain]))
        assert invert(case.build(), cut(stored, size)) == plain

    @pytest.mark.parametrize("name", PLAIN)
    def test_chunks_are_bytes_and_not_empty(self, case: Case, name: str) -> None:
        transform = case.build()
        stored = apply(transform, PLAIN[name])
        back = list(transform.invert(stored, StageContext()))
        assert {(type(chunk), len(chunk) > 0) for chunk in stored + back} <= {(bytes, True)}

    def test_tiny_input_does_not_make_tiny_chunks(self, case: Case) -> None:
        transform = case.build()
        stored = apply(transform, cut(sample(CHUNK), 1000))
        if transform.changes_bytes:
            assert len(stored) <= 4
        assert max(map(len, stored)) <= 3 * CHUNK

    def test_streams_of_one_transform_are_independent(self, case: Case) -> None:
        transform = case.build()
        plain = cut(sample(3 * CHUNK), CHUNK)
        first, second = (transform.apply(plain, StageContext()) for _ in range(2))
        stored: tuple[list[bytes], list[bytes]] = ([next(first)], [next(second)])
        stored[0].extend(first)
        stored[1].extend(second)
        assert [invert(transform, one) for one in stored] == [b"".join(plain)] * 2

    def test_nothing_is_read_before_the_first_chunk_is_asked_for(self, case: Case) -> None:
        transform = case.build()
        for way in (transform.apply, transform.invert):
            with leaving_nothing():
                untouched = (pytest.fail("was read") for _ in range(1))
                close(way(untouched, StageContext()))

    @pytest.mark.parametrize("chunks", [0, 1, 12])
    def test_an_error_of_the_input_passes_through(self, case: Case, chunks: int) -> None:
        transform = case.build()
        with leaving_nothing():
            with pytest.raises(Broken) as raised:
                apply(transform, broken_after(chunks))
            assert raised.value.__cause__ is None
            del raised

    def test_an_error_while_going_back_passes_through(self, case: Case) -> None:
        transform = case.build()
        stored = apply(transform, [sample(3 * CHUNK)])

        def broken() -> Iterator[bytes]:
            yield b"".join(stored)[:CHUNK]
            raise Broken

        with leaving_nothing(), pytest.raises(Broken):
            invert(transform, broken())

    def test_closing_early_leaves_nothing(self, case: Case) -> None:
        transform = case.build()
        with leaving_nothing():
            chunks = transform.apply((sample(CHUNK) for _ in range(64)), StageContext())
            next(chunks)
            close(chunks)

    def test_closing_early_on_the_way_back_leaves_nothing(self, case: Case) -> None:
        transform = case.build()
        stored = apply(transform, cut(sample(12 * CHUNK), CHUNK))
        with leaving_nothing():
            chunks = transform.invert(stored, StageContext())
            next(chunks)
            close(chunks)

    def test_an_abort_leaves_nothing(self, case: Case) -> None:
        """The channel before it raises, whatever the transform was doing."""
        transform, context = case.build(), StageContext()

        def aborting() -> Iterator[bytes]:
            for number in range(64):
                if number == 8:
                    context.teardown.abort()
                context.teardown.check()
                yield sample(CHUNK)

        with leaving_nothing(), pytest.raises(Aborted):
            list(transform.apply(aborting(), context))

    @pytest.mark.parametrize("keep", [0, 1, 5, 15, 0.3, 0.5, 0.9, -9, -4, -1], ids=str)
    def test_a_stored_stream_that_was_cut_is_refused(self, case: Case, keep: float) -> None:
        if not case.sees_damage:
            pytest.skip("cannot tell")
        stored = b"".join(apply(case.build(), cut(sample(3 * CHUNK // 2), CHUNK)))
        kept = stored[: int(keep * len(stored)) if 0 < keep < 1 else int(keep)]
        with leaving_nothing(), pytest.raises(TransformError):
            invert(case.build(), cut(kept, CHUNK))

    def test_a_flipped_bit_is_noticed_or_harmless(self, case: Case) -> None:
        if not case.sees_damage:
            pytest.skip("cannot tell")
        plain = sample(3000)
        stored = b"".join(apply(case.build(), [plain]))
        refused = sum(self._refuses(case, stored, place, plain) for place in places(len(stored)))
        assert refused > 0.8 * len(places(len(stored)))

    def _refuses(self, case: Case, stored: bytes, place: int, plain: bytes) -> bool:
        damaged = bytearray(stored)
        damaged[place] ^= 1 << place % 8
        try:
            assert invert(case.build(), [bytes(damaged)]) == plain
        except TransformError:
            return True
        return False

    @pytest.mark.parametrize("garbage", [b"\0", b"x", b"garbage" * 100, bytes(512)])
    def test_garbage_after_the_end_is_refused(self, case: Case, garbage: bytes) -> None:
        if not case.sees_damage or (case.takes_zeros and not any(garbage)):
            pytest.skip("cannot tell")
        stored = apply(case.build(), [sample(5000)])
        with pytest.raises(TransformError):
            invert(case.build(), [*stored, garbage])

    def test_something_else_is_refused(self, case: Case) -> None:
        if not case.sees_damage:
            pytest.skip("cannot tell")
        with pytest.raises(TransformError):
            invert(case.build(), [sample(5000)])

    def test_memory_is_bounded_as_announced(self, case: Case) -> None:
        argv = [sys.executable, "-c", MEASURE, json.dumps(case.spec)]
        done = subprocess.run(argv, cwd=ROOT, check=True, capture_output=True, text=True)
        used, announced = map(int, done.stdout.split())
        assert used <= 2 * announced + SLACK

    def test_it_says_how_to_undo_it(self, case: Case) -> None:
        transform = case.build()
        assert re.fullmatch(r"(\.[A-Za-z0-9]+)*", transform.suffix)
        assert bool(transform.undo) == transform.changes_bytes
        assert transform.memory > 0
        assert transform.can_invert() is None

    def test_a_probe_states_facts(self, case: Case) -> None:
        assert all(fact and "\n" not in fact for fact in case.build().probe())

    @pytest.mark.integration
    @pytest.mark.parametrize("name", PLAIN)
    def test_the_standard_tool_undoes_it(self, case: Case, name: str, tmp_path: Path) -> None:
        """The command goes into manifests: a shell must take it as it stands."""
        transform = case.build()
        command = transform.undo or "cat"
        if "KEY_FILE" in command:
            (tmp_path / "KEY_FILE").write_text(Path(case.spec["identity_file"]).read_text())
        stored = b"".join(apply(transform, PLAIN[name]))
        done = subprocess.run(command, shell=True, cwd=tmp_path, input=stored, capture_output=True)
        assert (done.returncode, done.stderr) == (0, b"")
        assert done.stdout == b"".join(PLAIN[name])

    @pytest.mark.integration
    @pytest.mark.parametrize("name", PLAIN)
    def test_what_the_standard_tool_wrote_is_read(self, case: Case, name: str) -> None:
        if not case.tool_writes:
            pytest.skip("no tool")
        plain = b"".join(PLAIN[name])
        stored = subprocess.run(case.tool_writes, input=plain, check=True, capture_output=True)
        assert invert(case.build(), cut(stored.stdout, CHUNK)) == plain


def places(size: int) -> list[int]:
    """All of the first and last bytes, some between."""
    return [
        *range(0, min(size, 150)),
        *range(150, size - 20, 37),
        *range(max(150, size - 20), size),
    ]


def close(chunks: Iterator[bytes]) -> None:
    chunks.close()  # type: ignore[attr-defined]
