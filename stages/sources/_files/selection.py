"""The second pass of an increment: an archive of what has changed, with renames ahead of it.

Only directories are visited in which something has to be said or saved. What the survey saw counts:
whatever happens to the tree meanwhile is for the next increment to find.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pipeline.context import Findings
from stages.sources._files import dumpdir, partners, tar
from stages.sources._files.attributes import reason
from stages.sources._files.compare import Changes, Comparison
from stages.sources._files.directory import Directory
from stages.sources._files.listing import Listing, order
from stages.sources._files.looker import Looker
from stages.sources._files.moves import Moves
from stages.sources._files.names import printable
from stages.sources._files.recorder import Observer, indexed, listing_of, record_of
from stages.sources._files.snapshot import Reader
from stages.sources._files.survey import Survey
from stages.sources._files.tar import Encoder


class Selection(Observer):
    """The ledger of that archive.

    Args:
        cuts: how many leading bytes of a path are no part of the member name, by root.
        end: the last directory of the survey, when it ended early; what follows is compared here.
    """

    def __init__(
        self,
        looker: Looker,
        survey: Survey,
        moves: Moves,
        comparison: Comparison,
        findings: Findings,
        cuts: Mapping[bytes, int],
        end: bytes | None = None,
    ) -> None:
        super().__init__(None if end is None else looker)
        self.doubts: dict[bytes, set[bytes] | None] = dict.fromkeys(survey.unreadable)
        """What is not in the archive as it should be, for the footer of the index."""
        self._survey = survey
        self._moves = moves
        self._comparison = comparison
        self._findings = findings
        self._cuts = cuts
        self._end = None if end is None else order(end)
        self._wanted = {*survey.changed, *survey.come, *moves.touched, *survey.unreadable}
        self._visited: set[bytes] = set()
        self._way: set[bytes] = set()
        for path in self._wanted if end is None else (*self._wanted, end):
            self._lead_to(path)
        self._tops: dict[bytes, set[bytes]] = {}
        """All names in top directories below which something is moved."""
        self._more: dict[bytes, set[bytes]] = {}
        """Names to be saved by directory, for the sake of others that are."""

    def saved(self) -> Iterator[tuple[Listing, set[bytes]]]:
        """Directories that have items with several names, and the names of what is saved."""
        for path in (*self._survey.changed, *self._survey.come):
            remembered = self._survey.changed.get(path) or self._survey.come[path]
            if remembered.has_links and path not in self._survey.unreadable:
                listing, changes, _ = self._known(path)
                yield listing, self._dumped(path, changes)

    def partners(self, inodes: set[int], old: Reader) -> Iterator[tuple[bytes, bytes]]:
        """Directory and name of all that had one of the inodes, in the shape of the new tree."""
        moved = {was: now for now, was in self._moves.directories.items()}
        return partners.find(inodes, old, self._survey.gone, moved)

    def add(self, directory: bytes, name: bytes) -> None:
        """Save one item more."""
        self._more.setdefault(directory, set()).add(name)
        self._wanted.add(directory)
        self._lead_to(directory)

    def leads_to(self, root: bytes) -> bool:
        """Whether anything at or below a root has to be visited."""
        return root in self._way or self._end is not None

    def scanned(self, directory: Directory) -> None:
        super().scanned(directory)
        outer = directory.path + b"/"
        directory.directories = [
            name
            for name in directory.directories
            if outer + name in self._way or self._is_new(outer + name)
        ]

    def before(self, directory: Directory) -> bytes | None:
        path = directory.path
        if self._is_new(path):
            return self._compare(directory)
        if path not in self._wanted:
            _let_nothing_through(directory)
            return None
        self._visited.add(path)
        if path in self._survey.unreadable:
            return self._unreadable(directory)
        if directory.fd < 0:
            if directory.error is not None:
                self.doubts[path] = None
            return b""
        return self._select(directory)

    def prologue(self, encoder: Encoder, top: Directory, name: bytes) -> bytes:
        plan = self._moves.plans.get(top.path)
        if plan is None or top.stat is None:
            return b""
        cut = self._cuts[top.path]
        renames = [(old[cut:], new[cut:]) for old, new in plan.steps]
        self._findings.count("renames", len(renames))
        # Nothing is removed before all renames are done; the next member of the same name does it.
        names = self._tops[top.path].union(plan.parked, *self._survey.old_tops[top.path].split())
        records = dumpdir.pax_record((), names, (), renames)
        return encoder.member(name, top.stat, tar.DIRECTORY, records=records)

    def uncertain(self, path: bytes, name: bytes) -> None:
        names = self.doubts.setdefault(path, set())
        if names is not None:
            names.add(name)

    def finish(self) -> None:
        """Note what was not found any more."""
        self.doubts.update(dict.fromkeys(self._wanted - self._visited))

    def _lead_to(self, path: bytes) -> None:
        while path not in self._way:
            self._way.add(path)
            if path in self._cuts:
                break
            path = path.rpartition(b"/")[0]

    def _is_new(self, path: bytes) -> bool:
        """Whether the survey did not get there."""
        return self._end is not None and order(path) > self._end

    def _unreadable(self, directory: Directory) -> bytes:
        """Its own header only; what is in it stays on restore as the parent has it."""
        if directory.error is None:
            error = self._survey.unreadable[directory.path]
            self._findings.skip(printable(directory.path), reason(error))
        _let_nothing_through(directory)
        return b""

    def _select(self, directory: Directory) -> bytes | None:
        path = directory.path
        if path in self._survey.changed or path in self._survey.come:
            listing, changes, left_out = self._known(path)
        else:
            listing, changes, left_out = _as_it_is(directory), Changes(True), directory.left_out
        return self._dump(directory, listing, changes, left_out)

    def _known(self, path: bytes) -> tuple[Listing, Changes, list[bytes]]:
        """What the survey found out about a directory."""
        if path in self._survey.changed:
            return self._survey.changed[path].unpack()
        listing, _, left_out = self._survey.come[path].unpack()
        return listing, self._changes_in_new(listing), left_out

    def _dumped(self, path: bytes, changes: Changes) -> set[bytes]:
        """Names of what is saved."""
        names = self._comparison.settle(changes) | self._more.get(path, set())
        if self._moves.files:
            names = {name for name in names if path + b"/" + name not in self._moves.files}
        return names

    def _changes_in_new(self, listing: Listing) -> Changes:
        """What has to be saved of a directory that was not there, or was moved."""
        path = listing.path
        was = path if self._comparison.inodes_are_made_up else self._moves.directories.get(path)
        if was is None or was not in self._survey.gone:
            return _everything(listing)
        old = self._survey.gone[was].unpack()[0]
        changes = self._comparison.compare(old, listing, self._survey.doubts_about(old))
        changes.own = changes.own or path in self._moves.touched
        return changes

    def _compare(self, directory: Directory) -> bytes | None:
        """Both passes at once."""
        new, base = indexed(directory), self._survey.base
        if new is None:
            return None
        old = base.find(new.path)
        if directory.error is not None:
            base.record(new, same=False)
            self.doubts[new.path] = None
            _let_nothing_through(directory)
            return b""
        doubts = self._survey.doubts_about(old) if old is not None else ()
        same = old is not None and not doubts and self._comparison.same(old, new)
        base.record(new, same=same)
        if same or directory.fd < 0:
            self._survey.unchanged += len(directory.files)
            _let_nothing_through(directory)
            return None if same else b""
        changes = _everything(new) if old is None else self._comparison.compare(old, new, doubts)
        return self._dump(directory, new, changes, directory.left_out)

    def _dump(
        self, directory: Directory, listing: Listing, changes: Changes, left_out: list[bytes]
    ) -> bytes | None:
        path = directory.path
        dumped = self._dumped(path, changes)
        if path in self._moves.plans:
            names = (name for kind in listing.split() for name in kind)
            self._tops[path] = {*names, *left_out}
        self._survey.unchanged += listing.counts[0] - sum(
            name in dumped for name in listing.split()[0]
        )
        if not (dumped or changes.own or path in self._moves.touched):
            _let_nothing_through(directory)
            return None
        directory.files = [name for name in directory.files if name in dumped]
        directory.others = [name for name in directory.others if name in dumped]
        for name in dumped.difference(directory.files, directory.others):
            self.uncertain(path, name)
        return record_of(listing, dumped, left_out, changes.hidden)


def _let_nothing_through(directory: Directory) -> None:
    directory.files, directory.others = [], []


def _everything(listing: Listing) -> Changes:
    return Changes(True, {name for name, _ in listing.items()})


def _as_it_is(directory: Directory) -> Listing:
    listing = directory.extra if isinstance(directory.extra, Listing) else listing_of(directory)
    assert listing is not None, "it is open"
    return listing
