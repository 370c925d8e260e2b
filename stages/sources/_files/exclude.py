"""Which items of a tree are left out: by patterns, or because a directory is marked."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from stages.sources._files.ignore import PatternList, parse

CACHE_TAG = b"CACHEDIR.TAG"
"""Marks a cache, when its content begins with the signature (https://bford.info/cachedir/)."""
_SIGNATURE = b"Signature: 8a477f597d28d172789f06886806bc55"
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class Excludes:
    """Decides which items are left out.

    What a list says about a directory holds for all that is in it, unless the list says otherwise
    about an item further inside; but a directory that is excluded is never entered. `exclude` wins
    over `include`.

    Args:
        patterns: what is left out.
        include: when there are any, the only items that are not left out.
        if_present: names of items that mark the directory they are in.
        root: whole path of the tree, where patterns of relative paths begin; None: they match
            nothing.
    """

    def __init__(
        self,
        patterns: Sequence[str],
        include: Sequence[str] = (),
        if_present: Sequence[str] = (),
        root: bytes | None = None,
    ) -> None:
        self._texts = (patterns, include, if_present)
        self._out = _parsed(patterns, root)
        self._in = _parsed(include, root) if include else None
        self._excludes = bool(patterns)
        self.marks = frozenset(os.fsencode(name) for name in if_present)

    def __bool__(self) -> bool:
        return self._excludes or self._in is not None

    @property
    def includes_all(self) -> bool:
        """Whether nothing has to be included to be saved."""
        return self._in is None

    def below(self, root: bytes) -> Excludes:
        """The same for the tree at `root`, where patterns of relative paths begin."""
        return Excludes(*self._texts, root=root)

    def match(self, directory: bytes, name: bytes, is_directory: bool = False) -> bool:
        """Whether `name` in `directory` (whole path without a slash at its end) is excluded."""
        return bool(self._out.verdict(directory, name, is_directory))

    def included(self, directory: bytes, name: bytes, inherited: bool) -> bool:
        """Whether a subdirectory is included; `inherited` is what holds for the one it is in."""
        if self._in is None:
            return True
        verdict = self._in.verdict(directory, name, True)
        return inherited if verdict is None else verdict

    def keep(self, directory: bytes, names: list[bytes], inherited: bool = True) -> list[bytes]:
        """The names of files and the like that are not left out."""
        if self._excludes:
            names = [name for name in names if not self.match(directory, name)]
        patterns = self._in
        if patterns is None:
            return names
        verdicts = ((name, patterns.verdict(directory, name, False)) for name in names)
        return [name for name, said in verdicts if said or (said is None and inherited)]

    def enter(self, directory: bytes, names: list[bytes], inherited: bool = True) -> list[bytes]:
        """The names of subdirectories that are not left out, or may hold what is included."""
        kept = [name for name in names if not self.match(directory, name, True)]
        patterns = self._in
        if patterns is None:
            return kept
        return [
            name
            for name in kept
            if self.included(directory, name, inherited)
            or patterns.may_match_below(b"%b/%b" % (directory, name))
        ]

    def mark(self, fd: int, found: Iterable[bytes]) -> bytes | None:
        """Which of the names found in an open directory marks it: its content is left out."""
        for mark in sorted(found):
            if mark != CACHE_TAG or _is_cache(fd):
                return mark
        return None


def _parsed(texts: Sequence[str], root: bytes | None) -> PatternList:
    patterns = [parse(text) for text in texts]
    if root is None:
        patterns = [pattern for pattern in patterns if not pattern.below_root]
    return PatternList(patterns, root or b"")


def _is_cache(directory: int) -> bool:
    try:
        fd = os.open(CACHE_TAG, _OPEN, dir_fd=directory)
    except OSError:
        return False  # In doubt it is saved; whoever reads the file will say what is wrong.
    try:
        return os.read(fd, len(_SIGNATURE)) == _SIGNATURE
    except OSError:
        return False
    finally:
        os.close(fd)
