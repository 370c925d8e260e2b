"""Plain GETs in threads, for reading: the client library copies each byte five times on its way."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from urllib.parse import SplitResult

from pipeline.stage import CHUNK
from stages.storages._s3.http import Stalled

_CONNECT_SECONDS = 10.0
_THREADS = 64
"""More than there are ever requests at once: one that waits for a thread would seem to stand still.
"""


class Unexpected(Exception):
    """The answer is not the range that was asked for: the client library can tell why."""


@dataclass(frozen=True)
class Wanted:
    """Some bytes of an object."""

    address: SplitResult
    """Signed, for the whole object."""
    tag: str | None
    """It is another object when it has another one."""
    start: int
    end: int

    def is_answered_by(self, answer: HTTPResponse) -> bool:
        """Whether the body of an answer is these bytes, and ends where they do."""
        place = answer.headers.get("content-range", "").startswith(f"bytes {self.start}-")
        return answer.status == 206 and place and answer.length == self.end - self.start


class Fetcher:
    """The connections for reading from one service; for the loop's thread.

    Args:
        context: for services that speak TLS.
        patience: seconds without a byte after which a connection is given up.
    """

    def __init__(self, context: ssl.SSLContext | None, patience: float) -> None:
        self._context = context
        self._patience = patience
        self._threads = ThreadPoolExecutor(_THREADS, "s3-read")
        self._idle: list[_Line] = []

    async def fetch(self, wanted: Wanted, put: Callable[[bytes], None]) -> None:
        """Hand the bytes to `put`, in chunks, from a thread.

        Raises:
            Unexpected: they were not sent; `put` was not called.
            OSError, EOFError, Stalled: not all of them came.
        """
        line = self._idle.pop() if self._idle else self._connect_to(wanted.address)
        work = self._threads.submit(line.get, wanted, put)
        try:
            await asyncio.wrap_future(work)
        except asyncio.CancelledError:
            line.break_off()
            work.add_done_callback(lambda _: line.close())  # However it ends, or has ended.
            raise
        self._idle.append(line)

    def _connect_to(self, address: SplitResult) -> _Line:
        host, port = address.hostname or "", address.port
        if address.scheme == "http":
            return _Line(HTTPConnection(host, port, _CONNECT_SECONDS), self._patience)
        http = HTTPSConnection(host, port, timeout=_CONNECT_SECONDS, context=self._context)
        return _Line(http, self._patience)

    async def close(self) -> None:
        """Drop all connections; every `fetch` has ended or was cancelled."""
        while self._idle:
            self._idle.pop().close()
        await asyncio.get_running_loop().run_in_executor(None, self._threads.shutdown)


class _Line:
    """A connection that is used by one thread at a time, and that another one can break."""

    def __init__(self, http: HTTPConnection, patience: float) -> None:
        self._http = http
        self._patience = patience
        self._lock = threading.Lock()
        self._is_broken = False

    def get(self, wanted: Wanted, put: Callable[[bytes], None]) -> None:
        """See `Fetcher.fetch`."""
        try:
            answer = self._ask(wanted)
            if not wanted.is_answered_by(answer):
                raise Unexpected
            left = wanted.end - wanted.start
            while left and (chunk := answer.read(CHUNK)):
                put(chunk)
                left -= len(chunk)
            if left:
                raise EOFError("the answer ended early")
            if answer.will_close:
                self.close()
        except TimeoutError:
            self.close()
            raise Stalled from None
        except (HTTPException, ssl.SSLCertVerificationError) as error:
            self.close()
            raise Unexpected from error
        except BaseException:
            self.close()
            raise

    def _ask(self, wanted: Wanted) -> HTTPResponse:
        """The head of the answer; a connection that was closed meanwhile is replaced."""
        if self._http.sock is not None:
            with suppress(ConnectionError):
                return self._request(wanted)
            self.close()
        self._connect()
        return self._request(wanted)

    def _request(self, wanted: Wanted) -> HTTPResponse:
        address = wanted.address
        headers = {"Range": f"bytes={wanted.start}-{wanted.end - 1}"}
        if wanted.tag is not None:
            headers["If-Match"] = wanted.tag
        self._http.request("GET", f"{address.path}?{address.query}", headers=headers)
        return self._http.getresponse()

    def _connect(self) -> None:
        self._http.connect()
        with self._lock:
            if self._is_broken:
                raise ConnectionAbortedError("the connection was closed")
            self._http.sock.settimeout(self._patience)

    def break_off(self) -> None:
        """Have the thread that uses it stop; from any other."""
        with self._lock:
            self._is_broken = True
            if self._http.sock is not None:
                with suppress(OSError):  # Dead already.
                    # Not the method of a TLS socket: that one forgets that there was TLS.
                    socket.socket.shutdown(self._http.sock, socket.SHUT_RDWR)

    def close(self) -> None:
        """Close it; a `get` connects anew."""
        with self._lock:
            self._http.close()
