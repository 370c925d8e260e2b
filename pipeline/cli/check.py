"""`check`: is the configuration right, with `--connect`, would a run work, and with `--notify`,
does a message arrive?
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain

import anyio

from pipeline import catalog, export
from pipeline._logs.file import try_out as try_file
from pipeline.branch import describe
from pipeline.cli.interrupts import run_blocking
from pipeline.cli.session import Session
from pipeline.context import Teardown
from pipeline.errors import NxsError, StorageDenied
from pipeline.graph import BranchPlan, Plan
from pipeline.notify import send_test
from pipeline.report import format_size
from pipeline.review import expected_size, refuse_too_large, review
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
    _try_log(session)
    plans = [session.plan(name) for name in session.pipeline.backups]
    problems = review(session.loaded, plans)
    for problem in problems:
        session.complain(str(problem))
    fails = any(problem.severity == "error" for problem in problems)
    if options.connect or options.notify:
        code = run_blocking(lambda teardown: _try_all(session, plans, teardown))
        return 1 if fails else code
    for plan in plans:
        storages = ", ".join(branch.name for branch in plan.branches)
        session.say(
            f"{plan.backup}: {plan.source_type} to {storages}, "
            f"memory at most {format_size(plan.ceiling())}"
        )
    session.say(f"{options.file}: " + ("a run would fail here" if fails else "ok"))
    return 1 if fails else 0


def _try_log(session: Session) -> None:
    if session.pipeline.log and session.pipeline.log.file:
        with session.opening_log():
            try_file(session.pipeline.log.file)


def _try_all(session: Session, plans: list[Plan], teardown: Teardown) -> int:
    """Try and report everything: 1 when a needed part fails, 3 when an optional one does."""
    code = 0
    tried: dict[str, bool] = {}
    probes = chain(
        _probes(plans) if session.options.connect else (),
        _size_probes(session, plans) if session.options.connect else (),
        _exporter_probes(session.pipeline) if session.options.connect else (),
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


def _exporter_probes(pipeline: Pipeline) -> Iterator[Probe]:
    """Where metrics and traces go; a backup never fails for want of that."""
    for name, timeout in export.configured(pipeline):
        facts = partial(anyio.run, export.probe, pipeline, name, timeout)
        yield Probe(name.replace("_", " "), False, facts)


def _size_probes(session: Session, plans: list[Plan]) -> Iterator[Probe]:
    """Whether what there is already would still fit, where a storage has a limit."""
    for plan in plans:
        if any(branch.storage.max_object_size is not None for branch in plan.branches):
            yield Probe(f"backup {plan.backup}: sizes", True, partial(_sizes, session, plan))


def _sizes(session: Session, plan: Plan) -> Sequence[str]:
    owner = (session.pipeline.name, session.pipeline.host)
    entries: list[catalog.Entry] = []
    for branch in plan.branches:
        with suppress(StorageDenied):  # Who may only write learns nothing of what is there.
            found = catalog.read(branch.storage, branch.name, plan.backup)
            entries += [entry for entry in found if entry.is_of(*owner)]
    expected = expected_size(session.loaded, plan, entries)
    for branch in plan.branches:
        refuse_too_large(branch, expected)
    if expected is None:
        return ["no copy is known, and no expected_size"]
    return [f"objects of {format_size(expected)} are expected"]


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
        session.annotate("error" if probe.required else "warning", probe.what, describe(error))
        return False
    session.say(f"ok      {probe.what}")
    for fact in facts:
        session.say(f"          {fact}")
    return True
