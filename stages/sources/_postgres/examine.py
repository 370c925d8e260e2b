"""Reads an artifact through and checks what its format lets one check."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from pipeline.context import StageContext
from pipeline.errors import SourceError
from stages.sources._files.untar import TarReader
from stages.sources._postgres.dump import CLUSTER_END, DUMP_END, MAGIC

_TAIL = 512
_LAST = b"after.sql"


def examine(chunks: Iterator[bytes], context: StageContext) -> str:
    """What the stream is; which format it has is told by how it begins.

    Raises:
        SourceError: it is not whole, or nothing that this source writes.
    """
    first = next(chunks, b"")
    whole = chain([first], chunks)
    if first.startswith(MAGIC):
        for _ in whole:
            context.teardown.check()
        return "a dump in the custom format"
    if first[257:262] == b"ustar":
        return _examine_export(whole, context)
    return _examine_sql(whole, context)


def _examine_sql(chunks: Iterator[bytes], context: StageContext) -> str:
    tail = b""
    for chunk in chunks:
        context.teardown.check()
        tail = (tail + chunk[-_TAIL:])[-_TAIL:]
    if CLUSTER_END in tail:
        return "a whole dump of roles and tablespaces"
    if DUMP_END in tail:
        return "a whole dump as SQL"
    raise SourceError("the dump lacks its end mark", "it was cut off")


def _examine_export(chunks: Iterator[bytes], context: StageContext) -> str:
    reader, last, tables = TarReader(chunks), b"", 0
    for member in reader:
        last = member.name
        tables += member.name.startswith(b"data/")
        for _ in reader.data():
            context.teardown.check()
    if last != _LAST:
        raise SourceError("the export lacks its last file", "it was cut off")
    return f"a whole export of {tables} tables"
