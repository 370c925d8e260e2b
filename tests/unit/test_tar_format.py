"""Headers, records and maps against the standard library's reading of them."""

from __future__ import annotations

import io
import struct
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.errors import SourceError
from stages.sources._files import tar as _tar
from stages.sources._files.acl import acl_bytes
from stages.sources._files.untar import Member, TarReader

SECOND = 10**9


@dataclass
class Meta:
    st_mode: int = 0o100644
    st_uid: int = 0
    st_gid: int = 0
    st_mtime_ns: int = 1_700_000_000 * SECOND


def names(uid: int, gid: int) -> tuple[bytes, bytes]:
    return b"u%d" % uid, b"g" * (gid % 50)


def member(name: bytes, meta: Meta | None = None, *args: Any, **more: Any) -> bytes:
    return _tar.Encoder(names).member(name, meta or Meta(), *args, **more)


def with_end(data: bytes) -> bytes:
    return data + _tar.end(len(data))


def stdlib(data: bytes) -> tarfile.TarInfo:
    with tarfile.open(fileobj=io.BytesIO(with_end(data))) as archive:
        (info,) = archive.getmembers()
    return info


def ours(data: bytes) -> Member:
    reader = TarReader(iter([with_end(data)]))
    found = []
    for one in reader:
        for _ in reader.data():
            pass
        found.append(one)
    (info,) = found
    return info


name_bytes = st.binary(min_size=1, max_size=300).filter(
    lambda name: b"\0" not in name and name.strip(b"/") == name and b"//" not in name
)


@given(st.text(st.characters(codec="ascii"), min_size=1, max_size=120), st.binary(max_size=1100))
@example("k", b"x" * 92)
@example("k", b"x" * 93)
@example("k", b"x" * 991)
@example("k", b"x" * 992)
def test_a_record_counts_its_own_length(key: str, value: bytes) -> None:
    made = _tar.record(key.encode(), value)
    length, _, rest = made.partition(b" ")
    assert int(length) == len(made)
    assert rest == key.encode() + b"=" + value + b"\n"


@given(name_bytes)
@example(b"a" * 100)
@example(b"a" * 101)
@example(b"p" * 155 + b"/" + b"n" * 100)
@example(b"p" * 156 + b"/" + b"n" * 100)
@example(b"p" * 155 + b"/" + b"n" * 101)
@example(b"\xff\n")
def test_any_name_is_read_back(name: bytes) -> None:
    data = member(name)
    assert len(data) % 512 == 0
    assert ours(data).name == name
    assert stdlib(data).name.encode("utf-8", "surrogateescape") == name


@pytest.mark.parametrize("size", range(95, 105))
def test_a_directory_name_keeps_its_last_part(size: int) -> None:
    name = b"d" * 80 + b"/" + b"e" * (size - 81) + b"/"
    data = member(name, None, _tar.DIRECTORY)
    assert ours(data).name == name
    assert stdlib(data).name == name.rstrip(b"/").decode()
    assert data[-512:-511] != b"\0"


@given(st.binary(min_size=1, max_size=300).filter(lambda link: b"\0" not in link))
@example(b"t" * 100)
@example(b"t" * 101)
def test_any_link_is_read_back(link: bytes) -> None:
    data = member(b"name", None, _tar.SYMLINK, link=link)
    assert ours(data).link == link
    assert stdlib(data).linkname.encode("utf-8", "surrogateescape") == link


