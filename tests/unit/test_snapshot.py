"""The index of files: small, quick, read in little memory, and never half."""

from __future__ import annotations

import random
import stat
import time
import tracemalloc
from collections.abc import Iterator
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import SourceError
from stages.sources._files import snapshot
from stages.sources._files.base import Base
from stages.sources._files.listing import Listing, Row, mark, order, pack, settled, unpack
from stages.sources._files.snapshot import Header, Reader, Writer

HEADER = Header({"paths": "0123"})
NAME = st.binary(min_size=1, max_size=20).filter(lambda name: not {0, ord("/")} & set(name))
WORD = st.integers(0, 2**32 - 1)
LONG = st.integers(0, 2**64 - 1)
TIME = st.integers(-(2**63), 2**63 - 1)
ROWS = st.builds(Row, WORD, WORD, WORD, WORD, LONG, LONG, TIME, TIME).map(pack)


@st.composite
def listings(draw: st.DrawFn) -> Listing:
    kinds = [draw(st.lists(NAME, max_size=5, unique=True)) for _ in range(3)]
    count = 1 + len(kinds[0]) + len(kinds[1])
    rows = draw(st.lists(ROWS, min_size=count, max_size=count))
    sizes = (len(kinds[0]), len(kinds[1]), len(kinds[2]))
    names = [name for kind in kinds for name in kind]
    return Listing(b"/" + draw(NAME), sizes, b"\0".join(names), b"".join(rows))


