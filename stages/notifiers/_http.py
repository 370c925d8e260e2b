"""Delivers a message over HTTP.

The address is often a secret in itself: only its host is ever named, no text of an answer is
repeated, and the client library's own log of addresses is switched off.
"""

from __future__ import annotations

import json
import logging
import re
import socket
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any, Protocol
from urllib.request import getproxies

import anyio
import anyio.to_thread
import httpx

from pipeline.errors import NotifierError
from pipeline.segment import run_in_thread
from stages.notifiers._delivery import DISTRUST, Failure, deliver, is_distrust, trusting

for _name in ("httpx", "httpcore"):
    # They log the whole address of each request, at info and debug.
    logging.getLogger(_name).setLevel(logging.WARNING)

_CONNECT_TIMEOUT = 10.0
_LONGEST_ANSWER = 64 << 10
"""What is read of an answer at most, in bytes."""


@dataclass(frozen=True)
class Answer:
    """What the other side said."""

    status: int
    headers: Mapping[str, str]
    document: Any = None
    """Its JSON; None when it was not asked for, or is none."""


Judge = Callable[[Answer], Failure | None]


def by_status(answer: Answer) -> Failure | None:
    """Any 2xx is a success; 429 and 5xx may pass."""
    code = answer.status
    if 200 <= code < 300:
        return None
    if code == 429 or code >= 500:
        wait = retry_after(answer.headers.get("retry-after"), datetime.now(timezone.utc))
        return Failure(f"answered {code}", may_pass=True, retry_after=wait)
    hint = "redirects are not followed; set the url it leads to" if 300 <= code < 400 else None
    return Failure(f"answered {code}", hint)


class HttpSettings(Protocol):
    """What an `Http` needs to know; every `HttpNotifierSpec` is one."""

    @property
    def timeout(self) -> float: ...

    @property
    def ca(self) -> str | None: ...


