"""Every transform through its contract, and what is particular to each."""

from __future__ import annotations

import sys
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.context import StageContext
from pipeline.errors import Aborted, TransformError
from pipeline.stage import CHUNK
from stages.transforms.zstd import default_threads
from tests.contracts.transform import (
    Case,
    TransformContract,
    apply,
    build,
    cut,
    invert,
    leaving_nothing,
    sample,
)

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

KEYS = Path(__file__).with_name("age_keys.txt")
RECIPIENTS = [
    line.rpartition(" ")[2] for line in KEYS.read_text().splitlines() if "public key" in line
]
AGE = {"type": "age", "recipients": RECIPIENTS, "identity_file": str(KEYS)}
AGE_WRITES = ["age", *(word for key in RECIPIENTS for word in ("-r", key))]
GZIP = {"type": "filter", "command": ["gzip", "-1"], "inverse": ["gzip", "-d"], "suffix": ".gz"}


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(Case({"type": "zstd"}, tool_writes=["zstd", "-3"]), id="zstd"),
        pytest.param(Case({"type": "zstd", "level": 1, "threads": 2}), id="zstd-threads"),
        pytest.param(
            Case({"type": "zstd", "long": True}, tool_writes=["zstd", "--long=27"]), id="zstd-long"
        ),
        pytest.param(Case({"type": "gzip"}, tool_writes=["gzip"]), id="gzip"),
        pytest.param(Case({"type": "xz", "level": 0}, tool_writes=["xz", "-1"]), id="xz"),
        pytest.param(Case({"type": "lz4"}, tool_writes=["lz4"]), id="lz4"),
        pytest.param(Case({"type": "lz4", "level": 3}), id="lz4-high"),
        pytest.param(Case(AGE, tool_writes=AGE_WRITES), id="age"),
        pytest.param(
            Case({"type": "throttle", "rate": "100GB/s"}, sees_damage=False), id="throttle"
        ),
        pytest.param(Case(GZIP, takes_zeros=True, tool_writes=["gzip"]), id="filter"),
    ],
)
class TestTransforms(TransformContract):
    pass


def frames(chunks: list[bytes], start: Any) -> list[int]:
    """Plain sizes of the frames of a stored stream."""
    sizes = []
    rest = b"".join(chunks)
    while rest:
        decoder = start()
        sizes.append(len(decoder.decompress(rest)))
        assert decoder.eof
        rest = decoder.unused_data
    return sizes


class TestZstd:
    def test_a_new_frame_begins_every_64_mib(self) -> None:
        block = bytes(CHUNK)
        stored = apply(build({"type": "zstd", "level": 1}), (block for _ in range(130)))
        assert frames(stored, zstd.ZstdDecompressor) == [64 << 20, 64 << 20, 2 << 20]

    def test_a_whole_number_of_frames_has_no_empty_one_after_it(self) -> None:
        stored = apply(build({"type": "zstd", "level": 1}), (bytes(3 << 20) for _ in range(64)))
        assert frames(stored, zstd.ZstdDecompressor) == [64 << 20] * 3

    def test_frames_carry_a_checksum(self) -> None:
        stored = b"".join(apply(build({"type": "zstd"}), [sample(1000)]))
        assert stored[4] & 0b100  # Content_Checksum_flag of the frame header, RFC 8878

    @pytest.mark.parametrize(
        ("processors", "threads"), [(1, 0), (2, 0), (3, 2), (4, 3), (5, 4), (64, 4)]
    )
    def test_threads_leave_a_processor_for_the_others(self, processors: int, threads: int) -> None:
        assert default_threads(processors) == threads

    def test_a_stream_cut_between_frames_is_whole_to_the_format(self) -> None:
        """Why the manifest carries the size."""
        stored = apply(build({"type": "zstd"}), [b"x"])
        assert invert(build({"type": "zstd"}), stored * 3) == b"xxx"


class TestGzip:
    def test_members_hold_a_mebibyte(self) -> None:
        stored = apply(build({"type": "gzip"}), cut(sample(3 * CHUNK + 5), 700_000))
        assert frames(stored, lambda: zlib.decompressobj(31)) == [CHUNK, CHUNK, CHUNK, 5]

    @pytest.mark.parametrize("level", [1, 9, 12])
    def test_levels(self, level: int) -> None:
        transform = build({"type": "gzip", "level": level})
        assert invert(transform, apply(transform, [sample(300_000)])) == sample(300_000)


