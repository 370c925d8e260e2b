"""Files and directories as PAX tar streams that `tar -x` restores."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.context import StageContext
from pipeline.errors import SourceError
from pipeline.stage import Artifact, Source
from schemas.sources import FilesSource
from stages.sources._files.archive import Archive, Root
from stages.sources._files.exclude import Excludes
from stages.sources._files.names import printable

_EXTRACT = "tar --xattrs --xattrs-include='*' --acls -xp"


class Files(Source):
    """One archive for each path, or one for all of them.

    Args:
        backup: name of the backup; that of the artifact when there is a single one.
    """

    def __init__(self, spec: FilesSource, backup: str = "files") -> None:
        self._spec = spec
        self._backup = backup

    def artifacts(self) -> list[Artifact]:
        roots = self._roots()
        if self._spec.artifact == "single":
            self._refuse_same_names(roots)
            return [_artifact(self._backup, roots)]
        named: dict[str, Root] = {}
        for root in roots:
            name = printable(root.path.strip(b"/").replace(b"/", b"-")) or "root"
            if name in named:
                raise SourceError(
                    f'"{_show(named[name])}" and "{_show(root)}" would both be called "{name}"',
                    "put them into separate backups, or set `artifact: single`",
                )
            named[name] = root
        return [_artifact(name, [root]) for name, root in named.items()]

    def stream(self, artifact: Artifact, context: StageContext) -> Iterator[bytes]:
        roots = artifact.target
        if not isinstance(roots, tuple):
            raise SourceError(f'"{artifact.name}" was not planned by this source')
        yield from Archive(self._spec, roots, context).chunks()

    def probe(self) -> list[str]:
        facts = []
        for root in self._roots():
            path = root.path or b"/"
            if not os.path.islink(path) and not os.access(path, os.R_OK, effective_ids=True):
                raise SourceError(f'cannot read "{_show(root)}": permission denied')
            facts.append(f'"{_show(root)}" can be read')
        return facts

    def restore(
        self, chunks: Iterator[bytes], artifact: Artifact, target: Path, overwrite: bool
    ) -> Sequence[str]:
        from stages.sources._files.extract import extract

        return extract(chunks, target, overwrite)

    def examine(self, chunks: Iterator[bytes], context: StageContext) -> str:
        from stages.sources._files.untar import TarReader

        reader, members = TarReader(chunks), 0
        for _ in reader:
            members += 1
            for _ in reader.data():
                context.teardown.check()
        return f"a whole tar archive of {members} members"

    def _roots(self) -> list[Root]:
        """What the configured paths stand for now, sorted, each once."""
        excludes = Excludes(self._spec.exclude)
        found: set[bytes] = set()
        for path in self._spec.paths:
            _refuse_odd(path)
            matches = _expand(path, excludes)
            if not matches:
                raise SourceError(f'nothing matches "{printable(os.fsencode(path))}"')
            found.update(matches)
        relative = self._spec.names == "relative"
        return [
            Root(path, path.rfind(b"/") + 1 if relative and path else 1) for path in sorted(found)
        ]

    def _refuse_same_names(self, roots: list[Root]) -> None:
        names: dict[bytes, Root] = {}
        for root in roots:
            first = names.setdefault(root.path[root.cut :], root)
            if first is not root:
                raise SourceError(
                    f'"{_show(first)}" and "{_show(root)}" would have the same name in the archive',
                    "use `names: absolute`, or `artifact: per_path`",
                )


COMPONENT = Files


def _artifact(name: str, roots: list[Root]) -> Artifact:
    return Artifact(name, ".tar", target=tuple(roots), min_size=1, extract=_EXTRACT)


def _show(root: Root) -> str:
    return printable(root.path or b"/")


def _refuse_odd(path: str) -> None:
    shown = printable(os.fsencode(path))
    if ".." in path.split("/"):
        raise SourceError(f'"{shown}" must not contain ".."')
    if "\0" in path:
        raise SourceError(f'"{shown}" must not contain a zero byte')


def _expand(path: str, excludes: Excludes) -> list[bytes]:
    """The existing paths a configured one stands for; the root of the file system is empty.

    Excludes apply to what a glob finds, not to what is named.
    """
    if os.path.lexists(path):
        return [_normal(path)]
    if not glob.has_magic(path):
        return []
    # Parts before the first magic one are named, not found.
    named = next(at for at, part in enumerate(path.split("/")) if glob.has_magic(part)) - 1
    matches = {_normal(match) for match in glob.iglob(path, recursive=True)}
    return [match for match in matches if not _excluded(match, named, excludes)]


def _normal(path: str) -> bytes:
    parts = [part for part in os.fsencode(path).split(b"/") if part not in (b"", b".")]
    return b"".join(b"/" + part for part in parts)


def _excluded(path: bytes, named: int, excludes: Excludes) -> bool:
    """Whether the path or a directory above it is left out; its first `named` parts never are."""
    parts = path.split(b"/")[1:]
    return any(
        excludes.match(b"".join(b"/" + part for part in parts[:at]), parts[at])
        for at in range(named, len(parts))
    )
