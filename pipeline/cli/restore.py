"""`restore`: storage, decrypt, decompress, target."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from pipeline import catalog
from pipeline.branch import describe
from pipeline.catalog import Entry
from pipeline.cli.interrupts import run_blocking
from pipeline.cli.listing import branches
from pipeline.cli.session import Session
from pipeline.context import StageContext, Teardown
from pipeline.errors import NxsError, UnknownName
from pipeline.naming import format_stamp
from pipeline.readback import blocked_by, inverses, plain_stream
from pipeline.stage import Artifact, Storage

_MANY = 20


def run(options: argparse.Namespace) -> int:
    """Restore; returns the exit code."""
    session = Session(options)
    return run_blocking(lambda teardown: _restore(session, teardown))


def _restore(session: Session, teardown: Teardown) -> int:
    chosen = _choose(session)
    if session.options.stdout and len(chosen) > 1:
        names = ", ".join(sorted(chosen))
        raise UnknownName("--stdout takes one artifact", f"choose one with --artifact: {names}")
    exact = [
        _restore_artifact(session, copies, StageContext(teardown)) for copies in chosen.values()
    ]
    session.storages.close()
    return 0 if all(exact) else 3


def _choose(session: Session) -> dict[str, list[tuple[Storage, Entry]]]:
    """For each artifact the copies that fit `--at`, in the order to try them.

    Raises:
        NxsError: nothing fits.
    """
    options = session.options
    found: dict[str, list[tuple[Storage, Entry]]] = {}
    errors = []
    for name, branch in branches(session):
        try:
            written = catalog.read(branch.storage, branch.name, name)
            entries = catalog.at(_of_host(session, written), options.at)
        except NxsError as error:
            errors.append(f"storage {branch.name}: {describe(error)}")
            continue
        for entry in entries:
            found.setdefault(entry.manifest.artifact, []).append((branch.storage, entry))
    for line in errors:
        session.complain(f"warning: {line}")
    if options.artifact is not None:
        found = {name: copies for name, copies in found.items() if name == options.artifact}
    if not found:
        raise UnknownName("there is no such backup to restore", "see what `list` shows")
    return {name: _newest_first(copies) for name, copies in found.items()}


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


def _newest_first(copies: list[tuple[Storage, Entry]]) -> list[tuple[Storage, Entry]]:
    """The copies of the newest backup, whole ones first, else in the order of the fan-out."""
    newest = max(entry.manifest.taken_at for _, entry in copies)
    same = [copy for copy in copies if copy[1].manifest.taken_at == newest]
    return sorted(same, key=lambda copy: copy[1].damage is not None)


def _restore_artifact(
    session: Session, copies: list[tuple[Storage, Entry]], context: StageContext
) -> bool:
    """Try the copies in order; once output has begun there is no second try.

    Returns:
        Whether everything is exactly as it was.
    """
    for position, (storage, entry) in enumerate(copies):
        transforms = inverses(
            entry.manifest, session.pipeline.backup(entry.manifest.backup), session.options.identity
        )
        blocked = blocked_by(transforms)
        if blocked:
            raise NxsError(f'"{entry.path}" cannot be undone here: {blocked}', "give --identity")
        with plain_stream(storage, entry, transforms, context) as chunks:
            try:
                first = next(chunks, b"")
            except NxsError as error:
                if position + 1 == len(copies):
                    raise
                session.complain(f"warning: storage {entry.storage}: {describe(error)}")
                continue
            return _deliver(session, entry, _resume(first, chunks, context))
    raise AssertionError("there is at least one copy, and the last one returns or raises")


def _resume(first: bytes, rest: Iterator[bytes], context: StageContext) -> Iterator[bytes]:
    """The stream again, with the chunk that was taken to see whether it works."""
    if first:
        yield first
    for chunk in rest:
        context.teardown.check()
        yield chunk


def _deliver(session: Session, entry: Entry, chunks: Iterator[bytes]) -> bool:
    options, manifest = session.options, entry.manifest
    if options.stdout:
        for chunk in chunks:
            sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()
        return True
    source = session.plan(manifest.backup).source
    artifact = Artifact(manifest.artifact, manifest.suffix)
    problems = source.restore(chunks, artifact, Path(options.to), options.overwrite)
    for problem in problems[:_MANY]:
        session.complain(f"warning: {problem}")
    if len(problems) > _MANY:
        session.complain(f"warning: and {len(problems) - _MANY} more")
    taken = f"{manifest.artifact} of {manifest.host}, {format_stamp(manifest.taken_at)}"
    session.complain(f"restored {taken}, from {entry.storage} to {options.to}")
    return not problems
