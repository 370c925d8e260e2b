"""Files and directories as PAX tar streams that `tar -x` restores."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from pipeline.context import StageContext
from pipeline.errors import SourceError
from pipeline.stage import Artifact, Shard, Source
from schemas.sources import FilesSource
from stages.sources._files.archive import Archive, Root, memory
from stages.sources._files.exclude import Excludes
from stages.sources._files.names import printable
from stages.sources._files.scan import Share

_EXTRACT = "tar --xattrs --xattrs-include='*' --acls -xp"
_EXTRACT_SERIES = _EXTRACT.replace("tar", "tar --listed-incremental=/dev/null", 1)


Filled = dict[str, tuple[str, bytes]]
"""What was restored into a directory: by artifact what it is a part of, and its first member."""


class Files(Source):
    """One archive for each path, or one for all of them.

    Args:
        backup: name of the backup; that of the artifact when there is a single one.
    """

    def __init__(self, spec: FilesSource, backup: str = "files") -> None:
        self._spec = spec
        self._backup = backup
        self.memory = memory(spec.readers)
        self.processes = spec.shards
        self._filled: dict[Path, Filled] = {}
        if spec.incremental is not None:
            self.periods = (spec.incremental.full, *spec.incremental.levels)
            self.index_identity = spec.incremental.index_identity
            from stages.sources._files import increment

            self.memory += increment.MEMORY

    def artifacts(self) -> list[Artifact]:
        roots = self._roots()
        if self._spec.artifact == "single":
            self._refuse_same_names(roots)
            if self._spec.incremental is not None:
                _refuse_nested(roots)
            return self._split(self._backup, roots)
        named: dict[str, Root] = {}
        for root in roots:
            name = printable(root.path.strip(b"/").replace(b"/", b"-")) or "root"
            if name in named:
                raise SourceError(
                    f'"{_show(named[name])}" and "{_show(root)}" would both be called "{name}"',
                    "put them into separate backups, or set `artifact: single`",
                )
            named[name] = root
        return [artifact for name, root in named.items() for artifact in self._split(name, [root])]

    def stream(self, artifact: Artifact, context: StageContext) -> Iterator[bytes]:
        roots, options = _roots_of(artifact), self._spec.incremental
        if options is not None and context.increment is not None:
            from stages.sources._files import increment

            yield from increment.chunks(self._spec, options, roots, context)
        else:
            shard = artifact.shard
            share = Share(shard.number - 1, shard.count) if shard else None
            yield from Archive(self._spec, roots, context, share=share).chunks()

    def refuses(self, artifact: Artifact, index: Iterator[bytes]) -> str | None:
        from stages.sources._files import increment

        return increment.refuses(self._spec, _roots_of(artifact), index)

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

        # What other artifacts have just left there is no reason to stop.
        filled = self._filled.setdefault(target, {})
        others = filled.keys() - {artifact.name}
        claim = partial(_claim, filled, artifact)
        return extract(chunks, target, overwrite or bool(others), claim)

    def apply(self, chunks: Iterator[bytes], artifact: Artifact, target: Path) -> Sequence[str]:
        from stages.sources._files.apply import apply

        return apply(chunks, target)

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

    def _split(self, name: str, roots: list[Root]) -> list[Artifact]:
        """One artifact, or one for each shard."""
        whole, count = self._artifact(name, roots), self._spec.shards
        if count == 1:
            return [whole]
        return [
            replace(whole, name=f"{name}.shard-{number}", shard=Shard(name, number, count))
            for number in range(1, count + 1)
        ]

    def _artifact(self, name: str, roots: list[Root]) -> Artifact:
        extract = _EXTRACT if self._spec.incremental is None else _EXTRACT_SERIES
        return Artifact(name, ".tar", target=tuple(roots), min_size=1, extract=extract)

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


def _claim(filled: Filled, artifact: Artifact, first: bytes) -> None:
    """Note that an artifact is restored; two trees must not be mixed in one place."""
    subject = artifact.shard.of if artifact.shard else artifact.name
    for name, (other, its_first) in filled.items():
        if other != subject and its_first == first:
            raise SourceError(
                f'"{artifact.name}" would be restored over "{name}": both are '
                f'"{printable(first.rstrip(b"/"))}" in their archives',
                "restore them one by one, with --artifact, into directories of their own",
            )
    filled[artifact.name] = (subject, first)


def _roots_of(artifact: Artifact) -> tuple[Root, ...]:
    roots = artifact.target
    if not isinstance(roots, tuple):
        raise SourceError(f'"{artifact.name}" was not planned by this source')
    return roots


def _refuse_nested(roots: list[Root]) -> None:
    paths = {root.path for root in roots}
    for root in roots:
        outer = root.path
        while outer:
            outer = outer.rpartition(b"/")[0]
            if outer in paths:
                raise SourceError(
                    f'"{_show(root)}" is inside of "{printable(outer or b"/")}"',
                    "with `incremental`, use `artifact: per_path`, or name only the outer one",
                )


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
    is_directory = os.path.isdir(path) and not os.path.islink(path)
    return any(
        excludes.match(
            b"".join(b"/" + part for part in parts[:at]),
            parts[at],
            is_directory or at < len(parts) - 1,
        )
        for at in range(named, len(parts))
    )
