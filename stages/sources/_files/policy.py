"""What is said and done about items that cannot be read."""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.context import Findings
from pipeline.errors import SourceError
from schemas.sources import OnUnreadable
from stages.sources._files.attributes import Note, reason
from stages.sources._files.names import printable


class Policy:
    """Turns problems into findings or into the end of the backup.

    Args:
        mode: what the user wants for an item that cannot be read.
        roots: paths that were asked for by name: without them there is no backup.
    """

    def __init__(self, mode: OnUnreadable, roots: Iterable[bytes], findings: Findings) -> None:
        self._mode = mode
        self._roots = frozenset(roots)
        self._findings = findings

    def missing(self, path: bytes, error: OSError) -> None:
        """An item that could not be opened is not in the archive, or without its content.

        Raises:
            SourceError: the policy is to fail, or it is a root.
        """
        if path in self._roots:
            raise unreadable(path, reason(error))
        self.damaged(path, reason(error))

    def damaged(self, path: bytes, why: str) -> None:
        """An item is in the archive, but not as it was.

        Raises:
            SourceError: the policy is to fail.
        """
        if self._mode == "fail":
            raise unreadable(path, why)
        if self._mode == "warn":
            self._findings.skip(printable(path or b"/"), why)
        else:
            self._findings.count("unreadable")

    def warn(self, path: bytes, text: str) -> None:
        """Something worth knowing that harms nothing."""
        self._findings.warn(f"{printable(path or b'/')}: {text}")

    def notes(self, path: bytes, notes: Iterable[Note]) -> None:
        """What the reader found out about a directory's files, or about `path` itself."""
        for note in notes:
            item = path + b"/" + note.name if note.name else path
            if note.lost:
                self.damaged(item, note.text)
            else:
                self.warn(item, note.text)


def unreadable(path: bytes, why: str) -> SourceError:
    """The error for an item without which there is no backup."""
    return SourceError(f'cannot read "{printable(path or b"/")}": {why}')
