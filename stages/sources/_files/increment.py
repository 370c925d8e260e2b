"""Copies of a series: a full one that writes an index, and increments that build on one."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing

from pipeline.context import Increment, StageContext
from pipeline.errors import SourceError
from schemas.incremental import FilesIncremental
from schemas.sources import FilesSource
from stages.sources._files import partners
from stages.sources._files import survey as _survey
from stages.sources._files.archive import Archive, Root
from stages.sources._files.compare import Comparison
from stages.sources._files.listing import order
from stages.sources._files.looker import Looker
from stages.sources._files.moves import Moves, find
from stages.sources._files.recorder import Recorder
from stages.sources._files.selection import Selection
from stages.sources._files.snapshot import Footer, Header, Reader, Writer
from stages.sources._files.survey import Survey

MEMORY = _survey.MEMORY + (16 << 20)
"""Bytes at most besides those of an archive: what is remembered, and some blocks of the indexes."""
_SETTINGS = (
    "exclude",
    "include",
    "exclude_if_present",
    "names",
    "one_file_system",
    "numeric_owner",
    "xattrs",
)
"""What decides on the content of a copy; an increment on another content would be of no use."""

_TOO_MUCH = (
    "too much has changed to look for renames: what was moved is saved again, and is no longer a "
    "hard link to what was not"
)


def chunks(
    spec: FilesSource, options: FilesIncremental, roots: Sequence[Root], context: StageContext
) -> Iterator[bytes]:
    """The archive of a copy in a series, whose index is written on the way."""
    place = _place(context)
    # The order of an index, which is not that of the bytes: `/a/b` comes before `/a-b`.
    roots = sorted(roots, key=lambda root: order(root.path))
    with closing(Looker(context.teardown)) as looker:
        if place.base is None:
            yield from _full(spec, roots, context, looker)
        else:
            yield from _Increment(spec, options, roots, context, looker).chunks(place.base)


def header(spec: FilesSource, roots: Sequence[Root]) -> Header:
    """What an index belongs to."""
    settings = {key: _digest(getattr(spec, key)) for key in _SETTINGS}
    settings["paths"] = _digest(
        [[os.fsdecode(root.path), root.cut, os.path.isdir(root.path or b"/")] for root in roots]
    )
    return Header(settings)


def refuses(spec: FilesSource, roots: Sequence[Root], index: Iterator[bytes]) -> str | None:
    """Why an increment cannot be built on the copy with this index.

    Raises:
        SourceError: it cannot be read.
    """
    reader = Reader(index)
    wanted = header(spec, roots).settings
    for key in sorted(wanted.keys() | reader.header.settings.keys()):
        if wanted.get(key) != reader.header.settings.get(key):
            return f"`{key}` is not what it was when the last copy was made"
    if reader.read_footer().all_in_doubt:
        return "too much could not be read when the last copy was made"
    return None


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


def _place(context: StageContext) -> Increment:
    assert context.increment is not None, "the engine makes one for a source with periods"
    return context.increment


def _full(
    spec: FilesSource, roots: Sequence[Root], context: StageContext, looker: Looker
) -> Iterator[bytes]:
    index = Writer(_place(context).keep, header(spec, roots))
    yield from Archive(spec, roots, context, Recorder(looker, index)).chunks()
    index.finish({})


class _Increment:
    def __init__(
        self,
        spec: FilesSource,
        options: FilesIncremental,
        roots: Sequence[Root],
        context: StageContext,
        looker: Looker,
    ) -> None:
        self._looker = looker
        self._spec = spec
        self._options = options
        self._roots = roots
        self._context = context
        self._comparison = Comparison(options.compare)
        self._paths = frozenset(root.path for root in roots)

    def chunks(self, base: Callable[[], Iterator[bytes]]) -> Iterator[bytes]:
        footer = self._read_footer(base())
        index = Writer(_place(self._context).keep, header(self._spec, self._roots))
        with closing(base()) as old:  # type: ignore[type-var]  # it is a generator
            survey = Survey(
                self._looker,
                Reader(old),
                index,
                self._paths,
                self._comparison,
                footer.doubts,
                self._with_files,
            )
            end = self._survey(survey)
            selection = self._selection(survey, end)
            self._complete(selection, base)
            roots = [
                root
                for root in self._roots
                if selection.leads_to(root.path) or root.path not in survey.found_roots
            ]
            yield from Archive(self._spec, roots, self._context, selection).chunks()
            survey.base.finish()
        selection.finish()
        self._context.findings.count("unchanged", survey.unchanged)
        index.finish(selection.doubts)

    @property
    def _with_files(self) -> bool:
        return self._options.renames == "all"

    @staticmethod
    def _read_footer(chunks: Iterator[bytes]) -> Footer:
        with closing(chunks):  # type: ignore[type-var]  # it is a generator
            footer = Reader(chunks).read_footer()
        if footer.all_in_doubt:
            raise SourceError("too much could not be read when the last copy was made")
        return footer

    def _survey(self, survey: Survey) -> bytes | None:
        """Walk the tree; returns the last directory when this ended early."""
        with closing(Archive(self._spec, self._roots, self._context, survey).survey()) as walk:  # type: ignore[type-var]
            for directory in walk:
                if survey.is_full():
                    survey.forget_moves()
                    return directory.path
        survey.base.finish()
        return None

    def _selection(self, survey: Survey, end: bytes | None) -> Selection:
        found, findings = Moves(), self._context.findings
        if self._comparison.inodes_are_made_up:
            findings.warn("the file system does not keep inodes: they were not compared")
        elif end is not None:
            findings.warn(_TOO_MUCH)
        else:
            found = find(survey, self._paths, self._options.renames)
        cuts = {root.path: root.cut for root in self._roots}
        return Selection(self._looker, survey, found, self._comparison, findings, cuts, end)

    @staticmethod
    def _complete(selection: Selection, base: Callable[[], Iterator[bytes]]) -> None:
        """Have all names of a file saved, or none."""
        inodes = partners.incomplete(selection.saved())
        if inodes:
            with closing(base()) as chunks:  # type: ignore[type-var]  # it is a generator
                for directory, name in selection.partners(inodes, Reader(chunks)):
                    selection.add(directory, name)
