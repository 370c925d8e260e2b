"""Where something stands in the file."""

from __future__ import annotations

from schemas.document import Mapping, Node, Sequence
from schemas.problems import Path, Position


def position(root: Mapping, path: Path) -> Position:
    """Where something stands; of what is written nowhere, where the nearest part stands that is.

    What a backup takes from `defaults` stands there.
    """
    written, at = _deepest(root, path)
    if path[:1] == ("backups",) and written == 2 < len(path):
        inherited, there = _deepest(root, ("defaults", *path[2:]))
        return there if inherited > 1 else at
    return at


def _deepest(root: Mapping, path: Path) -> tuple[int, Position]:
    """How many parts of a path are written, and where the last one of them stands."""
    node: Node = root
    for depth, part in enumerate(path):
        if isinstance(node, Mapping) and part in node.entries:
            node = node.entries[str(part)].node
        elif isinstance(node, Sequence) and isinstance(part, int) and part < len(node.items):
            node = node.items[part]
        else:
            return depth, node.at
    return len(path), node.at
