"""Which of the new directories and files are old ones at another place.

An inode alone proves nothing, as file systems use them again. A directory must have the same time
of modification as well, or half of its items in common with the old one; a file the same size,
times, mode and owner. In doubt it is something new, which is always right, and only larger.
"""

from __future__ import annotations

import secrets
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from stages.sources._files import renames
from stages.sources._files.listing import Listing, unpack
from stages.sources._files.survey import Remembered, Survey


@dataclass
class Moves:
    """What is known about a tree after the survey."""

    directories: dict[bytes, bytes] = field(default_factory=dict)
    """Old path by new path."""
    files: dict[bytes, bytes] = field(default_factory=dict)
    """The same of files."""
    plans: dict[bytes, renames.Plan] = field(default_factory=dict)
    """By root."""
    touched: set[bytes] = field(default_factory=set)
    """New paths of directories in which something is moved."""


def find(survey: Survey, roots: Collection[bytes], kinds: str) -> Moves:
    """Find out what was moved, and plan the renames.

    Args:
        kinds: `directories`, `all` for files too, or `none`: then only what was replaced by
            something else of its name is moved out of the way.
    """
    moves = Moves()
    if kinds != "none":
        moves.directories = _directories(survey, roots)
    if kinds == "all":
        moves.files = _files(survey, roots, moves.directories)
    by_root: dict[bytes, dict[bytes, bytes]] = {}
    for new, old in (*moves.directories.items(), *moves.files.items()):
        by_root.setdefault(_root(new, roots), {})[new] = old
    existed = _existed(survey)
    created = survey.come.keys() - moves.directories.keys()
    token = secrets.token_hex(4)
    replaced: dict[bytes, set[bytes]] = {}
    for path in created & (survey.gone.keys() - moves.directories.values()):
        replaced.setdefault(_root(path, roots), set()).add(path)
    for root in by_root.keys() | replaced.keys():
        mine, places = by_root.get(root, {}), replaced.get(root, set())
        plan = renames.plan(root, mine, created, existed, token, places)
        if plan.steps:
            moves.plans[root] = plan
            moves.touched.update(_touched(survey, root, mine, plan))
            moves.touched.update(path.rpartition(b"/")[0] for path in places)
    return moves


def _root(path: bytes, roots: Collection[bytes]) -> bytes:
    """The root that something is below."""
    while path not in roots:
        path = path.rpartition(b"/")[0]
    return path


def _directories(survey: Survey, roots: Collection[bytes]) -> dict[bytes, bytes]:
    old = _by_identity(survey.gone.values(), survey.devices)
    new = _by_identity(survey.come.values(), {})
    pairs = ((new[key], old[key]) for key in new.keys() & old.keys())
    return {
        now.path: was.path
        for now, was in pairs
        if _root(now.path, roots) == _root(was.path, roots)
        and _is_one_directory(was.unpack()[0], now.unpack()[0])
    }


def _by_identity(
    directories: Iterable[Remembered], devices: Mapping[int, int]
) -> dict[tuple[int, int], Remembered]:
    """Those whose inode is theirs alone: with a bind mount, a directory is in two places."""
    found: dict[tuple[int, int], Remembered | None] = {}
    for directory in directories:
        device, inode = directory.identity
        key = (devices.get(device, device), inode)
        found[key] = None if key in found else directory
    return {key: directory for key, directory in found.items() if directory is not None}


def _is_one_directory(was: Listing, now: Listing) -> bool:
    if was.own.mtime_ns == now.own.mtime_ns:
        return True
    old, new = _children(was), _children(now)
    common = len(old & new)
    return common > 0 and 2 * common >= min(len(old), len(new))


def _children(listing: Listing) -> set[tuple[bytes, int]]:
    items = {(name, unpack(row).ino) for name, row in listing.items()}
    return items | {(name, 0) for name in listing.split()[2]}


def _files(
    survey: Survey, roots: Collection[bytes], directories: Mapping[bytes, bytes]
) -> dict[bytes, bytes]:
    """Old path by new path of files that were moved on their own."""
    lost, fresh = dict(survey.lost_files), dict(survey.new_files)
    for path in survey.gone.keys() - set(directories.values()):
        lost.update(_items(survey.gone[path]))
    for path, directory in survey.come.items():
        if path in directories:
            _note_exchange(survey.gone[directories[path]], directory, lost, fresh)
        else:
            fresh.update(_items(directory))
    old, new = _by_inode(lost), _by_inode(fresh)
    pairs = ((new[inode], old[inode]) for inode in new.keys() & old.keys())
    return {
        now: was
        for now, was in pairs
        if now != was
        and _root(now, roots) == _root(was, roots)
        and _is_one_file(lost[was], fresh[now])
        and not survey.is_doubtful(was)
    }


def _items(directory: Remembered) -> Iterator[tuple[bytes, bytes]]:
    """Path and row of each file and the like."""
    listing = directory.unpack()[0]
    return ((listing.path + b"/" + name, row) for name, row in listing.items())


def _note_exchange(
    was: Remembered, now: Remembered, lost: dict[bytes, bytes], fresh: dict[bytes, bytes]
) -> None:
    """What came into a moved directory or left it."""
    before, after = was.unpack()[0], now.unpack()[0]
    old, new = dict(before.items()), dict(after.items())
    stayed = {name for name in old.keys() & new.keys() if _inode(old[name]) == _inode(new[name])}
    lost.update({before.path + b"/" + name: old[name] for name in old.keys() - stayed})
    fresh.update({after.path + b"/" + name: new[name] for name in new.keys() - stayed})


def _inode(row: bytes) -> int:
    return unpack(row).ino


def _by_inode(rows: Mapping[bytes, bytes]) -> dict[int, bytes]:
    found: dict[int, bytes | None] = {}
    for path, row in rows.items():
        item = unpack(row)
        if stat.S_ISREG(item.mode) and item.nlink == 1:
            found[item.ino] = None if item.ino in found else path
    return {inode: path for inode, path in found.items() if path is not None}


def _is_one_file(was: bytes, now: bytes) -> bool:
    # Everything but the change time, which renaming changes.
    old, new = unpack(was), unpack(now)
    return old[:7] == new[:7]


def _existed(survey: Survey) -> Callable[[bytes], bool]:
    items: dict[bytes, set[bytes]] = {}

    def existed(path: bytes) -> bool:
        if path in survey.gone or path in survey.taken or path in survey.lost_files:
            return True
        directory, _, name = path.rpartition(b"/")
        if directory not in survey.gone:
            return False
        if directory not in items:
            items[directory] = {name for name, _ in survey.gone[directory].unpack()[0].items()}
        return name in items[directory]

    return existed


def _touched(
    survey: Survey, root: bytes, moves: Mapping[bytes, bytes], plan: renames.Plan
) -> Iterator[bytes]:
    yield root
    for new in plan.moved:
        if new in survey.come:
            yield new
        yield new.rpartition(b"/")[0]
        left = moves[new].rpartition(b"/")[0]
        if left not in survey.gone:
            yield left
