"""Tells any service that the Apprise library knows.

Its addresses hold passwords and tokens, and its log may: the log is switched off, and errors name a
service by its kind alone.
"""

from __future__ import annotations

import logging
import re
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import anyio
import apprise

from pipeline.errors import NotifierError
from pipeline.events import Event
from pipeline.report import RunReport
from pipeline.segment import run_in_thread
from pipeline.stage import Notifier
from schemas.notifiers import AppriseNotifier
from schemas.templates import fill
from stages.notifiers._delivery import Failure, deliver
from stages.notifiers._http import Http
from stages.notifiers._template import of_events, of_report

logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)
logging.getLogger("urllib3").setLevel(logging.WARNING)  # it logs paths

_ATTEMPTS = 3
"""The library does not tell a refusal from bad luck, so what is refused is not asked for ever."""
_OF_A_HOST = frozenset({"apprise", "form", "gotify", "hassio", "json", "mmost", "ntfy", "xml"})
"""Called over HTTP at the host of their address; with others it may be no more than a name."""
_KINDS = {"info": apprise.NotifyType.SUCCESS, "warning": apprise.NotifyType.WARNING}


@dataclass(frozen=True)
class _Asking:
    """How a server is asked whether it is there."""

    timeout: float
    ca: str | None = None


class Apprise(Notifier):
    """One message a run, or a batch of events, to each of the services at once."""

    def __init__(self, spec: AppriseNotifier) -> None:
        self._urls = [url.get_secret_value() for url in spec.urls]
        self._spec = spec

    async def reach(self) -> None:
        """Asks the servers that are known; where one is not, the library alone knows."""
        servers = set(map(_server, self._urls))
        answers: list[str] = []

        async def ask(url: str) -> None:
            try:
                await Http(_Asking(self._spec.timeout), trust=_anyone).reach(url)
                answers.append(url)
            except NotifierError:
                pass  # one that answers is enough

        async with anyio.create_task_group() as group:
            for server in servers - {None}:
                group.start_soon(ask, str(server))
        if not answers and None not in servers:
            raise NotifierError("none of the services can be reached")

    async def send(self, report: RunReport) -> None:
        await self._tell(of_report(report))

    async def send_events(self, events: Sequence[Event]) -> None:
        await self._tell(of_events(events, self.about))

    async def _tell(self, values: Mapping[str, str]) -> None:
        """All services at once; one that fails keeps none of the others from its message."""
        failures: list[NotifierError] = []
        kind = _KINDS.get(values["level"], apprise.NotifyType.FAILURE)
        title = fill(self._spec.title or "{title}", values)
        # The usual text begins with its title.
        usual = values["text"].partition("\n")[2] or values["title"]
        body = usual if self._spec.text is None else fill(self._spec.text, values)
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

        await deliver(_scheme(url), attempt, self._spec.timeout)


def _service(url: str) -> apprise.NotifyBase:
    asset = apprise.AppriseAsset(
        app_id="nxs-backup",
        app_desc="nxs-backup",
        storage_mode=apprise.PersistentStoreMode.MEMORY,
        secure_logging=True,
        # Otherwise it works in threads that the end of the process waits for; `deliver` has a
        # deadline, too.
        async_mode=False,
        service_timeout=0,
    )
    service = apprise.Apprise.instantiate(url, asset=asset, suppress_exceptions=True)
    if not isinstance(service, apprise.NotifyBase):
        hint = "look at `urls`; its documentation has the form of each"
        raise NotifierError(f'an address of "{_scheme(url)}" is not one that apprise knows', hint)
    if "overflow=" not in url:
        service.overflow_mode = apprise.OverflowMode.SPLIT
    return service


def _server(url: str) -> str | None:
    """The HTTP server that an address leads to, where its service tells."""
    service = _service(url)
    fixed = re.match(r"https?://[A-Za-z0-9.-]+/", str(getattr(service, "notify_url", "")))
    if fixed is not None:
        return fixed[0]
    if _scheme(url).removesuffix("s") not in _OF_A_HOST or getattr(service, "mode", "") == "cloud":
        return None
    port = f":{service.port}" if service.port else ""
    return f"http{'s' if service.secure else ''}://{service.host}{port}/"


def _anyone() -> ssl.SSLContext:
    """Whom to trust is for the library to decide; this only shows that there is someone."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _scheme(url: str) -> str:
    """What may be told of an address: the kind of its service."""
    found = re.match(r"([A-Za-z0-9]{1,20})://", url)
    return found[1] if found else "apprise"


COMPONENT = Apprise
