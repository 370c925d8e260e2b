"""Sends the trace of a run to a collector of OpenTelemetry: OTLP over HTTP, as JSON.

Protocol: https://opentelemetry.io/docs/specs/otlp/#otlphttp.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from pipeline.errors import NotifierError
from pipeline.report import RunReport
from pipeline.stage import Exporter
from pipeline.traces import trace
from schemas.pipeline import Pipeline
from stages.exporters._service import client

_PATH = "/v1/traces"


class Traces(Exporter):
    """One request for a run, with all its spans."""

    def __init__(self, pipeline: Pipeline) -> None:
        assert pipeline.traces is not None
        self._spec = pipeline.traces
        self._http = client(self._spec, self._spec.endpoint)

    async def export(self, report: RunReport) -> None:
        await self._send(trace(report, self._spec.attributes))

    async def probe(self) -> Sequence[str]:
        await self._send({"resourceSpans": []})
        return ["the collector takes traces"]

    async def _send(self, document: dict[str, Any]) -> None:
        address = self._spec.endpoint.get_secret_value()
        is_whole = urlsplit(address).path.endswith(_PATH)
        answer = await self._http.send(
            address,
            document,
            tail="" if is_whole else _PATH,
            headers={name: value.get_secret_value() for name, value in self._spec.headers.items()},
        )
        rejected = _rejected(answer)
        if rejected:
            raise NotifierError(f"the collector rejected {rejected} spans", "see its log")


def _rejected(answer: Any) -> int:
    """How many spans an `ExportTraceServiceResponse` says were not taken."""
    partial = answer.get("partialSuccess") if isinstance(answer, dict) else None
    number = partial.get("rejectedSpans", 0) if isinstance(partial, dict) else 0
    return int(number) if str(number).isdecimal() else 0


COMPONENT = Traces
