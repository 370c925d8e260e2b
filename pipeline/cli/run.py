"""`run`: the backups, with logs and live progress on stderr and the report on stdout."""

from __future__ import annotations

import argparse
import sys
from functools import partial

import anyio

from pipeline.cli.interrupts import interruptible
from pipeline.cli.screen import Lines, Screen
from pipeline.cli.session import Session, log_level, wants_color
from pipeline.events import EventBus
from pipeline.logs import log_subscriber
from pipeline.report import RunReport
from pipeline.runner import Runner


def run(options: argparse.Namespace) -> int:
    """Run the backups; returns the exit code."""
    session = Session(options)
    if options.dry_run:
        from pipeline.cli.dry_run import dry_run

        return dry_run(session)
    return _run(session)


def _run(session: Session) -> int:
    options = session.options
    is_terminal = sys.stderr.isatty() and options.log_format == "text"
    screen = Screen(sys.stderr) if is_terminal and not options.quiet else None
    log = log_subscriber(
        screen or Lines(sys.stderr),
        options.log_format,
        log_level(options),
        wants_color(options, is_terminal),
        session.redactor,
    )
    bus = EventBus(log, redactor=session.redactor)
    if screen is not None:
        bus.subscribe(screen.show)
    runner = Runner(session.pipeline, bus, options.parallel)
    work = partial(runner.run, session.chosen(options.backup))
    try:
        report: RunReport = anyio.run(interruptible, work, runner.interrupt)
    finally:
        if screen is not None:
            screen.close()
    if options.json:
        session.print_json(report.to_dict())
    elif not options.quiet:
        print(report.summary())
    return report.outcome.exit_code
