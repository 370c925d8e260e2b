"""`run`: the backups, with logs and live progress on stderr and the report on stdout."""

from __future__ import annotations

import argparse
import sys
from functools import partial

from pipeline.cli.interrupts import run_interruptibly
from pipeline.cli.screen import Lines, Outlet, Screen
from pipeline.cli.session import Session, log_level, wants_color
from pipeline.events import EventBus
from pipeline.logs import log_subscriber
from pipeline.malloc import Trimmer
from pipeline.report import RunReport
from pipeline.runner import Runner


def run(options: argparse.Namespace) -> int:
    """Run the backups; returns the exit code."""
    session = Session(options)
    if options.dry_run:
        from pipeline.cli.plan import dry_run

        return dry_run(session)
    return _run(session)


def _run(session: Session) -> int:
    options = session.options
    is_terminal = sys.stderr.isatty() and options.log_format == "text"
    outlet = Outlet(sys.stderr.fileno())
    screen = Screen(outlet) if is_terminal and not options.quiet else None
    log = log_subscriber(
        screen or Lines(outlet),
        options.log_format,
        log_level(options),
        wants_color(options, is_terminal),
        session.redactor,
    )
    bus = EventBus(Trimmer(), log, redactor=session.redactor)
    if screen is not None:
        bus.subscribe(screen.show)
    modules = session.loaded.extensions.files
    runner = Runner(session.pipeline, bus, options.parallel, modules=modules)
    work = partial(runner.run, session.chosen(options.backup))
    try:
        report: RunReport = run_interruptibly(work, runner.interrupt)
    finally:
        if screen is not None:
            screen.close()
        outlet.close()
    if options.json:
        session.print_json(report.to_dict())
    elif not options.quiet:
        print(report.summary())
    return report.outcome.exit_code
