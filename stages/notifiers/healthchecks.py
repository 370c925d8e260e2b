"""Pings Healthchecks: its hosted service, or one of one's own.

Format: https://healthchecks.io/docs/http_api/.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from pipeline.events import Event, RunStarted
from pipeline.report import Outcome, RunReport
from pipeline.stage import Notifier
from schemas.notifiers import HealthchecksNotifier
from stages.notifiers._http import Http
from stages.notifiers._text import event_line, pieces, utf8_bytes

_LIMIT = 100_000
"""Bytes of a ping's body; the service drops what comes after."""


class Healthchecks(Notifier):
    """Start, success or failure of a run, with its report; a locked run is only logged."""

    def __init__(self, spec: HealthchecksNotifier) -> None:
        self._url = spec.url.get_secret_value()
        self._http = Http(spec)
        self._tails = {
            Outcome.OK: "",
            Outcome.PARTIAL: "" if spec.partial == "success" else "/fail",
            Outcome.LOCKED: "/log",  # the run that holds the lock will tell its own end
        }

    async def reach(self) -> None:
        await self._http.reach(self._url)

    async def announce(self, run: RunStarted) -> None:
        await self._ping("/start", event_line(run), run.run)

    async def send(self, report: RunReport) -> None:
        tail = self._tails.get(report.outcome, "/fail")
        await self._ping(tail, report.summary(), report.run)

    async def send_events(self, events: Sequence[Event]) -> None:
        await self._ping("/log", "\n".join(map(event_line, events)))

    async def _ping(self, tail: str, text: str, run: str | None = None) -> None:
        (body,) = pieces(text, _LIMIT, utf8_bytes, most=1)
        # The service wants a UUID, the same for the start and the end of a run.
        query = {} if run is None else {"rid": str(uuid.uuid5(uuid.NAMESPACE_OID, run))}
        await self._http.send(self._url, body.encode("utf-8", "replace"), tail=tail, query=query)


COMPONENT = Healthchecks
