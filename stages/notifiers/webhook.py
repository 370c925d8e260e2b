"""Tells any service that takes an HTTP request, by default with a JSON body."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import SecretStr

from pipeline.events import Event
from pipeline.report import RunReport
from pipeline.stage import Notifier
from schemas.notifiers import WebhookNotifier
from schemas.templates import DOCUMENTS, PLACEHOLDER, fill
from stages.notifiers._http import Http
from stages.notifiers._template import of_events, of_report
from stages.notifiers._text import event_document


class Webhook(Notifier):
    """Sends `{"text": summary, "report": {...}}` or `{"text": lines, "events": [{...}]}`.

    `text` is for people and chat services, the rest for programs; `payload` replaces all of it.
    """

    def __init__(self, spec: WebhookNotifier) -> None:
        self._spec = spec
        self._http = Http(spec)

    async def reach(self) -> None:
        await self._http.reach(self._spec.url.get_secret_value())

    async def send(self, report: RunReport) -> None:
        values, document = of_report(report), report.to_dict()
        await self._tell({"text": values["text"], "report": document}, {**values, "events": []})

    async def send_events(self, events: Sequence[Event]) -> None:
        values = of_events(events, self.about)
        documents = [event_document(event) for event in events]
        await self._tell({"text": values["text"], "events": documents}, {**values, "report": None})

    async def _tell(self, body: dict[str, Any], more: Mapping[str, Any]) -> None:
        content: Any = body
        if self._spec.method == "GET":
            content = None
        elif self._spec.payload is not None:
            content = _filled(self._spec.payload, {**more, **body})
        headers = {name: value.get_secret_value() for name, value in self._spec.headers.items()}
        url = self._spec.url.get_secret_value()
        await self._http.send(url, content, method=self._spec.method, headers=headers)


def _filled(template: Any, values: Mapping[str, Any]) -> Any:
    """A template with its placeholders replaced; a lone one becomes the value as it is."""
    if isinstance(template, SecretStr):
        return _filled(template.get_secret_value(), values)
    if isinstance(template, dict):
        return {name: _filled(each, values) for name, each in template.items()}
    if isinstance(template, list):
        return [_filled(each, values) for each in template]
    if not isinstance(template, str):
        return template
    alone = PLACEHOLDER.fullmatch(template)
    if alone is not None and alone[1] in DOCUMENTS:
        return values[alone[1]]
    return fill(template, values)


COMPONENT = Webhook
