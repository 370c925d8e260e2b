"""`check`: is the configuration right, and with `--connect`, would a run work?"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence

from pipeline.branch import describe
from pipeline.cli.interrupts import run_blocking
from pipeline.cli.session import Session
from pipeline.context import Teardown
from pipeline.errors import NxsError
from pipeline.graph import Plan
from pipeline.report import format_size

Probe = tuple[str, bool, Callable[[], Sequence[str]]]
"""What is tried, whether a run needs it, and how."""


def run(options: argparse.Namespace) -> int:
    """Check, and report; returns the exit code."""
    session = Session(options)
    plans = [session.plan(name) for name in session.pipeline.backups]
    if options.connect:
        return run_blocking(lambda teardown: _connect(session, plans, teardown))
    for plan in plans:
        storages = ", ".join(branch.name for branch in plan.branches)
        session.say(
            f"{plan.backup}: {plan.source_type} to {storages}, "
            f"memory at most {format_size(plan.ceiling())}"
        )
    session.say(f"{options.file}: ok")
    return 0


def _connect(session: Session, plans: list[Plan], teardown: Teardown) -> int:
    """Try and report everything: 1 when a needed part fails, 3 when an optional one does."""
    code = 0
    tried: dict[str, bool] = {}
    for plan in plans:
        for what, required, probe in _probes(plan):
            teardown.check()
            if what not in tried:
                tried[what] = _try(session, what, probe)
            if not tried[what]:
                code = 1 if required or code == 1 else 3
    session.storages.close()
    return code


def _probes(plan: Plan) -> Iterator[Probe]:
    yield f"backup {plan.backup}: source {plan.source_type}", True, plan.source.probe
    for node in plan.stages:
        yield f"backup {plan.backup}: stage {node.name}", True, node.transform.probe
    for branch in plan.branches:
        for node in branch.stages:
            what = f"backup {plan.backup}: stage {node.name} of {branch.name}"
            yield what, branch.required, node.transform.probe
        yield f"storage {branch.name}", branch.required, branch.storage.probe


def _try(session: Session, what: str, probe: Callable[[], Sequence[str]]) -> bool:
    try:
        facts = probe()
    except NxsError as error:
        session.say(f"failed  {what}: {describe(error)}")
        return False
    session.say(f"ok      {what}")
    for fact in facts:
        session.say(f"          {fact}")
    return True
