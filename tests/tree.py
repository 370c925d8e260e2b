"""Trees for tests: one with everything that can go wrong in it, and an exact comparison of two."""

from __future__ import annotations

import os
import socket
import stat
import struct
from pathlib import Path

MIB = 1 << 20
_ACL_VERSION = struct.pack("<I", 2)
_NOBODY = 0xFFFFFFFF
_SECOND = 10**9


def acl(*named: tuple[int, int], owner: int = 6) -> bytes:
    """An ACL in the kernel's form with entries for users: (uid, permissions)."""
    entries = [(1, owner, _NOBODY), *((2, bits, uid) for uid, bits in named)]
    entries += [(4, 4, _NOBODY), (16, 7, _NOBODY), (32, 4, _NOBODY)]
    return _ACL_VERSION + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def build(root: Path) -> None:
    """Fill a new directory with a tree of every kind of item and name."""
    root.mkdir()
    base = os.fsencode(root)
    _sizes(base + b"/sizes")
    _names(base + b"/names")
    _kinds(base + b"/kinds")
    _holes(base + b"/holes")
    _attributes(base + b"/attributes")
    _owners(base + b"/owners")
    _times(base)


def _write(path: bytes, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)


def _pattern(size: int) -> bytes:
    unit = b"".join(b"%07d\n" % number for number in range(512))
    return (unit * (size // len(unit) + 1))[:size]


def _sizes(base: bytes) -> None:
    os.mkdir(base)
    os.mkdir(base + b"/empty-directory")
    around = [size + step for size in (512, 1024, MIB, 2 * MIB) for step in (-1, 0, 1)]
    for size in [0, 1, *around, 3 * MIB + 17]:
        _write(base + b"/%d" % size, _pattern(size))


def _names(base: bytes) -> None:
    os.mkdir(base)
    odd = [
        b"\xff\xfe",
        b"new\nline",
        b"back\\slash",
        b" ",
        b"-rf",
        b"'\"",
        b"a=b",
        b"\xc3\xa9",
        b"*",
    ]
    long = [b"n" * size for size in (99, 100, 101, 154, 155, 156, 254, 255)]
    for name in odd + long:
        _write(base + b"/" + name, name)
        directory = base + b"/D" + (name[1:] if name in long else name)
        os.mkdir(directory)
        _write(directory + b"/inside", name)
    os.mkdir(base + b"/" + b"d" * 120)
    for size in (30, 100, 101, 130, 200):
        _write(base + b"/" + b"d" * 120 + b"/" + b"f" * size, b"%d" % size)
    os.symlink(b"t" * 99, base + b"/link-99")
    os.symlink(b"t" * 100, base + b"/link-100")
    os.symlink(b"t" * 101, base + b"/link-101")
    os.symlink(b"/" + b"/".join([b"u" * 200] * 10), base + b"/link-2000")
    os.symlink(b"\xff\n", base + b"/link-odd")


def _kinds(base: bytes) -> None:
    os.mkdir(base)
    _write(base + b"/file", b"linked")
    os.link(base + b"/file", base + b"/file-again")
    os.mkdir(base + b"/sub")
    os.link(base + b"/file", base + b"/sub/" + b"l" * 180)
    _write(base + b"/big", _pattern(MIB + 5))
    os.link(base + b"/big", base + b"/sub/big-again")
    os.symlink(b"file", base + b"/symlink")
    os.link(base + b"/symlink", base + b"/symlink-again", follow_symlinks=False)
    os.symlink(b"/nonexistent", base + b"/dangling")
    os.symlink(b"sub", base + b"/to-directory")
    os.mkfifo(base + b"/fifo")
    os.link(base + b"/fifo", base + b"/fifo-again")
    if os.geteuid() == 0:
        os.mknod(base + b"/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        os.mknod(base + b"/loop", stat.S_IFBLK | 0o660, os.makedev(7, 300))
    listener = socket.socket(socket.AF_UNIX)
    here = os.open(base, os.O_PATH)
    try:
        # The whole path may be longer than an address can be.
        listener.bind(f"/proc/self/fd/{here}/socket")
    finally:
        os.close(here)
        listener.close()


def _holes(base: bytes) -> None:
    os.mkdir(base)
    layouts: dict[bytes, tuple[int, list[tuple[int, int]]]] = {
        b"only-hole": (5 * MIB, []),
        b"small": (MIB // 2, [(8192, 4096)]),
        b"hole-at-end": (3 * MIB, [(0, 4096)]),
        b"hole-at-start": (2 * MIB, [(2 * MIB - 4096, 4096)]),
        b"hole-in-middle": (4 * MIB + 9, [(0, MIB), (3 * MIB, MIB + 9)]),
        b"many-holes": (16 * MIB, [(at * 65536, 4096) for at in range(200)]),
        b"h" * 150: (MIB, [(65536, 100)]),
        b"tens-of-gigabytes": (33 << 30, [(20 << 30, 4096)]),
    }
    for name, (size, extents) in layouts.items():
        with open(base + b"/" + name, "wb") as file:
            file.truncate(size)
            for offset, length in extents:
                file.seek(offset)
                file.write(_pattern(length))


def _attributes(base: bytes) -> None:
    os.mkdir(base)
    _write(base + b"/plain", b"x")
    os.setxattr(base + b"/plain", "user.note", b"b\0in\nary=\xff")
    os.setxattr(base + b"/plain", "user.odd=na%me", b"")
    os.setxattr(base + b"/plain", "user.large", _pattern(3000))
    _write(base + b"/big", _pattern(MIB + 1))
    os.setxattr(base + b"/big", "user.note", b"big")
    _write(base + b"/acl", b"x")
    os.setxattr(base + b"/acl", "system.posix_acl_access", acl((1, 7), (70000, 4)))
    _hole_with_attributes(base + b"/sparse")
    os.mkdir(base + b"/directory")
    _write(base + b"/directory/child", b"made before the default ACL")
    os.setxattr(base + b"/directory", "user.note", b"directory")
    os.setxattr(base + b"/directory", "system.posix_acl_default", acl((2, 5), owner=7))
    os.setxattr(base + b"/directory", "system.posix_acl_access", acl((2, 7), owner=7))
    if os.geteuid() == 0:
        os.setxattr(base + b"/plain", "trusted.note", b"for root")
        # cap_net_bind_service+ep
        os.setxattr(
            base + b"/big", "security.capability", struct.pack("<5I", 0x2000001, 1024, 0, 0, 0)
        )


def _hole_with_attributes(path: bytes) -> None:
    with open(path, "wb") as file:
        file.truncate(MIB)
    os.setxattr(path, "user.note", b"sparse")


def _owners(base: bytes) -> None:
    os.mkdir(base)
    modes = [0o000, 0o400, 0o644, 0o755, 0o777, 0o1777, 0o2755, 0o4755, 0o6711]
    for number, mode in enumerate(modes):
        path = base + b"/%04o" % mode
        _write(path, b"mode")
        if os.geteuid() == 0:
            os.chown(
                path, (0, 1, 65534, 4242, 3_000_000)[number % 5], (0, 2, 9_999_999)[number % 3]
            )
        os.chmod(path, mode)
        os.mkdir(path + b"-dir")
        _write(path + b"-dir/inside", b"inside")
        os.chmod(path + b"-dir", mode if os.geteuid() == 0 else mode | 0o700)


def _times(base: bytes) -> None:
    """Give every item a time of its own, some of them odd."""
    odd = [
        0,
        1,
        -1,
        -_SECOND,
        -(_SECOND // 2),
        999_999_999,
        2**31 * _SECOND + 5,
        946684800 * _SECOND,
    ]
    number = 0
    for directory, names, files in os.walk(base, topdown=False):
        for name in sorted(files) + sorted(names):
            number += 1
            mtime = odd[number] if number < len(odd) else 1_700_000_000_123_456_789 + number * 7
            path = directory + b"/" + name
            os.utime(path, ns=(mtime, mtime), follow_symlinks=False)
    os.utime(base, ns=(1_600_000_000_000_000_001,) * 2)


def snapshot(root: Path, *, owners: bool = True) -> dict[bytes, tuple[object, ...]]:
    """Everything that a restore must bring back, by path below `root`; sockets are left out."""
    items: dict[bytes, tuple[object, ...]] = {}
    links: dict[tuple[int, int], bytes] = {}
    _gather(os.fsencode(root), b".", items, links, owners)
    return items


def _gather(
    path: bytes,
    name: bytes,
    items: dict[bytes, tuple[object, ...]],
    links: dict[tuple[int, int], bytes],
    owners: bool,
) -> None:
    here = os.lstat(path)
    if stat.S_ISSOCK(here.st_mode):
        return
    kind = stat.S_IFMT(here.st_mode)
    first = links.setdefault((here.st_dev, here.st_ino), name)
    items[name] = (
        oct(here.st_mode),
        (here.st_uid, here.st_gid) if owners else None,
        here.st_mtime_ns,
        here.st_rdev if kind in (stat.S_IFCHR, stat.S_IFBLK) else None,
        _xattrs(path),
        first,
        _content(path, here),
    )
    if stat.S_ISDIR(here.st_mode):
        for entry in sorted(os.listdir(path)):
            _gather(path + b"/" + entry, name + b"/" + entry, items, links, owners)


def _xattrs(path: bytes) -> dict[str, bytes]:
    return {
        name: os.getxattr(path, name, follow_symlinks=False)
        for name in sorted(os.listxattr(path, follow_symlinks=False))
    }


def _content(path: bytes, here: os.stat_result) -> object:
    if stat.S_ISLNK(here.st_mode):
        return os.readlink(path)
    if not stat.S_ISREG(here.st_mode):
        return None
    fd = os.open(path, os.O_RDONLY)
    try:
        found = extents(fd, here.st_size)
        # Only what lies between the holes: the trees hold more zeros than fit in memory.
        return here.st_size, found, [os.pread(fd, length, offset) for offset, length in found]
    finally:
        os.close(fd)


def extents(fd: int, size: int) -> list[tuple[int, int]]:
    """(offset, length) of the data between the holes of a file."""
    found = []
    at = 0
    while at < size:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
        except OSError:
            break
        at = min(os.lseek(fd, start, os.SEEK_HOLE), size)
        found.append((start, at - start))
    return found


def differences(left: Path, right: Path, *, owners: bool = True) -> list[str]:
    """How two trees differ, one line each; empty when they do not."""
    first, second = snapshot(left, owners=owners), snapshot(right, owners=owners)
    fields = ("mode", "owner", "mtime", "device", "xattrs", "hard link to", "content")
    found = [f"only on the left: {name!r}" for name in sorted(first.keys() - second.keys())]
    found += [f"only on the right: {name!r}" for name in sorted(second.keys() - first.keys())]
    for name in sorted(first.keys() & second.keys()):
        for label, one, other in zip(fields, first[name], second[name], strict=True):
            if one != other:
                found.append(f"{label} of {name!r}: {str(one)[:200]} / {str(other)[:200]}")
    return found


def mixed(root: Path, files: int, seed: int = 1) -> None:
    """A plain tree of many small files of 1 to 16 KB, 100 in a directory."""
    data = os.urandom(16384)
    for number in range(files):
        if number % 100 == 0:
            directory = root / f"d{number // 1000:03d}" / f"s{number // 100 % 10}"
            directory.mkdir(parents=True)
        size = 1024 + (number * 7919 + seed) % 15361
        (directory / f"file{number:06d}.dat").write_bytes(data[:size])
