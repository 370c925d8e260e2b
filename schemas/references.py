"""Names that must exist and orders that make sense, also checked when other parts are wrong."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

from schemas.document import Mapping, Node, Scalar, Sequence, scalars
from schemas.problems import Path, Position, Problems, suggest

COMPRESS = frozenset({"zstd", "gzip", "xz", "lz4"})
_ENCRYPT = frozenset({"age", "gpg"})


@dataclass(frozen=True)
class _At:
    """A node, the way to it and the place of its key."""

    path: Path
    node: Node
    key: Position


def check_references(root: Mapping, problems: Problems) -> None:
    """Report unknown names, backups that are stored nowhere, and what looks like a mistake."""
    _References(root, problems).check()


class _References:
    def __init__(self, root: Mapping, problems: Problems) -> None:
        self._root = _At((), root, root.at)
        self._problems = problems
        self._storages = _child(self._root, "storages")
        self._notifiers = _child(self._root, "notifiers")
        self._defaults = _child(self._root, "defaults")
        self._all_known = False
        """Whether every reference was understood; only then can it be said what is not used."""
        self._used: dict[str, set[str]] = {"storages": set(), "notifiers": set()}

    def check(self) -> None:
        if self._defaults:
            self._names_of(self._defaults, used=False)
        backups = list(_entries(_child(self._root, "backups")))
        self._all_known = bool(backups)
        for backup in backups:
            if isinstance(backup.node, Mapping):
                self._backup(backup)
            else:
                self._all_known = False
        if self._all_known:
            self._patterns(backups)
        # A name that is wrong may have meant any entry.
        if self._all_known and not any(scalar.broken for scalar in scalars(self._root.node)):
            self._unused(self._storages, "storages")
            self._unused(self._notifiers, "notifiers")

    def _backup(self, backup: _At) -> None:
        self._names_of(backup, used=True)
        fan_out = self._effective(backup, "fan_out")
        if not list(_entries(fan_out)):
            self._all_known = False
        if fan_out is None or (isinstance(fan_out.node, Sequence) and not fan_out.node.items):
            known = suggest(None, _known(self._storages), "storages")
            message = "has no fan_out, so it would be stored nowhere"
            self._problems.add(
                backup.key, backup.path, message, f'add "fan_out" with a "storage"; {known}'
            )
        stages = list(_entries(self._effective(backup, "stages")))
        self._order(stages)
        everywhere = list(stages)
        for branch in _entries(fan_out):
            own = list(_entries(_child(branch, "stages")))
            self._order(stages + own)
            everywhere += own
        self._index_key(backup, everywhere)

    def _effective(self, backup: _At, key: str) -> _At | None:
        """What the backup says itself, else what `defaults` say."""
        return _child(backup, key) or (_child(self._defaults, key) if self._defaults else None)

    def _names_of(self, owner: _At, used: bool) -> None:
        """Check the names a backup, or `defaults`, refers to; what is inherited counts as used."""
        inherits = self._effective if used else _child
        branches = list(_entries(inherits(owner, "fan_out")))
        storages = [found for branch in branches if (found := _child(branch, "storage"))]
        self._all_known = self._all_known and len(storages) == len(branches)
        self._names(storages, self._storages, "storages", used)
        notify = inherits(owner, "notify")
        if notify and not isinstance(notify.node, Sequence):
            self._all_known = False
        self._names(list(_entries(notify)), self._notifiers, "notifiers", used)

    def _names(self, references: list[_At], section: _At | None, what: str, used: bool) -> None:
        if section is not None and not isinstance(section.node, Mapping):
            return
        known = _known(section)
        first: dict[str, int] = {}
        for reference in references:
            name = reference.node.value if isinstance(reference.node, Scalar) else None
            if not isinstance(name, str):
                self._all_known = False
                continue
            if used:
                self._used[what].add(name)
            if name not in known:
                self._all_known = False
                hint = suggest(name, known, what)
                self._problems.add(
                    reference.node.at, reference.path, f'is not an entry of "{what}"', hint
                )
            elif name in first:
                hint = f"first named in line {first[name]}; remove one of them"
                self._problems.add(reference.node.at, reference.path, "is named twice", hint)
            first.setdefault(name, reference.node.at.line)

    def _patterns(self, backups: list[_At]) -> None:
        """A notifier's choice of backups must leave some."""
        for notifier in _entries(self._notifiers):
            names = [
                str(backup.path[-1])
                for backup in backups
                if notifier.path[-1] in _texts(self._effective(backup, "notify"))
            ]
            for pattern in _entries(_child(notifier, "backups")) if names else ():
                value = pattern.node.value if isinstance(pattern.node, Scalar) else None
                if isinstance(value, str) and not any(fnmatchcase(name, value) for name in names):
                    message = "matches no backup that names this notifier"
                    hint = suggest(value, names, "backups")
                    self._problems.add(pattern.node.at, pattern.path, message, hint)

    def _order(self, stages: list[_At]) -> None:
        """Warn about a compression that cannot help."""
        compressed = encrypted = False
        for stage in stages:
            kind = _child(stage, "type")
            name = kind.node.value if kind and isinstance(kind.node, Scalar) else None
            if kind and name in COMPRESS:
                if encrypted:
                    self._warn(
                        kind,
                        "compresses after encryption, which saves nothing",
                        "move it before the encryption",
                    )
                elif compressed:
                    self._warn(
                        kind, "compresses a second time, which saves nothing", "keep one of them"
                    )
                compressed = True
            encrypted = encrypted or name in _ENCRYPT

    def _index_key(self, backup: _At, stages: list[_At]) -> None:
        """What an increment needs must not lie beside encrypted data in the clear."""
        source = _child(backup, "source")
        incremental = _child(source, "incremental") if source else None
        if incremental is None or not isinstance(incremental.node, Mapping):
            return
        kinds = {
            kind.node.value
            for stage in stages
            if (kind := _child(stage, "type")) and isinstance(kind.node, Scalar)
        }
        if kinds & _ENCRYPT and _child(incremental, "index_identity") is None:
            self._problems.add(
                incremental.key,
                incremental.path,
                "needs index_identity when the data is encrypted",
                "the index holds all names; `nxs-backup keygen FILE` makes a key for it",
            )

    def _unused(self, section: _At | None, what: str) -> None:
        entries = _entries(section) if section and isinstance(section.node, Mapping) else ()
        for entry in entries:
            if entry.path[-1] not in self._used[what]:
                key = "fan_out" if what == "storages" else "notify"
                hint = f'name it in the "{key}" of a backup, or remove it'
                self._problems.add(
                    entry.key, entry.path, "is not used by any backup", hint, "warning"
                )

    def _warn(self, found: _At, message: str, hint: str) -> None:
        self._problems.add(found.node.at, found.path, message, hint, "warning")


def _child(parent: _At, key: str) -> _At | None:
    entry = parent.node.entries.get(key) if isinstance(parent.node, Mapping) else None
    return _At((*parent.path, key), entry.node, entry.at) if entry else None


def _entries(parent: _At | None) -> Iterator[_At]:
    """The values of a mapping or the items of a list."""
    node = parent.node if parent else None
    if parent and isinstance(node, Mapping):
        for key, entry in node.entries.items():
            yield _At((*parent.path, key), entry.node, entry.at)
    elif parent and isinstance(node, Sequence):
        for index, item in enumerate(node.items):
            yield _At((*parent.path, index), item, item.at)


def _texts(parent: _At | None) -> set[str]:
    found = (item.node for item in _entries(parent))
    return {
        node.value for node in found if isinstance(node, Scalar) and isinstance(node.value, str)
    }


def _known(section: _At | None) -> list[str]:
    return list(section.node.entries) if section and isinstance(section.node, Mapping) else []