@given(st.integers(-(2**62), 2**62))
@example(0)
@example(-1)
@example(-SECOND)
@example(SECOND - 1)
@example(SECOND * SECOND)
@example(SECOND * 10 * SECOND // 10 - 1)
@example(0o77777777777 * SECOND)
@example((0o77777777777 + 1) * SECOND)
def test_any_time_is_exact(mtime_ns: int) -> None:
    data = member(b"name", Meta(st_mtime_ns=mtime_ns))
    assert ours(data).mtime_ns == mtime_ns
    assert stdlib(data).mtime == pytest.approx(mtime_ns / SECOND)


@given(st.integers(0, 2**32 - 2), st.integers(0, 2**32 - 2), st.integers(0, 0o7777))
@example(0o7777777, 0o7777777, 0)
@example(0o7777777 + 1, 0o7777777 + 1, 0o7777)
def test_any_owner_and_mode_is_read_back(uid: int, gid: int, mode: int) -> None:
    data = member(b"name", Meta(0o100000 | mode, uid, gid))
    for read in (ours(data), stdlib(data)):
        assert (read.uid, read.gid, read.mode) == (uid, gid, mode)
    assert (ours(data).user, ours(data).group) == names(uid, gid)


@given(st.integers(0, 2**62))
@example(0o77777777777)
@example(0o77777777777 + 1)
def test_any_size_is_read_back(size: int) -> None:
    data = member(b"name", None, _tar.REGULAR, size)
    with tarfile.open(fileobj=io.BytesIO(data), mode="r|") as archive:
        info = archive.next()
    assert info is not None
    assert info.size == size
    assert next(iter(TarReader(iter([data])))).size == size


def test_the_fast_way_makes_the_same_header() -> None:
    encoder = _tar.Encoder(names)
    for name in (b"short", b"n" * 100, b"n" * 101, b"p" * 90 + b"/" + b"n" * 90):
        for meta in (Meta(), Meta(st_mtime_ns=1_700_000_000_123_456_789), Meta(st_uid=1 << 30)):
            for records in (b"", _tar.record(b"SCHILY.xattr.user.a", b"b")):
                fast = encoder.file(name, meta, 1234, records)
                assert fast == encoder.member(name, meta, size=1234, records=records)


def test_a_device_is_read_back() -> None:
    data = member(b"null", None, _tar.CHARACTER, device=(1, 1048575))
    assert ours(data).device == (1, 1048575)
    assert (stdlib(data).devmajor, stdlib(data).devminor) == (1, 1048575)


@given(st.text(st.characters(exclude_characters="\0"), min_size=1), st.binary(max_size=600))
@example("user.a=b%3D", b"\0\n")
def test_any_attribute_is_read_back(name: str, value: bytes) -> None:
    name = name.encode("utf-8", "ignore").decode() or "x"
    assert ours(member(b"f", None, records=_tar.xattr_record(name, value))).xattrs == {name: value}


entries = st.lists(
    st.tuples(st.sampled_from([2, 8]), st.integers(0, 7), st.integers(0, 2**32 - 2)),
    unique_by=lambda entry: (entry[0], entry[2]),
    max_size=5,
)


@given(entries)
def test_any_acl_becomes_text_and_back(named: list[tuple[int, int, int]]) -> None:
    nobody = 0xFFFFFFFF
    whole = [(1, 6, nobody), (4, 5, nobody), (16, 7, nobody), (32, 0, nobody), *named]
    whole.sort(key=lambda entry: (entry[0], entry[2]))
    raw = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in whole)
    text = _tar.acl_text(raw)
    assert text.startswith(b"user::rw-")
    assert acl_bytes(text) == raw


@pytest.mark.parametrize("raw", [b"", b"\1\0\0\0", b"\2\0\0\0\1", b"\2\0\0\0" + b"\3" + b"\0" * 7])
def test_an_unknown_acl_is_refused(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r"(in|of) ACL"):
        _tar.acl_text(raw)


def test_an_acl_is_read_by_name_and_in_short() -> None:
    assert acl_bytes(b"u::rwx,u:root:r--,g::---,m::r-x,o::--x") == acl_bytes(
        b"user::rwx\nuser:0:r--\ngroup::---\nmask::r-x\nother::--x\n"
    )


@pytest.mark.parametrize("text", [b"x", b"user", b"user:no-such-user-here:rwx", b"x::rwx"])
def test_text_that_is_no_acl_is_refused(text: bytes) -> None:
    with pytest.raises((ValueError, KeyError)):
        acl_bytes(text)


