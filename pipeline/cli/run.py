"""`run`: the backups, with logs and live progress on stderr and the report on stdout."""

from __future__ import annotations

import argparse
from functools import partial

from pipeline.cli import ci
from pipeline.cli.console import Console
from pipeline.cli.interrupts import run_interruptibly
from pipeline.cli.session import Session
from pipeline.events import EventBus
from pipeline.log_targets import Logs
from pipeline.malloc import Trimmer
from pipeline.redact import printable
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
    names = session.chosen(options.backup)
    bus = EventBus(Trimmer(), redactor=session.redactor)
    spec = session.pipeline.log
    with session.opening_log():
        logs = Logs(spec, session.pipeline.host, bus)
    console = Console(options, bus, session.ci, spec is not None and spec.journald)
    modules = session.loaded.extensions.files
    runner = Runner(session.pipeline, bus, options.parallel, modules=modules)
    work = partial(runner.run, names)
    try:
        report = run_interruptibly(work, runner.interrupt, logs.reopen if logs.has_file else None)
    finally:
        logs.close()
        console.close()
    if session.ci is not None:
        _tell(session.ci, report, session)
    if options.json:
        session.print_json(report.to_dict())
    elif not options.quiet:
        text = "\n".join(map(printable, report.summary().split("\n")))
        print(ci.harmless(text) if session.ci else text)
    return report.outcome.exit_code


def _tell(service: ci.Ci, report: RunReport, session: Session) -> None:
    """What continuous integration shows of a run; nothing of it can fail the run."""
    for finding in ci.findings_of(report):
        session.annotate(*finding)
    try:
        service.summarize(report)
    except OSError as error:
        reason = (error.strerror or "").lower()
        session.complain(f"warning: the summary of the job cannot be written: {reason}")
