"""`restore`: storage, decrypt, decompress, target."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline import catalog
from pipeline.branch import describe
from pipeline.catalog import Entry
from pipeline.cli.identity import identity
from pipeline.cli.interrupts import run_blocking
from pipeline.cli.listing import branches
from pipeline.cli.session import Session
from pipeline.context import StageContext, Teardown
from pipeline.errors import NxsError, StorageError, UnknownName
from pipeline.malloc import settle
from pipeline.naming import format_stamp
from pipeline.readback import blocked_by, inverses, plain_stream
from pipeline.series import chain
from pipeline.shards import copy_of, incomplete, newest, subject
from pipeline.stage import Artifact, Shard, Source, Storage, Transform

_MANY = 20


def run(options: argparse.Namespace) -> int:
    """Restore; returns the exit code."""
    settle()
    session = Session(options)
    options.identity = identity(options)
    return run_blocking(lambda teardown: _restore(session, teardown))


def _restore(session: Session, teardown: Teardown) -> int:
    chosen = _choose(session)
    if session.options.stdout and len(chosen) > 1:
        names = ", ".join(sorted(chosen))
        raise UnknownName("--stdout takes one artifact", f"choose one with --artifact: {names}")
    if len(chosen) > 1 and "://" not in session.options.to:
        _make_directory(Path(session.options.to))
    exact = [
        _restore_artifact(session, copies, StageContext(teardown)) for copies in chosen.values()
    ]
    session.storages.close()
    return 0 if all(exact) else 3


def _make_directory(path: Path) -> None:
    """Where several artifacts go, each under its own name."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise NxsError(
            f'"{path}" cannot be made: {(error.strerror or "").lower()}',
            "several artifacts need a directory",
        ) from error


@dataclass(frozen=True)
class Found:
    """One backup of an artifact on one storage."""

    storage: Storage
    entry: Entry
    chain: list[Entry] | None
    """What it is restored from, the full copy first and itself last; None: it is incomplete."""

    @property
    def damage(self) -> str | None:
        broken = "something that it builds on is missing or damaged"
        return self.entry.damage or (broken if self.chain is None else None)


def _choose(session: Session) -> dict[str, list[Found]]:
    """For each artifact the copies that fit `--at`, in the order to try them.

    Raises:
        NxsError: nothing fits.
    """
    options = session.options
    found: list[Found] = []
    stored = list(_stored(session))
    broken = incomplete(entry for _, entries in stored for entry in entries)
    for of, moment in broken:
        what = f'"{of}" of {format_stamp(moment)}'
        session.complain(f"warning: {what} is not used: shards of it are missing or damaged")
    for storage, entries in stored:
        whole = [entry for entry in entries if copy_of(entry) not in broken]
        for entry in catalog.at(whole, options.at):
            if options.artifact in (None, entry.manifest.artifact, subject(entry)):
                found.append(Found(storage, entry, chain(entry, entries)))
    if not found:
        raise UnknownName("there is no such backup to restore", "see what `list` shows")
    return by_artifact(found, session.plan(options.backup).source)


def _stored(session: Session) -> Iterator[tuple[Storage, list[Entry]]]:
    """What each storage that answers has of the chosen host."""
    for name, branch in branches(session):
        try:
            written = catalog.read(branch.storage, branch.name, name)
            yield branch.storage, _of_host(session, written)
        except NxsError as error:
            session.complain(f"warning: storage {branch.name}: {describe(error)}")


def _of_host(session: Session, entries: list[Entry]) -> list[Entry]:
    """Those of the chosen host; of this one when none is chosen.

    Raises:
        NxsError: there are only backups of other hosts, and nobody said which is meant.
    """
    host = session.options.host or session.pipeline.host
    mine = [entry for entry in entries if entry.is_of(session.pipeline.name, host)]
    others = sorted({entry.manifest.host for entry in entries} - {host})
    if others and not mine and session.options.host is None:
        raise NxsError(
            f'there is no backup of host "{host}"', f"choose one with --host: {', '.join(others)}"
        )
    return mine