@pytest.mark.parametrize("position", [0, 512, 8704, 9216, 9728, 10240, 1 << 20])
def test_an_archive_ends_on_a_record(position: int) -> None:
    end = _tar.end(position)
    assert not end.strip(b"\0")
    assert len(end) >= 1024
    assert (position + len(end)) % 10240 == 0


def sparse(extents: list[tuple[int, int]], size: int, stored: bytes) -> bytes:
    shape = _tar.sparse_map(extents)
    body = shape + stored
    records = _tar.sparse_records(b"real/name", size)
    head = member(_tar.sparse_name(b"real/name"), None, _tar.REGULAR, len(body), records=records)
    return head + body + bytes(-len(body) % 512)


@pytest.mark.parametrize(
    "extents",
    [[], [(0, 5)], [(4096, 10)], [(0, 512), (4096, 512)], [(at * 1000, 1) for at in range(900)]],
    ids=len,
)
def test_a_sparse_file_is_read_back(extents: list[tuple[int, int]]) -> None:
    stored = bytes(1 + at % 255 for at in range(sum(length for _, length in extents)))
    data = sparse(_tar.join_extents(extents, 1_000_000), 1_000_000, stored)
    read = ours(data)
    assert (read.name, read.size, read.extents) == (b"real/name", 1_000_000, extents)
    expected = bytearray(1_000_000)
    for offset, length in extents:
        expected[offset : offset + length], stored = stored[:length], stored[length:]
    with tarfile.open(fileobj=io.BytesIO(with_end(data))) as archive:
        file = archive.extractfile("real/name")
        assert file is not None
        assert file.read() == expected


@pytest.mark.parametrize(
    "extents",
    [[(0, 600)], [(600, 10), (0, 10)], [(0, 10), (5, 10)], [(990, 20)], [(1 << 70, 1)], [(0, 1)]],
    ids=str,
)
def test_a_false_map_of_holes_is_refused(extents: list[tuple[int, int]]) -> None:
    with pytest.raises(SourceError, match="archive is damaged"):
        ours(sparse(extents, 1000, bytes(20)))


class TestDamage:
    @pytest.fixture
    def archive(self) -> bytes:
        first = member(b"n" * 300, Meta(st_mtime_ns=1), _tar.REGULAR, 700) + bytes(1024)
        return with_end(first + member(b"second", None, _tar.DIRECTORY))

    def read(self, data: bytes, step: int = 999) -> int:
        reader = TarReader(data[at : at + step] for at in range(0, len(data), step))
        count = 0
        for _ in reader:
            count += 1
            for _piece in reader.data():
                pass
        return count

    @pytest.mark.parametrize("step", [1, 511, 512, 513, 100_000])
    def test_chunks_of_any_size_are_read(self, archive: bytes, step: int) -> None:
        assert self.read(archive, step) == 2

    def test_a_cut_archive_is_incomplete(self, archive: bytes) -> None:
        whole = len(archive.rstrip(b"\0")) + 512
        for cut in range(0, whole - 512, 100):
            with pytest.raises(SourceError, match="incomplete"):
                self.read(archive[:cut])

    def test_an_error_after_the_end_mark_is_not_missed(self, archive: bytes) -> None:
        def chunks() -> Iterator[bytes]:
            yield archive
            raise SourceError("the digest is wrong")

        reader = TarReader(chunks())
        members = iter(reader)
        for _ in range(2):
            next(members)
            list(reader.data())
        with pytest.raises(SourceError, match="digest"):
            next(members)

    def test_a_flipped_header_bit_is_noticed(self, archive: bytes) -> None:
        for at in range(0, 512, 7):
            damaged = bytearray(archive)
            damaged[at] ^= 4
            with pytest.raises(SourceError, match="damaged"):
                self.read(bytes(damaged))

    @pytest.mark.parametrize(
        "records",
        [b"5 a=b", b"99 a=b\n", b"0 a=b\n", b"-7 a=b\n", b"x a=b\n", b"5 ab\n", b"11 size=-1\n"],
    )
    def test_a_false_record_is_refused(self, records: bytes) -> None:
        with pytest.raises(SourceError, match="damaged"):
            self.read(with_end(member(b"f", None, records=records)))
