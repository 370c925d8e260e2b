"""Runs whose metrics and traces go where a test wants them."""

from __future__ import annotations

import itertools
from datetime import timedelta
from pathlib import Path

import anyio
from prometheus_client.parser import text_string_to_metric_families

from pipeline.events import Event, EventBus
from pipeline.metrics import PREFIX
from pipeline.report import RunReport
from pipeline.runner import Runner, utc_now
from schemas.load import load
from tests.servers.prometheus import PASSWORD, Series

CONFIGURATION = """\
name: shop
host: web 1/2
storages:
  nas: {{type: memory, path: exporters}}
  other: {{type: memory, path: exporters-2}}
{more}
backups:
  db:
    source: {{type: command, name: {name}, command: [sh, -c, "{program}"]}}
    stages: [{{type: zstd}}]
    fan_out: [{{storage: nas}}, {{storage: other}}]
  www:
    source: {{type: command, command: [echo, x]}}
    fan_out: [{{storage: nas}}]
"""
DB = {"project": "shop", "host": "web 1/2", "backup": "db"}


class Configuration:
    """A file whose section of metrics or traces is given."""

    def __init__(self, tmp_path: Path) -> None:
        self.path = tmp_path / "pipeline.yaml"
        self.events: list[Event] = []

    def run(self, more: str, *backups: str, **program: str) -> RunReport:
        self.write(more, **program)
        loaded = load(self.path, {"PASSWORD": PASSWORD})
        bus = EventBus(self.events.append)
        # Each look at the clock finds a new second: no run has to wait for one to pass.
        seconds = itertools.count()
        now = utc_now()
        clock = lambda: now + timedelta(seconds=next(seconds))  # noqa: E731
        return anyio.run(Runner(loaded.pipeline, bus, clock=clock).run, backups)

    def write(self, more: str, program: str = "echo data", name: str = "db") -> None:
        self.path.write_text(CONFIGURATION.format(more=more, program=program, name=name))
        self.path.chmod(0o600)


def read(path: Path) -> dict[Series, float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(path.read_text())
        for sample in family.samples
    }


def value(samples: dict[Series, float], name: str, **labels: str) -> float | None:
    wanted = set(labels.items())
    found = [number for (metric, have), number in samples.items()
             if metric == f"{PREFIX}{name}" and wanted <= have]  # fmt: skip
    assert len(found) <= 1
    return found[0] if found else None
