"""One tree out of a configuration file and the files it includes.

An included file may hold everything the first one may. Storages, notifiers and backups are merged
by name; what can stand only once may stand in one of the files.
"""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Iterator
from pathlib import Path as FilePath

from schemas.document import Entry, Mapping, Scalar, Sequence, parse
from schemas.interpolate import Interpolator
from schemas.problems import NO_VALUE, NOT_A_LIST, NOT_A_MAPPING, NOT_TEXT, Path, Position, Problems

MAX_SIZE = 512 << 10
"""Bytes of one configuration file."""
MAX_DEPTH = 16
"""Files that include one another in a row."""

_NAMED = ("storages", "notifiers", "backups")
_UNREADABLE = {
    FileNotFoundError: "check the path; a relative one starts at the folder of this file",
    IsADirectoryError: "name a file; a folder is included as folder/*.yaml",
    PermissionError: "run as a user who may read it",
}


class Includer:
    """Reads files into one tree; every problem on the way is collected."""

    def __init__(self, interpolator: Interpolator, problems: Problems) -> None:
        self._interpolator = interpolator
        self._problems = problems
        self._open: list[FilePath] = []
        self.root: Mapping | None = None
        self.files: list[FilePath] = []
        self.modes: dict[str, int] = {}
        """Permission bits of the regular files that were read."""
        self.complete = True
        """Whether nothing is missing from the tree because a file could not be read."""

    def read(self, file: str) -> None:
        """Read the first file."""
        self._read(file, Position(file), (), MAX_DEPTH)

    def _read(self, file: str, named_at: Position, path: Path, depth: int) -> None:
        try:
            real = FilePath(file).resolve()
        except UnicodeError:
            # The encoding of this system's file names lacks a character.
            self._problems.add(named_at, path, "names no file", "use another name")
            self.complete = False
            return
        if real in self._open or depth == 0:
            message = (
                "leads back to itself" if real in self._open else "includes too many files in a row"
            )
            self._problems.add(named_at, path, message, "remove one of the includes")
            return
        if any(real == known.resolve() for known in self.files):
            return
        mapping = self._load(file, named_at, path)
        if mapping is None:
            self.complete = False
            return
        self._open.append(real)
        folder = FilePath(file).parent
        self._interpolator.resolve(mapping, folder)
        self._merge(mapping)
        for below, scalar in self._patterns(mapping.entries.get("include")):
            self._include(str(scalar.value), scalar.at, below, folder, depth)
        self._open.pop()

    def _load(self, file: str, named_at: Position, path: Path) -> Mapping | None:
        try:
            data = self._bytes(file)
        except OSError as error:
            hint = _UNREADABLE.get(type(error))
            self._problems.add(
                named_at,
                path,
                f"cannot be read: {(error.strerror or 'unknown error').lower()}",
                hint,
            )
            return None
        self.files.append(FilePath(file))
        if len(data) > MAX_SIZE:
            self._problems.add(
                Position(file), (), "is larger than 512KiB", "put parts of it into files to include"
            )
            return None
        node = parse(data, file, self._problems)
        if isinstance(node, Scalar) and node.value is None and not node.broken:
            # A file in which everything is commented out may be included.
            if path:
                return Mapping(node.at)
            self._problems.add(
                Position(file), (), "is empty", "write a sample with: nxs-backup init"
            )
        elif isinstance(node, Mapping):
            return node
        elif node is not None and not (isinstance(node, Scalar) and node.broken):
            self._problems.add(
                node.at, (), NOT_A_MAPPING[0], 'start with a key, such as "name: ..."'
            )
        return None

    def _bytes(self, file: str) -> bytes:
        with open(file, "rb") as stream:
            mode = os.fstat(stream.fileno()).st_mode
            if stat.S_ISREG(mode):
                self.modes[file] = stat.S_IMODE(mode)
            return stream.read(MAX_SIZE + 1)

    def _merge(self, mapping: Mapping) -> None:
        if self.root is None:
            self.root = Mapping(mapping.at)
        for key, entry in mapping.entries.items():
            first = self.root.entries.get(key)
            if first is None:
                self.root.entries[key] = _copied(entry) if key in _NAMED else entry
            elif key in _NAMED:
                self._merge_named(key, first, entry)
            elif key != "include":
                self._twice(entry.at, (key,), "is set twice", first.at)

    def _merge_named(self, section: str, first: Entry, second: Entry) -> None:
        if not isinstance(second.node, Mapping):
            empty = isinstance(second.node, Scalar) and second.node.value is None
            if not (isinstance(second.node, Scalar) and second.node.broken):
                self._problems.add(
                    second.node.at, (section,), *(NO_VALUE if empty else NOT_A_MAPPING)
                )
            return
        if not isinstance(first.node, Mapping):
            return
        for name, entry in second.node.entries.items():
            known = first.node.entries.setdefault(name, entry)
            if known is not entry:
                self._twice(entry.at, (section, name), "is defined twice", known.at)

    def _twice(self, at: Position, path: Path, message: str, first: Position) -> None:
        self._problems.add(
            at, path, message, f"first at {first.file}:{first.line}; keep one of them"
        )

    def _patterns(self, entry: Entry | None) -> Iterator[tuple[Path, Scalar]]:
        if entry is None or (isinstance(entry.node, Scalar) and entry.node.broken):
            return
        if not isinstance(entry.node, Sequence):
            empty = isinstance(entry.node, Scalar) and entry.node.value is None
            self._problems.add(entry.node.at, ("include",), *(NO_VALUE if empty else NOT_A_LIST))
            return
        for index, item in enumerate(entry.node.items):
            path: Path = ("include", index)
            if isinstance(item, Scalar) and isinstance(item.value, str):
                yield path, item
            elif not (isinstance(item, Scalar) and item.broken):
                empty = isinstance(item, Scalar) and item.value is None
                self._problems.add(item.at, path, *(NO_VALUE if empty else NOT_TEXT))

    def _include(
        self, pattern: str, at: Position, path: Path, folder: FilePath, depth: int
    ) -> None:
        if not pattern or "\0" in pattern:
            self._problems.add(at, path, "names no file", "such as conf.d/*.yaml")
        elif not glob.has_magic(pattern):
            self._read(str(folder / pattern), at, path, depth - 1)
        else:
            names = sorted(glob.glob(pattern, root_dir=folder, recursive=True))
            files = [str(folder / name) for name in names if (folder / name).is_file()]
            if not files:
                hint = "a relative pattern starts at the folder of this file"
                self._problems.add(at, path, "matches no file", hint, "warning")
            for file in files:
                self._read(file, at, path, depth - 1)


def _copied(entry: Entry) -> Entry:
    """A section that entries of other files can be added to; an alias of it must not see them."""
    if not isinstance(entry.node, Mapping):
        return entry
    return Entry(entry.at, Mapping(entry.node.at, dict(entry.node.entries)))
