"""What FTP servers print for a directory, and the window of an FTP upload."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.stage import CHUNK
from stages.storages._ftp.listing import Entry, NotUnderstood, parse_list, parse_mlsd
from stages.storages._ftp.window import Window

PROFTPD = """\
total 12
drwxr-xr-x   3 0        0            4096 Nov 23 16:33 .
drwxr-xr-x   3 nxs      nxs          4096 Nov 23 16:33 ..
-rw-r--r--   1 0        0               7 Nov 23 16:33  leading blank
-rw-------   1 nxs      nxs   10737418240 Feb  3  2025 .crm.part
lrwxrwxrwx   1 0        0              11 Nov 23 16:33 link -> /etc/passwd
prw-r--r--   1 0        0               0 Nov 23 16:33 pipe
drwxr-xr-x   2 0        0            4096 Nov 23 16:33 sub
"""
VSFTPD = """\
drwx------    2 1000     1000         4096 Nov 23 16:33 sub
-rw-------    1 ftp      domain users  123 Nov 23 16:33 a  b
"""
WITH_ACL = (
    "-rw-r-----+  1 backup   4 1048576 23 Nov 16:33 x\n-rw-r--r--. 1 a b 5 2026-11-23 16:33 y\n"
)
IIS = """\
11-23-26  03:00PM       <DIR>          sub
11-23-2026  15:00              1048576 crm 1.sql
"""


@pytest.mark.parametrize(
    ("text", "entries"),
    [
        (
            PROFTPD,
            [
                Entry(" leading blank", False, 7),
                Entry(".crm.part", False, 10737418240),
                Entry("sub", True, 0),
            ],
        ),
        (VSFTPD, [Entry("sub", True, 0), Entry("a  b", False, 123)]),
        (WITH_ACL, [Entry("x", False, 1048576), Entry("y", False, 5)]),
        (IIS, [Entry("sub", True, 0), Entry("crm 1.sql", False, 1048576)]),
        ("", []),
    ],
    ids=["proftpd", "vsftpd", "acl", "iis", "empty"],
)
def test_list(text: str, entries: list[Entry]) -> None:
    assert list(parse_list(text.splitlines())) == entries


@pytest.mark.parametrize(
    "line",
    [
        "ls: cannot open directory",
        "-rw-r--r--   1 nxs      nxs      Nov 23 16:33 no size",
        "+i8388621.48594,m825718503,r,s280,\tdjb.html",
    ],
)
def test_list_of_another_format(line: str) -> None:
    with pytest.raises(NotUnderstood):
        list(parse_list([line]))


def test_mlsd() -> None:
    lines = [
        "modify=20261123163304;perm=fle;type=cdir;unique=1; .",
        "modify=20261123163304;perm=fle;type=pdir;unique=2; ..",
        "modify=20261123163304;perm=adfr;size=11;type=OS.unix=symlink;unique=3; link",
        "Modify=20261123163304;Perm=adfr;Size=7;Type=file;Unique=4;  leading blank",
        "type=dir;unique=5; sub",
        "size=0;type=file; with; semicolon=1",
        "type=file;size=3; up/../../and/away",
    ]
    assert list(parse_mlsd(lines)) == [
        Entry(" leading blank", False, 7, "4"),
        Entry("sub", True, 0, "5"),
        Entry("with; semicolon=1", False, 0),
    ]


@pytest.mark.parametrize("line", ["type=file; no size", "type=file;size=x; x", "nothing", ""])
def test_mlsd_without_what_we_need(line: str) -> None:
    with pytest.raises(NotUnderstood):
        list(parse_mlsd([line]))


SIZES = st.lists(st.integers(0, 3 * CHUNK), max_size=12)


@given(sizes=SIZES, window=st.integers(1, 4 * CHUNK), data=st.data())
def test_window_has_the_last_bytes(sizes: list[int], window: int, data: st.DataObject) -> None:
    kept, everything = Window(window), b""
    for size in sizes:
        chunk = os.urandom(size)
        everything += chunk
        for piece in kept.cut(chunk):
            kept.append(piece)
            assert len(piece) <= CHUNK
            assert kept.end - kept.start < window + CHUNK
    for piece in kept.rest():
        kept.append(piece)
    assert kept.end == len(everything)
    assert kept.start == 0 or kept.end - kept.start >= window
    offset = data.draw(st.integers(kept.start, kept.end))
    assert b"".join(kept.since(offset)) == everything[offset:]
    end = data.draw(st.integers(offset, kept.end))
    assert kept.between(offset, end) == everything[offset:end]
    kept.forget()
    assert list(kept.since(kept.end)) == []
