"""Which renames bring an old tree into the shape of a new one: pure functions of paths.

A restore carries them out one after the other, and a target must be free: so whatever stands in the
way (something that was deleted, or that has still to be moved itself, as in a swap) is parked in
the top directory first. What stays parked is removed by the list of the top directory.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from stages.sources._files.listing import order

Place = tuple[bytes, bytes]
"""Where something is: the directory, by its name in the plan, and its name there."""


@dataclass
class Plan:
    """Renames in the order in which to carry them out."""

    steps: list[tuple[bytes, bytes]] = field(default_factory=list)
    """Old and new whole path of each."""
    parked: list[bytes] = field(default_factory=list)
    """Names in the top directory that were used on the way."""
    moved: list[bytes] = field(default_factory=list)
    """New paths of what did not simply come along with the directory it is in."""


def plan(
    top: bytes,
    moves: Mapping[bytes, bytes],
    created: Collection[bytes],
    existed: Callable[[bytes], bool],
    token: str,
    replaced: Collection[bytes] = (),
) -> Plan:
    """Plan the renames below one top directory, which stays where it is.

    Args:
        moves: old path by new path, of everything that was at another place or in another
            directory before.
        created: paths of new directories in which something moved may be, or that are on the way.
        existed: whether there was anything in the old tree at a path, apart from directories that
            are still the same at the same path.
        token: part of the names of what is parked, so that they are not taken.
        replaced: those of `created` where another directory was: it has to go as a whole, or what
            is not in the archive (such as its extended attributes) would stay.
    """
    mover = _Mover(top, moves, created, existed, token)
    for path in sorted({*moves, *replaced}, key=order):
        if path in moves:
            mover.bring(path)
        else:
            mover.make_room(path)
    return mover.plan


class _Mover:
    """A simulation of the target. Everything old goes by its old path, a new directory by its new
    one behind a zero byte.
    """

    def __init__(
        self,
        top: bytes,
        moves: Mapping[bytes, bytes],
        created: Collection[bytes],
        existed: Callable[[bytes], bool],
        token: str,
    ) -> None:
        self.plan = Plan()
        self._top = top
        self._moves = moves
        self._created = created
        self._existed = existed
        self._token = token
        self._places: dict[bytes, Place] = {}
        """Of what has been moved."""
        self._occupants: dict[Place, bytes | None] = {}
        """Of places where something was moved to or from."""

    def bring(self, path: bytes) -> None:
        """Move something to its new path."""
        directory, _, name = path.rpartition(b"/")
        item, place = self._moves[path], (self._directory(directory), name)
        if self._place(item) != place:
            self._clear(place)
            self._move(item, place)
            self.plan.moved.append(path)

    def make_room(self, path: bytes) -> None:
        """Clear the place of a new directory."""
        self._directory(path)

    def _clear(self, place: Place) -> None:
        """Park what stands in the way."""
        occupant = self._occupant(place)
        if occupant is not None:
            name = b".nxs-mv-%b-%d" % (self._token.encode(), len(self.plan.parked))
            self.plan.parked.append(name)
            self._move(occupant, (self._top, name))

    def _move(self, item: bytes, place: Place) -> None:
        source = self._path(item)
        self._occupants[self._place(item)] = None
        self._occupants[place] = item
        self._places[item] = place
        self.plan.steps.append((source, self._path(item)))

    def _directory(self, path: bytes) -> bytes:
        """The directory of a new path, which is put where it belongs when it is a new one.

        A restore makes it when something is moved into it.
        """
        missing: list[bytes] = []
        while path in self._created and b"\0" + path not in self._places:
            missing.append(path)
            path = path.rpartition(b"/")[0]
        directory = b"\0" + path if path in self._created else self._moves.get(path, path)
        for new in reversed(missing):
            place = (directory, new.rpartition(b"/")[2])
            self._clear(place)
            directory = b"\0" + new
            self._occupants[place] = directory
            self._places[directory] = place
        return directory

    def _occupant(self, place: Place) -> bytes | None:
        if place in self._occupants:
            return self._occupants[place]
        directory, name = place
        if directory.startswith(b"\0"):
            return None
        path = directory + b"/" + name
        return path if self._existed(path) else None

    def _place(self, item: bytes) -> Place:
        if item in self._places:
            return self._places[item]
        directory, _, name = item.rpartition(b"/")
        return directory, name

    def _path(self, item: bytes) -> bytes:
        """Where it is now."""
        parts: list[bytes] = []
        while item != self._top:
            item, name = self._place(item)
            parts.append(name)
        return b"/".join([self._top, *reversed(parts)])
