"""Tells any service that the Apprise library knows.

Its addresses hold passwords and tokens, and its log may: the log is switched off, and errors name a
service by its kind alone.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence

import anyio
import apprise

from pipeline.errors import NotifierError
from pipeline.events import LEVELS, Event
from pipeline.report import RunReport
from pipeline.segment import run_in_thread
from pipeline.stage import Notifier
from schemas.notifiers import AppriseNotifier
from stages.notifiers._delivery import Failure, deliver
from stages.notifiers._text import event_line

logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)
logging.getLogger("urllib3").setLevel(logging.WARNING)  # it logs paths

_ATTEMPTS = 3
"""The library does not tell a refusal from bad luck, so what is refused is not asked for ever."""
_KINDS = {"info": apprise.NotifyType.SUCCESS, "warning": apprise.NotifyType.WARNING}


class Apprise(Notifier):
    """One message a run, or a batch of events, to each of the services at once."""

    def __init__(self, spec: AppriseNotifier) -> None:
        self._urls = [url.get_secret_value() for url in spec.urls]
        self._timeout = spec.timeout

    async def send(self, report: RunReport) -> None:
        title, _, body = report.summary().partition("\n")
        await self._tell(title, body or title, report.level)

    async def send_events(self, events: Sequence[Event]) -> None:
        level = max((event.severity for event in events), key=LEVELS.index)
        await self._tell(f"backup: {level}", "\n".join(map(event_line, events)), level)

    async def _tell(self, title: str, body: str, level: str) -> None:
        """All services at once; one that fails keeps none of the others from its message."""
        failures: list[NotifierError] = []
        kind = _KINDS.get(level, apprise.NotifyType.FAILURE)
        clean = [text.encode("utf-8", "replace").decode() for text in (title, body)]

        async def tell(url: str) -> None:
            try:
                await self._tell_one(url, clean[0], clean[1], kind)
            except NotifierError as failure:
                failures.append(failure)

        async with anyio.create_task_group() as group:
            for url in self._urls:
                group.start_soon(tell, url)
        if failures:
            hints = list(dict.fromkeys(failure.hint for failure in failures if failure.hint))
            raise NotifierError("; ".join(one.message for one in failures), " ".join(hints))

    async def _tell_one(self, url: str, title: str, body: str, kind: apprise.NotifyType) -> None:
        attempts = 0

        def notify() -> bool:
            # Each time anew: what a service was told before must not matter.
            service = _service(url)
            sender = apprise.Apprise(asset=service.asset)
            sender.add(service)
            text = apprise.NotifyFormat.TEXT
            return bool(sender.notify(body, title, notify_type=kind, body_format=text))

        async def attempt() -> Failure | None:
            nonlocal attempts
            attempts += 1
            if await run_in_thread("apprise", notify, grace=0):
                return None
            hint = "try it by hand, with: apprise -vv --title test --body test URL"
            return Failure("did not take it", hint, may_pass=attempts < _ATTEMPTS)

        await deliver(_scheme(url), attempt, self._timeout)


def _service(url: str) -> apprise.NotifyBase:
    asset = apprise.AppriseAsset(
        app_id="nxs-backup",
        app_desc="nxs-backup",
        storage_mode=apprise.PersistentStoreMode.MEMORY,
        secure_logging=True,
    )
    service = apprise.Apprise.instantiate(url, asset=asset, suppress_exceptions=True)
    if not isinstance(service, apprise.NotifyBase):
        hint = "look at `urls`; its documentation has the form of each"
        raise NotifierError(f'an address of "{_scheme(url)}" is not one that apprise knows', hint)
    if "overflow=" not in url:
        service.overflow_mode = apprise.OverflowMode.SPLIT
    return service


def _scheme(url: str) -> str:
    """What may be told of an address: the kind of its service."""
    found = re.match(r"([A-Za-z0-9]{1,20})://", url)
    return found[1] if found else "apprise"


COMPONENT = Apprise