class TestLz4:
    def test_a_missing_package_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "lz4", None)
        monkeypatch.setitem(sys.modules, "lz4.frame", None)
        transform = build({"type": "lz4"})
        with pytest.raises(TransformError, match='"lz4" is not installed'):
            transform.probe()
        with pytest.raises(TransformError, match='"lz4" is not installed'):
            apply(transform, [b"x"])


class TestThrottle:
    def test_it_keeps_the_rate(self) -> None:
        slept: list[float] = []
        context = StageContext()
        context.teardown.sleep = slept.append  # type: ignore[assignment, method-assign]
        transform = build({"type": "throttle", "rate": "1MB/s"})
        chunks = list(transform.apply([bytes(CHUNK)] * 3, context))
        # Nobody sleeps here, so the debt grows by what each piece costs.
        assert max(slept) == pytest.approx(3 * CHUNK / 10**6, abs=0.5)
        assert max(map(len, chunks)) <= 10**6 / 8

    def test_it_stops_sleeping_when_the_run_is_stopped(self) -> None:
        context = StageContext()
        transform = build({"type": "throttle", "rate": "1kB/s"})
        threading.Timer(0.1, context.teardown.abort).start()
        with pytest.raises(Aborted):
            list(transform.apply([bytes(CHUNK)], context))

    def test_a_pause_earns_one_second_at_most(self, monkeypatch: pytest.MonkeyPatch) -> None:
        clock = [0.0]
        monkeypatch.setattr(time, "monotonic", lambda: clock[0])
        slept: list[float] = []
        context = StageContext()
        context.teardown.sleep = slept.append  # type: ignore[assignment, method-assign]

        def after_a_pause() -> Iterator[bytes]:
            yield bytes(1000)
            clock[0] += 100
            yield bytes(3000)

        transform = build({"type": "throttle", "rate": "1kB/s"})
        assert len(b"".join(transform.apply(after_a_pause(), context))) == 4000
        assert max(slept) == pytest.approx(2.0)


class TestFilter:
    def test_without_an_inverse_there_is_no_way_back(self) -> None:
        transform = build({"type": "filter", "command": ["cat"]})
        assert transform.can_invert() == 'no "inverse" is given for the filter "cat"'
        assert transform.undo == "INVERSE_OF_cat"
        with pytest.raises(TransformError, match="inverse"):
            invert(transform, [b"x"])

    def test_the_environment_reaches_the_program_and_no_message(self) -> None:
        script = 'tr a "$LETTER"; echo "using $TOKEN" >&2; exit $CODE'
        spec = {"type": "filter", "command": ["sh", "-c", script]}
        good = build({**spec, "env": {"LETTER": "b", "CODE": "0"}})
        assert apply(good, [b"banana"]) == [b"bbnbnb"]
        bad = build({**spec, "env": {"LETTER": "b", "CODE": "3", "TOKEN": "very-secret"}})
        with pytest.raises(TransformError, match=r'^"sh" failed with exit code 3: using \*\*\*$'):
            apply(bad, [b"banana"])

    @pytest.mark.parametrize("size", [100, 10 * CHUNK])
    def test_unread_input_is_an_error(self, size: int) -> None:
        transform = build({"type": "filter", "command": ["head", "-c", "10"]})
        with leaving_nothing(), pytest.raises(TransformError, match="without reading all"):
            apply(transform, cut(bytes(size), CHUNK))

    def test_an_abort_ends_a_program_that_hangs(self) -> None:
        context = StageContext()
        transform = build({"type": "filter", "command": ["sh", "-c", "cat; sleep 1000"]})
        with leaving_nothing():
            timer = threading.Timer(0.2, context.teardown.abort)
            timer.start()
            with pytest.raises(Aborted):
                list(transform.apply([b"x"], context))
            timer.join()

    def test_a_program_that_is_missing_is_found_by_the_probe(self) -> None:
        transform = build({"type": "filter", "command": ["cat"], "inverse": ["no-such-program"]})
        with pytest.raises(TransformError, match='"no-such-program" was not found'):
            transform.probe()