def by_artifact(found: list[Found], source: Source) -> dict[str, list[Found]]:
    """The copies of the newest backup of each, whole ones first, else in the order of the fan-out.

    The artifacts are in the order in which the source wants them back.
    """
    chosen = {id(entry) for entry in newest(copy.entry for copy in found)}
    copies: dict[str, list[Found]] = {}
    for copy in sorted(found, key=lambda copy: copy.damage is not None):
        if id(copy.entry) in chosen:
            copies.setdefault(copy.entry.manifest.artifact, []).append(copy)
    order = sorted(copies, key=lambda name: (name in source.last) - (name in source.first))
    return {name: copies[name] for name in order}


def _restore_artifact(session: Session, copies: list[Found], context: StageContext) -> bool:
    """Try the copies in order; once output has begun there is no second try.

    Returns:
        Whether everything is exactly as it was.
    """
    for position, copy in enumerate(copies):
        steps = copy.chain or [copy.entry]
        _refuse_chain_to_stdout(session, steps)
        undo = [_inverses(session, step) for step in steps]
        with ExitStack() as stack:
            try:
                if copy.damage:
                    raise StorageError(f'"{copy.entry.path}" is damaged: {copy.damage}')
                chunks = stack.enter_context(_begun(copy.storage, steps[0], undo[0], context))
            except NxsError as error:
                if position + 1 == len(copies):
                    raise
                session.complain(f"warning: storage {copy.entry.storage}: {describe(error)}")
                continue
            exact = _deliver(session, steps[0], chunks, context)
        for step, transforms in zip(steps[1:], undo[1:], strict=True):
            with _begun(copy.storage, step, transforms, context) as chunks:
                exact = _deliver(session, step, chunks, context) and exact
        return exact
    raise AssertionError("there is at least one copy, and the last one returns or raises")


def _refuse_chain_to_stdout(session: Session, steps: list[Entry]) -> None:
    if session.options.stdout and len(steps) > 1:
        raise NxsError(
            f'"{steps[-1].path}" is an increment, and --stdout gives one archive',
            "give --to; or see `restore` in its manifest for the line that does it with tar",
        )


def _inverses(session: Session, entry: Entry) -> list[Transform]:
    backup = session.pipeline.backup(entry.manifest.backup)
    transforms = inverses(entry.manifest, backup, session.options.identity)
    blocked = blocked_by(transforms)
    if blocked:
        raise NxsError(f'"{entry.path}" cannot be undone here: {blocked}', "give --identity")
    return transforms


@contextmanager
def _begun(
    storage: Storage, entry: Entry, transforms: list[Transform], context: StageContext
) -> Iterator[Iterator[bytes]]:
    """The plain stream of an entry, whose first chunk was seen to arrive."""
    with plain_stream(storage, entry, transforms, context) as chunks:
        first = next(chunks, b"")
        yield _resume(first, chunks, context)


def _resume(first: bytes, rest: Iterator[bytes], context: StageContext) -> Iterator[bytes]:
    """The stream again, with the chunk that was taken to see whether it works."""
    if first:
        yield first
    for chunk in rest:
        context.teardown.check()
        yield chunk


def _deliver(
    session: Session, entry: Entry, chunks: Iterator[bytes], context: StageContext
) -> bool:
    options, manifest = session.options, entry.manifest
    if options.stdout:
        for chunk in chunks:
            sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()
        return True
    problems = _bring_back(session, entry, chunks, context)
    for problem in problems[:_MANY]:
        session.complain(f"warning: {problem}")
    if len(problems) > _MANY:
        session.complain(f"warning: and {len(problems) - _MANY} more")
    taken = f"{manifest.artifact} of {manifest.host}, {format_stamp(manifest.taken_at)}"
    session.complain(f"restored {taken}, from {entry.storage} to {options.to}")
    return not problems


def _bring_back(
    session: Session, entry: Entry, chunks: Iterator[bytes], context: StageContext
) -> Sequence[str]:
    manifest, to, overwrite = entry.manifest, session.options.to, session.options.overwrite
    source = session.plan(manifest.backup).source
    shard = Shard(**manifest.shard.model_dump()) if manifest.shard else None
    artifact = Artifact(manifest.artifact, manifest.suffix, shard=shard)
    if manifest.parent is not None:
        return source.apply(chunks, artifact, Path(to))
    if "://" in to:
        return source.load(chunks, artifact, to, overwrite, context)
    return source.restore(chunks, artifact, Path(to), overwrite)
