"""Tells monitoring systems about a run when it has ended: metrics and traces.

As with notifiers, whatever goes wrong is a line of the report and an event, and never changes the
outcome of a run; each exporter has a short deadline.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import anyio

from pipeline import registry
from pipeline.errors import NxsError
from pipeline.events import EventBus, ExportFailed
from pipeline.report import RunReport
from pipeline.segment import run_in_thread
from pipeline.stage import Exporter
from schemas.pipeline import Pipeline

FILE_TIMEOUT = 5.0
"""Seconds that a file may take: its directory may be on a file system that hangs."""
_GRACE = 0.5
"""The exporter has the same deadline, and more to say about it."""


def configured(pipeline: Pipeline) -> Iterator[tuple[str, float]]:
    """Each exporter that the configuration asks for, with its deadline in seconds."""
    metrics = pipeline.metrics
    if metrics is not None and metrics.file is not None:
        yield "metrics_file", FILE_TIMEOUT
    if metrics is not None and metrics.pushgateway is not None:
        yield "pushgateway", metrics.pushgateway.timeout
    if pipeline.traces is not None:
        yield "traces", pipeline.traces.timeout


async def export(pipeline: Pipeline, report: RunReport, bus: EventBus) -> None:
    """Tell all exporters at once; failures go into the report."""
    async with anyio.create_task_group() as group:
        for name, timeout in configured(pipeline):
            group.start_soon(_export, pipeline, name, timeout, report, bus)


async def _export(
    pipeline: Pipeline, name: str, timeout: float, report: RunReport, bus: EventBus
) -> None:
    error = f"not told within {timeout:g} s"
    with anyio.move_on_after(timeout + _GRACE):
        try:
            exporter = await _made(name, pipeline)
            await exporter.export(report)
            return
        except NxsError as failure:
            error = str(failure)
        except Exception as failure:
            # Only our own errors say nothing that may be secret.
            error = f"failed with {type(failure).__name__}"
    report.notifications.append(f"{name}: {error}")
    bus.emit(ExportFailed(name, error))


async def probe(pipeline: Pipeline, name: str, timeout: float) -> Sequence[str]:
    """Try one exporter, for `check --connect`.

    Raises:
        NxsError: it would not work.
    """
    with anyio.move_on_after(timeout + _GRACE):
        exporter = await _made(name, pipeline)
        return await exporter.probe()
    raise NxsError(f"no answer within {timeout:g} s")


async def _made(name: str, pipeline: Pipeline) -> Exporter:
    """The exporter; made in a thread, as some bring large libraries along."""
    make = partial(registry.make_exporter, name, pipeline)
    return await run_in_thread("exporter", make, grace=0)
