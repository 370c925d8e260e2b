"""`check`: is the configuration right, with `--connect`, would a run work, and with `--notify`,
does a message arrive?
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain

import anyio

from pipeline.branch import describe
from pipeline.cli.interrupts import run_blocking
from pipeline.cli.session import Session
from pipeline.context import Teardown
from pipeline.errors import NxsError, StorageDenied
from pipeline.graph import BranchPlan, Plan
from pipeline.notify import send_test
from pipeline.report import format_size
from pipeline.stage import Storage
from pipeline.tryout import ROTATION_NEEDS, try_out
from schemas.notifiers import NotifierSpec
from schemas.pipeline import Pipeline


@dataclass(frozen=True)
class Probe:
    """One thing to try."""

    what: str
    required: bool
    """Whether a run fails without it."""
    facts: Callable[[], Sequence[str]]


def run(options: argparse.Namespace) -> int:
    """Check, and report; returns the exit code."""
    session = Session(options)
    plans = [session.plan(name) for name in session.pipeline.backups]
    if options.connect or options.notify:
        return run_blocking(lambda teardown: _try_all(session, plans, teardown))
    for plan in plans:
        storages = ", ".join(branch.name for branch in plan.branches)
        session.say(
            f"{plan.backup}: {plan.source_type} to {storages}, "
            f"memory at most {format_size(plan.ceiling())}"
        )
    session.say(f"{options.file}: ok")
    return 0


def _try_all(session: Session, plans: list[Plan], teardown: Teardown) -> int:
    """Try and report everything: 1 when a needed part fails, 3 when an optional one does."""
    code = 0
    tried: dict[str, bool] = {}
    probes = chain(
        _probes(plans) if session.options.connect else (),
        _notifier_probes(session.pipeline) if session.options.notify else (),
    )
    for probe in probes:
        teardown.check()
        if probe.what not in tried:
            tried[probe.what] = _try(session, probe)
        if not tried[probe.what]:
            code = 1 if probe.required or code == 1 else 3
    session.storages.close()
    return code


def _probes(plans: list[Plan]) -> Iterator[Probe]:
    rotating = {edge.name for plan in plans for edge in plan.branches if edge.rotate}
    for plan in plans:
        backup = f"backup {plan.backup}"
        yield Probe(f"{backup}: source {plan.source_type}", True, plan.source.probe)
        for node in plan.stages:
            yield Probe(f"{backup}: stage {node.name}", True, node.transform.probe)
        for branch in plan.branches:
            for node in branch.stages:
                what = f"{backup}: stage {node.name} of {branch.name}"
                yield Probe(what, branch.required, node.transform.probe)
            yield _storage_probe(branch, branch.name in rotating)


def _notifier_probes(pipeline: Pipeline) -> Iterator[Probe]:
    """A test message through each notifier; a backup never fails for want of one."""
    for name, spec in pipeline.notifiers.items():
        yield Probe(f"notifier {name}", False, partial(_send_test, spec, pipeline))


def _send_test(spec: NotifierSpec, pipeline: Pipeline) -> Sequence[str]:
    anyio.run(send_test, spec, pipeline.name, pipeline.host)
    return ["a test message was sent"]


def _storage_probe(branch: BranchPlan, rotates: bool) -> Probe:
    return Probe(
        f"storage {branch.name}",
        branch.required,
        lambda: facts_of_storage(branch.storage, rotates),
    )


def facts_of_storage(storage: Storage, rotates: bool) -> Sequence[str]:
    """What a storage is, and what may be done there.

    Raises:
        StorageError: it cannot be written, or not be rotated where that is asked for.
    """
    facts = storage.probe()
    rights = try_out(storage)
    for what, why in rights.denied.items():
        if rotates and what in ROTATION_NEEDS:
            hint = "rotate needs that; permit it, or leave rotate out"
            raise StorageDenied(f"objects cannot be {what}: {why}", hint)
    return [*facts, *rights.facts()]


def _try(session: Session, probe: Probe) -> bool:
    try:
        facts = probe.facts()
    except NxsError as error:
        session.say(f"failed  {probe.what}: {describe(error)}")
        return False
    session.say(f"ok      {probe.what}")
    for fact in facts:
        session.say(f"          {fact}")
    return True
