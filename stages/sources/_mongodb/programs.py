"""mongodump and mongorestore."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pipeline.context import StageContext
from pipeline.errors import SourceError
from schemas.mongodb import MongodbSource
from stages._child import Child, Program, capture, locate
from stages.sources._mongodb import catalog
from stages.sources._mongodb.catalog import Choice
from stages.sources._mongodb.examine import Prelude, Units, prelude
from stages.sources._mongodb.link import Link, linked
from stages.sources._mongodb.login import config_file, connection_string

DUMP = "mongodump"
RESTORE = "mongorestore"


def version(name: str) -> str:
    """What a program says it is.

    Raises:
        SourceError: it is not installed.
    """
    path = locate(name, SourceError)
    said = capture(Program([path, "--version"]), StageContext(), SourceError)
    return said.decode(errors="replace").partition("\n")[0].strip()


def dumped(
    spec: MongodbSource, link: Link, databases: Sequence[str], context: StageContext
) -> Iterator[bytes]:
    """The output of mongodump.

    Args:
        link: for looking at what there is; the program connects by itself.
        databases: the one to dump, or all for a single archive.

    Raises:
        SourceError: it failed.
    """
    options = [f"--readPreference={spec.read_preference}"]
    options += [f"--numParallelCollections={spec.parallel}"] + ["--oplog"] * spec.oplog
    if spec.artifact == "per_database":
        options += [f"--db={databases[0]}", *_left_out(spec, link, databases[0])]
    context.findings.facts["client"] = version(DUMP)
    context.findings.count("databases", len(databases))
    with connection_string(spec) as uri, config_file(uri) as descriptor:
        command = [locate(DUMP, SourceError), f"--config=/dev/fd/{descriptor}", *options]
        program = Program([*command, "--archive"], pass_fds=[descriptor])
        with Child(program, context, SourceError) as child:
            yield from child.output()


def restored(
    spec: MongodbSource,
    database: str | None,
    chunks: Iterator[bytes],
    overwrite: bool,
    context: StageContext,
) -> None:
    """Feed an archive to mongorestore.

    Args:
        database: the name to restore to, for an archive of a single one; None: as it was called.
        overwrite: drop collections that are there first.

    Raises:
        SourceError: a collection is in the way, or the server did not take everything.
    """
    path = _restorer()
    kept: list[bytes] = []
    front = prelude(Units(_noted(chunks, kept)))
    if database is not None and len(front.databases) != 1:
        raise SourceError(
            f"the archive has {len(front.databases)} databases, and one name for them was given",
            "leave the name out of --to",
        )
    if not overwrite:
        _refuse_used(spec, front, database, context)
    options = ["--drop"] * overwrite + ["--oplogReplay"] * front.has_oplog
    if database is not None and database != front.databases[0]:
        options += ["--nsFrom=$database$.$collection$", f"--nsTo={database}.$collection$"]
    with connection_string(spec) as uri, config_file(uri) as descriptor:
        # It would go on after a document that the server refuses, and end well.
        command = [path, f"--config=/dev/fd/{descriptor}", "--archive", "--stopOnError"]
        program = Program([*command, *options], pass_fds=[descriptor])
        with Child(program, context, SourceError, feed=True) as child:
            for _ in child.output(_resumed(kept, chunks)):
                pass


def _restorer() -> str:
    try:
        return locate(RESTORE, SourceError)
    except SourceError as error:
        raise SourceError(error.message, "install it, or restore to a file") from None


def _left_out(spec: MongodbSource, link: Link, database: str) -> list[str]:
    """The program knows no patterns: what they leave out is named."""
    if not spec.exclude_collections:
        return []
    everything = Choice(spec.model_copy(update={"exclude_collections": []}))
    choice = Choice(spec)
    return [
        f"--excludeCollection={each.name}"
        for each in catalog.namespaces(link, database, everything)
        if not choice.takes(database, each.name)
    ]


def _refuse_used(
    spec: MongodbSource, front: Prelude, database: str | None, context: StageContext
) -> None:
    everything = Choice(MongodbSource(type="mongodb"))
    with linked(spec, context.teardown) as link:
        for source in front.databases:
            name = database or source
            there = {each.name for each in catalog.namespaces(link, name, everything)}
            wanted = {each.name for each in front.namespaces if each.database == source}
            if there & wanted:
                raise SourceError(
                    f'"{link.name}" has a collection "{name}.{min(there & wanted)}"',
                    "give --overwrite to replace it, or another name: mongodb://host/name",
                )


def _noted(chunks: Iterator[bytes], kept: list[bytes]) -> Iterator[bytes]:
    for chunk in chunks:
        kept.append(chunk)
        yield chunk


def _resumed(kept: list[bytes], rest: Iterator[bytes]) -> Iterator[bytes]:
    yield from kept
    kept.clear()
    yield from rest
