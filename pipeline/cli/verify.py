"""`verify`: reads backups back, undoes their stages, and proves digests and sizes."""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass, replace

from pipeline import catalog
from pipeline.branch import describe
from pipeline.catalog import Entry
from pipeline.cli.identity import identity
from pipeline.cli.interrupts import run_blocking
from pipeline.cli.listing import branches
from pipeline.cli.session import Session
from pipeline.context import StageContext, Teardown
from pipeline.errors import NxsError, UnknownName
from pipeline.graph import BranchPlan
from pipeline.malloc import settle
from pipeline.readback import blocked_by, inverses, plain_stream, stored_stream
from pipeline.series import chain


@dataclass
class Proof:
    """What reading one object back has shown."""

    storage: str
    path: str
    outcome: str
    """`proved`, `digest` (the stored bytes are right, no stage was undone) or `failed`."""
    detail: str


def run(options: argparse.Namespace) -> int:
    """Prove the backups; 3 when some could only be proved as stored."""
    settle()
    session = Session(options)
    options.identity = identity(options)
    proofs = run_blocking(lambda teardown: _verify(session, teardown))
    if options.json:
        session.print_json({"verified": [asdict(proof) for proof in proofs]})
    else:
        for proof in proofs:
            session.say(f"{proof.outcome:<7} {proof.storage}:{proof.path}  {proof.detail}")
    if any(proof.outcome == "failed" for proof in proofs):
        return 1
    return 3 if any(p.outcome == "digest" for p in proofs) and not options.digest_only else 0


def _verify(session: Session, teardown: Teardown) -> list[Proof]:
    proofs = []
    for name, branch in branches(session):
        try:
            broken: list[str] = []
            found = catalog.read(branch.storage, branch.name, name, broken)
            entries = catalog.at(found, session.options.at)
        except NxsError as error:
            proofs.append(Proof(branch.name, name, "failed", describe(error)))
            continue
        for path in broken:
            where = path.partition(":")[2]
            proofs.append(Proof(branch.name, where, "failed", "the manifest cannot be read"))
        if not entries:
            proofs.append(Proof(branch.name, name, "failed", "there is no backup to verify"))
        for entry in entries:
            proof = _prove(session, branch, entry, teardown)
            if chain(entry, found) is None and proof.outcome != "failed":
                missing = "something that it builds on is missing or damaged"
                proof = replace(proof, outcome="failed", detail=missing)
            proofs.append(proof)
    session.storages.close()
    if not proofs:
        raise UnknownName("there is no backup to verify")
    return proofs


def _prove(session: Session, branch: BranchPlan, entry: Entry, teardown: Teardown) -> Proof:
    teardown.check()
    context = StageContext(teardown)
    try:
        outcome, detail = _read_through(session, branch, entry, context)
    except NxsError as error:
        outcome, detail = "failed", describe(error)
    return Proof(entry.storage, entry.path, outcome, detail)


def _read_through(
    session: Session, branch: BranchPlan, entry: Entry, context: StageContext
) -> tuple[str, str]:
    manifest = entry.manifest
    transforms = inverses(
        manifest, session.pipeline.backup(manifest.backup), session.options.identity
    )
    blocked = "by request" if session.options.digest_only else blocked_by(transforms)
    if blocked:
        with stored_stream(branch.storage, entry) as chunks:
            for _ in chunks:
                context.teardown.check()
        return "digest", f"stored bytes are right; not undone: {blocked}"
    source = session.plan(manifest.backup).source
    with plain_stream(branch.storage, entry, transforms, context) as chunks:
        facts = source.examine(chunks, context)
    return "proved", f"{manifest.plain_size} bytes{', ' + facts if facts else ''}"
