"""Tells any service that takes a JSON body over HTTP.

The address is often a secret in itself: only its host is ever named, the body of an answer is not
even read, and the client library's own log of addresses is switched off.
"""

from __future__ import annotations

import json
import logging
import random
import re
import ssl
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import httpx

from pipeline.errors import NotifierError
from pipeline.stage import Notifier
from schemas.notifiers import WebhookNotifier

if TYPE_CHECKING:
    from pipeline.events import Event
    from pipeline.report import RunReport

for _name in ("httpx", "httpcore"):
    # They log the whole address of each request, at info and debug.
    logging.getLogger(_name).setLevel(logging.WARNING)

_CONNECT_TIMEOUT = 10.0
_FIRST_DELAY = 0.5
_LONGEST_DELAY = 15.0


@dataclass(frozen=True)
class _Failure:
    """Why an attempt did not deliver."""

    what: str
    """Goes after the name of the host."""
    hint: str | None = None
    may_pass: bool = False
    """Whether another attempt may succeed."""
    retry_after: float = 0.0
    """Seconds that the other side asked us to wait."""


class Webhook(Notifier):
    """Sends `{"text": summary, "report": {...}}` or `{"text": lines, "events": [{...}]}`.

    `text` is for people and chat services, the rest for programs. Any 2xx answer is a success.
    What may pass (no answer, 5xx, 429) is tried again until the time is up, so a message may arrive
    twice when only its answer was lost.
    """

    def __init__(self, spec: WebhookNotifier) -> None:
        self._spec = spec

    async def send(self, report: RunReport) -> None:
        await self._tell({"text": report.summary(), "report": report.to_dict()})

    async def send_events(self, events: Sequence[Event]) -> None:
        text = "\n".join(_line(event) for event in events)
        await self._tell({"text": text, "events": [_plain(event) for event in events]})

    async def _tell(self, body: dict[str, Any]) -> None:
        # A file name may hold what UTF-8 cannot express; "?" is better than no message.
        request = self._request(json.dumps(body, ensure_ascii=False).encode("utf-8", "replace"))
        failure = await self._deliver(request)
        if failure is None:
            return
        message = f'"{request.url.host}" {failure.what}'
        if failure.may_pass:
            message += f"; gave up after {self._spec.timeout:g}s"
        raise NotifierError(message, failure.hint)

    def _request(self, body: bytes) -> httpx.Request:
        """The request, or an error that does not quote the address."""
        headers = httpx.Headers({"content-type": "application/json", "user-agent": "nxs-backup"})
        try:
            url = httpx.URL(self._spec.url.get_secret_value())
            for name, value in self._spec.headers.items():
                headers[name] = value.get_secret_value()
            usable = url.host != ""
        except (httpx.InvalidURL, UnicodeError):
            usable = False
        if not usable:
            raise NotifierError(
                "the webhook cannot be called: its url or a header is malformed",
                "look for stray spaces, line breaks and characters that are not UTF-8",
            )
        return httpx.Request(self._spec.method, url, headers=headers, content=body)

    async def _deliver(self, request: httpx.Request) -> _Failure | None:
        """Try until it is delivered, cannot be, or the time is up."""
        failure: _Failure | None = _Failure("did not answer", may_pass=True)
        with anyio.move_on_after(self._spec.timeout) as scope:
            # Certificate stores are large: reading one would hold up the event loop.
            trusted = await anyio.to_thread.run_sync(self._trusted)
            timeout = httpx.Timeout(None, connect=_CONNECT_TIMEOUT)
            async with httpx.AsyncClient(verify=trusted, timeout=timeout) as client:
                for back_off in _back_offs():
                    failure = await _attempt(client, request)
                    if failure is None or not failure.may_pass:
                        break
                    delay = max(back_off, failure.retry_after)
                    if anyio.current_time() + delay >= scope.deadline:
                        break
                    await anyio.sleep(delay)
        return failure

    def _trusted(self) -> ssl.SSLContext:
        if self._spec.ca is None:
            return httpx.create_ssl_context()
        try:
            return ssl.create_default_context(cafile=self._spec.ca)
        except OSError as error:
            raise NotifierError(
                f'the trust file "{self._spec.ca}" cannot be read',
                error.strerror or "it must hold certificates in PEM form",
            ) from None


def _line(event: Event) -> str:
    fields = " ".join(f"{name}={value}" for name, value in _plain_fields(event).items())
    return f"{event.severity}: {event.name} {fields}"


def _plain(event: Event) -> dict[str, Any]:
    """JSON-ready, with the names that the JSON log has."""
    return {"event": event.name, "level": event.severity, **_plain_fields(event)}


def _plain_fields(event: Event) -> dict[str, Any]:
    return {name: _plain_value(value) for name, value in event.to_fields().items()}


def _plain_value(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain_value(one) for one in value]
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value


def _back_offs() -> Iterator[float]:
    """Seconds before each new attempt: doubling, with jitter as many hosts may call at once."""
    longest = _FIRST_DELAY
    while True:
        yield longest * random.uniform(0.5, 1.0)
        longest = min(longest * 2, _LONGEST_DELAY)


async def _attempt(client: httpx.AsyncClient, request: httpx.Request) -> _Failure | None:
    try:
        response = await client.send(request, stream=True, follow_redirects=False)
        await response.aclose()
    except httpx.HTTPError as error:
        return _failure_of_error(error)
    return _failure_of_answer(response)


def _failure_of_answer(response: httpx.Response) -> _Failure | None:
    code = response.status_code
    if 200 <= code < 300:
        return None
    if code == 429 or code >= 500:
        wait = retry_after(response.headers.get("retry-after"), datetime.now(timezone.utc))
        return _Failure(f"answered {code}", may_pass=True, retry_after=wait)
    hint = "redirects are not followed; set the url it leads to" if 300 <= code < 400 else None
    return _Failure(f"answered {code}", hint)


def _failure_of_error(error: httpx.HTTPError) -> _Failure:
    """In our own words: those of the library may quote the address or a header."""
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in _causes(error)):
        return _Failure(
            "has a certificate that is not trusted", "set `ca` to the file of its authority"
        )
    if isinstance(error, (httpx.LocalProtocolError, httpx.UnsupportedProtocol)):
        return _Failure("was not asked: a header cannot be sent", "look at `headers`")
    if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError)):
        return _Failure("cannot be reached", may_pass=True)
    if isinstance(error, httpx.RemoteProtocolError):
        return _Failure("hung up, or its answer is not HTTP", may_pass=True)
    return _Failure("broke the connection", may_pass=True)


def _causes(error: BaseException) -> Iterator[BaseException]:
    current: BaseException | None = error
    while current is not None:
        yield current
        current = current.__cause__ or current.__context__


def retry_after(value: str | None, now: datetime) -> float:
    """Seconds to wait by a `Retry-After` header: seconds or a date; 0 when it is neither."""
    if value is None:
        return 0.0
    if re.fullmatch(r"[0-9]{1,9}", value):
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return 0.0
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    return max(0.0, (moment - now).total_seconds())


COMPONENT = Webhook