class Http:
    """Sends requests to one service.

    Args:
        judge: decides what an answer means.
        reads: whether the JSON of an answer matters; otherwise its body is not even read.
        trust: makes what connections are encrypted with, where `ca` alone does not say it.
    """

    def __init__(
        self,
        spec: HttpSettings,
        judge: Judge = by_status,
        reads: bool = False,
        trust: Callable[[], ssl.SSLContext] | None = None,
    ) -> None:
        self._timeout, self._ca = spec.timeout, spec.ca
        self._judge, self._reads = judge, reads
        self._trusted = trust or self._trusting_ca
        self._context: ssl.SSLContext | None = None

    async def send(
        self,
        address: str,
        body: Any = None,
        *,
        method: str = "POST",
        tail: str = "",
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Deliver a message; returns the JSON of the answer when answers are read.

        Args:
            body: bytes, or what becomes JSON; None is no body.
            tail: goes behind the path of the address.
            query: goes behind the query that the address has.
            headers: more of them; they win.

        Raises:
            NotifierError: it was not delivered.
        """
        request = _request(method, _Address(address, tail, query or {}), body, headers or {})
        answers: list[Answer] = []

        async def attempt() -> Failure | None:
            answer = await self._call(request)
            if isinstance(answer, Failure):
                return answer
            answers.append(answer)
            return self._judge(answer)

        await deliver(request.url.host, attempt, self._timeout)
        return answers[-1].document

    async def reach(self, address: str) -> None:
        """See whether the server of an address answers anything at all.

        It is asked for its root: the path may be a secret, and means to tell someone. Even an error
        of a gateway is an answer, as it may have nothing but that path.

        Raises:
            NotifierError: it does not.
        """
        request = _request("HEAD", _Address(address, "", {}), None, {})
        url = request.url
        request.url = httpx.URL(scheme=url.scheme, host=url.host, port=url.port, path="/")
        answer = await self._call(request)
        if isinstance(answer, Failure):
            raise NotifierError(f'"{url.host}" {answer.what}', answer.hint)

    async def _call(self, request: httpx.Request) -> Answer | Failure:
        # Certificate stores are large: reading one would hold up the event loop.
        if self._context is None:
            self._context = await anyio.to_thread.run_sync(self._trusted)
        if not await _has_address(request.url):
            return Failure("cannot be reached", may_pass=True)
        timeout = httpx.Timeout(None, connect=_CONNECT_TIMEOUT)
        async with httpx.AsyncClient(verify=self._context, timeout=timeout) as client:
            try:
                return await self._ask(client, request)
            except httpx.HTTPError as error:
                return _failure_of_error(error)

    async def _ask(self, client: httpx.AsyncClient, request: httpx.Request) -> Answer:
        response = await client.send(request, stream=True, follow_redirects=False)
        body = b""
        try:
            if self._reads:
                body = await _read(response)
        finally:
            await response.aclose()
        return Answer(response.status_code, response.headers, _document(body))

    def _trusting_ca(self) -> ssl.SSLContext:
        return httpx.create_ssl_context() if self._ca is None else trusting(self._ca)


async def _has_address(url: httpx.URL) -> bool:
    """Look the name of a host up in a thread that can be left behind.

    The event loop would wait for its own, at the end of the process too, and a name server that is
    dead takes very long. With a proxy, it is the proxy that knows.
    """
    if getproxies().keys() - {"no"}:
        return True
    port = url.port or (443 if url.scheme == "https" else 80)
    look = partial(socket.getaddrinfo, url.host, port, type=socket.SOCK_STREAM)
    try:
        return bool(await run_in_thread("resolve", look, grace=0))
    except (OSError, UnicodeError):
        return False


@dataclass(frozen=True, repr=False)
class _Address:
    base: str
    tail: str
    query: Mapping[str, str]

    def url(self) -> httpx.URL:
        """The whole of it; raises what httpx raises."""
        url = httpx.URL(self.base)
        path, mark, query = url.raw_path.partition(b"?")
        if self.tail:
            path = path.rstrip(b"/") + self.tail.encode()
        more = str(httpx.QueryParams(dict(self.query))).encode()
        queries = b"&".join(filter(None, (query, more)))
        return url.copy_with(raw_path=path + (b"?" + queries if queries or mark else b""))


def _request(method: str, address: _Address, body: Any, more: Mapping[str, str]) -> httpx.Request:
    """The request, or an error that does not quote the address."""
    kind = "text/plain; charset=utf-8" if isinstance(body, bytes) else "application/json"
    given = {"user-agent": "nxs-backup", "accept-encoding": "identity"}
    headers = httpx.Headers(given if body is None else {**given, "content-type": kind})
    try:
        url = address.url()
        for name, value in more.items():
            headers[name] = value
        usable = url.host != ""
    except (httpx.InvalidURL, UnicodeError):
        usable = False
    if not usable:
        raise NotifierError(
            "the service cannot be called: its url or a header is malformed",
            "look for stray spaces, line breaks and characters that are not UTF-8",
        )
    content = body if isinstance(body, bytes) or body is None else to_json(body)
    return httpx.Request(method, url, headers=headers, content=content)


def to_json(body: Any) -> bytes:
    """As UTF-8, whatever stands in it."""
    # A file name may hold what UTF-8 cannot express; "?" is better than no message.
    return json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")


async def _read(response: httpx.Response) -> bytes:
    """The body; nothing when it is longer than an answer may be."""
    found = bytearray()
    try:
        async for chunk in response.aiter_raw():
            found += chunk
            if len(found) > _LONGEST_ANSWER:
                # Reading then fails, which ends the generators in there; Trio minds any left over.
                await response.aclose()
    except (httpx.HTTPError, httpx.StreamError):
        if len(found) <= _LONGEST_ANSWER:
            raise
    return bytes(found) if len(found) <= _LONGEST_ANSWER else b""


def _document(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _failure_of_error(error: httpx.HTTPError) -> Failure:
    """In our own words: those of the library may quote the address or a header."""
    if is_distrust(error):
        return DISTRUST
    if isinstance(error, (httpx.LocalProtocolError, httpx.UnsupportedProtocol)):
        return Failure("was not asked: a header cannot be sent", "look at `headers`")
    if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError)):
        return Failure("cannot be reached", may_pass=True)
    if isinstance(error, httpx.RemoteProtocolError):
        return Failure("hung up, or its answer is not HTTP", may_pass=True)
    return Failure("broke the connection", may_pass=True)


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


def seconds_of(value: Any) -> float:
    """Seconds to wait that a JSON answer gives as a number; 0 when it is none."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number and 0 < value < 1e9 else 0.0