def like_a_server(directories: int, files: int = 100) -> Iterator[Listing]:
    """Directories as they are found on disks: inodes in order with gaps, times to the nanosecond.

    The times of the second half of a directory are those of an archive that was unpacked.
    """
    source = random.Random(7)
    inode, changed = 1_000_000, 1_700_000_000 * 10**9
    for number in range(directories):
        inode += source.randrange(1, 50)
        rows = [pack(Row(stat.S_IFDIR | 0o755, 0, 0, 2, inode, 2049, changed, changed))]
        for file in range(files):
            inode += source.choice((1, 1, 1, 2, 9))
            changed += source.randrange(10**5, 10**7)
            modified = changed if file < files // 2 else source.randrange(10**18)
            size = source.randrange(1024, 16384)
            rows.append(pack(Row(stat.S_IFREG | 0o644, 33, 33, 1, inode, size, modified, changed)))
        names = [b"file%06d.dat" % (number * files + file) for file in range(files)]
        path = b"/srv/data/d%03d/s%06d" % (number // 1000, number)
        yield Listing(path, (files, 0, 0), b"\0".join(names), b"".join(rows))


def write(found: Iterator[Listing] | list[Listing]) -> list[bytes]:
    frames: list[bytes] = []
    writer = Writer(frames.append, HEADER)
    for listing in found:
        writer.add(listing)
    writer.finish({})
    return frames


@given(st.lists(listings(), max_size=12), st.integers(1, 400))
@settings(deadline=None, database=None, max_examples=60)
def test_what_is_written_is_read_whatever_the_chunks(found: list[Listing], size: int) -> None:
    stream = b"".join(write(found))
    chunks = (stream[at : at + size] for at in range(0, len(stream), size))
    reader = Reader(chunks)
    assert reader.header == HEADER
    assert list(reader.listings()) == found
    assert reader.footer is not None
    assert reader.footer.directories == len(found)


@given(st.lists(ROWS, max_size=30))
def test_rows_of_any_numbers_survive(rows: list[bytes]) -> None:
    packed = snapshot._pack_rows(b"".join(rows))
    assert snapshot._unpack_rows(memoryview(packed)) == b"".join(rows)


def test_a_file_takes_at_most_24_bytes() -> None:
    size = sum(map(len, write(like_a_server(1000))))
    assert size / 100_000 < 24


def test_a_million_files_are_read_quickly() -> None:
    # The target is a second; this bound only catches what would be of another order.
    frames = write(like_a_server(1000))
    started = time.process_time()
    for _ in range(10):
        assert sum(1 for _ in Reader(iter(frames)).listings()) == 1000
    assert time.process_time() - started < 10


def test_memory_does_not_grow_with_five_million_files() -> None:
    one = next(like_a_server(1, 1000))
    count = 5000

    def many() -> Iterator[Listing]:
        for number in range(count):
            yield one._replace(path=b"/srv/%06d" % number)

    frames: list[bytes] = []
    tracemalloc.start()
    try:
        writer = Writer(frames.append, HEADER)
        for listing in many():
            writer.add(listing)
        writer.finish({})
        held = sum(map(len, frames))
        assert tracemalloc.get_traced_memory()[1] < held + (16 << 20)
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        entries = sum(sum(found.counts) for found in Reader(iter(frames)).listings())
        assert entries == 5_000_000
        assert tracemalloc.get_traced_memory()[1] - before < 16 << 20
    finally:
        tracemalloc.stop()


@pytest.fixture(scope="module")
def frames() -> list[bytes]:
    return write(like_a_server(250))


class TestDamage:
    @pytest.mark.parametrize("drop", [0, 1, 2, -1])
    def test_a_frame_is_missing(self, frames: list[bytes], drop: int) -> None:
        left = list(frames)
        del left[drop]
        with pytest.raises(SourceError):
            list(Reader(iter(left)).listings())

    def test_cut_anywhere(self, frames: list[bytes]) -> None:
        stream = b"".join(frames)
        for size in range(0, len(stream), len(stream) // 97):
            with pytest.raises(SourceError):
                list(Reader(iter([stream[:size]])).listings())

    def test_something_follows(self, frames: list[bytes]) -> None:
        with pytest.raises(SourceError, match="damaged"):
            list(Reader(iter([*frames, frames[1]])).listings())

    def test_a_newer_version(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(snapshot, "VERSION", 99)
            newer = write([])
        with pytest.raises(SourceError, match="newer version"):
            Reader(iter(newer))

    @pytest.mark.parametrize(
        "plain",
        [b"", b"H", b"Hnull", b"H[]", b'H{"format": "other"}', b"B", b'H{"version": 1}'],
    )
    def test_no_header(self, plain: bytes) -> None:
        with pytest.raises(SourceError):
            Reader(iter([snapshot.zstd.compress(plain)]))

    @pytest.mark.parametrize("plain", [b"Xx", b"Fnull", b"F{}", b"F[", b'F{"blocks": "x"}'])
    def test_no_footer(self, frames: list[bytes], plain: bytes) -> None:
        with pytest.raises(SourceError):
            Reader(iter([frames[0], snapshot.zstd.compress(plain)])).read_footer()

    @pytest.mark.parametrize("plain", [b"B", b"Bxx", b"B" + b"\xff" * 100, b"B" + bytes(17)])
    def test_a_block_of_nonsense(self, frames: list[bytes], plain: bytes) -> None:
        with pytest.raises(SourceError, match="damaged"):
            list(Reader(iter([frames[0], snapshot.zstd.compress(plain), frames[-1]])).listings())


class TestFooter:
    def test_doubts_are_kept(self) -> None:
        kept: list[bytes] = []
        doubts = {b"/a\xff": {b"\xfe", b"x"}, b"/b": None, b"": {b"etc"}}
        Writer(kept.append, HEADER).finish(doubts)
        assert Reader(iter(kept)).read_footer().doubts == doubts

    def test_too_many_of_them_are_only_counted(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(snapshot, "_MAX_DOUBTS", 3)
        kept: list[bytes] = []
        Writer(kept.append, HEADER).finish({b"/a": {b"1", b"2", b"3"}})
        footer = Reader(iter(kept)).read_footer()
        assert footer.all_in_doubt
        assert footer.doubts == {}


class TestBase:
    """The old index, followed by a walk."""

    def follow(
        self, old: list[Listing], new: list[Listing]
    ) -> tuple[list[bytes], list[bytes], list[bytes]]:
        """Frames of the new index, paths that are gone, paths that were found."""
        kept: list[bytes] = []
        gone: list[bytes] = []
        found: list[bytes] = []
        writer = Writer(kept.append, HEADER)
        base = Base(Reader(iter(write(old))), writer, lambda listing: gone.append(listing.path))
        for listing in new:
            was = base.find(listing.path)
            if was is not None:
                found.append(was.path)
            base.record(listing, same=was == listing)
        base.finish()
        writer.finish({})
        assert list(Reader(iter(kept)).listings()) == new
        return kept, gone, found

    def test_blocks_in_which_nothing_changed_are_handed_on(self) -> None:
        old = list(like_a_server(400))
        frames, gone, found = self.follow(old, old)
        assert frames == write(old)
        assert gone == []
        assert len(found) == 400

    def test_one_change_costs_one_block(self) -> None:
        old = list(like_a_server(400))
        new = list(old)
        new[200] = mark(new[200], {b"file020000.dat"})
        frames, _, _ = self.follow(old, new)
        assert len(set(frames) - set(write(old))) == 1

    def test_blocks_do_not_crumble_from_copy_to_copy(self) -> None:
        found = list(like_a_server(250))
        source = random.Random(3)
        for _ in range(15):
            changed = list(found)
            del changed[source.randrange(len(changed))]
            extra = found[source.randrange(len(found))]
            extra = extra._replace(path=extra.path + b"x%d" % source.randrange(10**6))
            changed.append(extra)
            changed.sort(key=lambda listing: order(listing.path))
            frames, _, _ = self.follow(found, changed)
            found = changed
        assert len(frames) < 3 * len(write(found))

    @given(st.data())
    @settings(deadline=None, database=None, max_examples=80)
    def test_any_two_trees(self, data: st.DataObject) -> None:
        every = list(like_a_server(100, 20))
        some = st.sets(st.integers(0, 99))
        one, other = data.draw(some), data.draw(some)
        with mock.patch.object(snapshot, "_ENTRIES", 200):
            _, gone, found = self.follow(
                [every[at] for at in sorted(one)], [every[at] for at in sorted(other)]
            )
        assert gone == [every[at].path for at in sorted(one - other)]
        assert found == [every[at].path for at in sorted(one & other)]


def test_paths_are_sorted_as_a_walk_goes() -> None:
    paths = [b"/a", b"/a/b", b"/a/b/c", b"/a/b-c", b"/a-b", b"/a-b/c", b"/b"]
    assert sorted(reversed(paths), key=order) == paths


def test_racy_rows_count_as_changed() -> None:
    listing = next(like_a_server(1, 3))._replace(racy=(2,))
    rows = [unpack(row).mode for _, row in settled(listing).items()]
    assert [mode == 0 for mode in rows] == [False, True, False]
    assert settled(listing).racy == ()
