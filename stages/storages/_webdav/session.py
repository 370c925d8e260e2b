"""Requests, one at a time: with our login, where the server sends us, and again when they fail."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING
from urllib.parse import urljoin

from pipeline.errors import Aborted, StorageRefused, StorageUnavailable
from stages.storages._webdav.errors import (
    FAILURES,
    TRY_AGAIN,
    connection_error,
    status_error,
)
from stages.storages._webdav.multistatus import Entry, NotUnderstood, parse
from stages.storages._webdav.names import Address, on_server, unquoted
from stages.storages._webdav.wire import Head, Headers, Wire

if TYPE_CHECKING:
    from stages.storages._webdav.link import Link

_ROUNDS = 6
"""Answers such as 401 and 307 that one request may get before its own."""
_REDIRECTS = frozenset({301, 302, 307, 308})
_GO_AHEAD_SECONDS = 1.0
_MAX_ERROR = 1 << 20
"""Bytes of an answer's body that are read so that the connection can be used again."""
_AGENT = ("user-agent", "nxs-backup")


@dataclass(frozen=True)
class Patience:
    """How long small requests are tried again, as long as the server does not answer."""

    seconds: float = 60.0
    first_delay: float = 0.2
    longest_delay: float = 5.0


@dataclass(frozen=True)
class Request:
    """A request about an object, a collection, or one above the storage's own."""

    method: str
    name: str
    doing: str
    """For messages, such as `read "a/b"`."""
    collection: bool = False
    above: int = 0
    """So many levels above the storage's own collection; `name` does not count then."""
    headers: Headers = ()
    body: bytes = b""
    destination: str | None = None
    """The other name of a MOVE."""
    origin: str | None = None
    """What stands before the path of the destination; default: the server as we know it."""
    final: frozenset[int] = frozenset()
    """Statuses that are taken for an answer at once, although they might pass."""

    def target(self, address: Address) -> str:
        if self.above:
            return address.above(self.above)
        return address.target(on_server(self.name), self.collection)


@dataclass(frozen=True)
class Answer:
    """What came of a request."""

    status: int
    head: Head
    entries: list[Entry] = field(default_factory=list)
    """Of a PROPFIND."""
    repeated: bool = False
    """An earlier attempt may have had its effect, although we were not told."""


class Session:
    """Makes requests in one thread; `stop` ends them from any other."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self._wire: Wire | None = None
        self._lock = threading.Lock()  # Held to decide between a new connection and the stop.
        self.stopped = threading.Event()

    # Connections

    def stop(self) -> None:
        """End whatever is under way, now and later."""
        with self._lock:
            self.stopped.set()
            if self._wire is not None:
                self._wire.breaker.trip()

    def close(self) -> None:
        """Give the connection to whoever needs it next."""
        with self._lock:
            wire, self._wire = self._wire, None
        if wire is not None:
            self.link.give_back(wire)

    def drop(self) -> None:
        """Close the connection, which may be in any state."""
        with self._lock:
            wire, self._wire = self._wire, None
        if wire is not None:
            wire.close()

    def wire(self) -> Wire:
        """A connection for the next request."""
        wire = self._wire
        if wire is not None and wire.usable and wire.address == self.link.address:
            return wire
        self.drop()
        context = self.link.tls()
        wire = self.link.take_idle()
        fresh = wire is None
        wire = wire or self.link.new_wire()
        with self._lock:
            self._wire = wire
            if self.stopped.is_set():
                raise Aborted
        if fresh:
            wire.connect(context)
        return wire

    # Requests

    def request(self, request: Request) -> Answer:
        """Make a request that does the same when it is made twice, until it is answered.

        Raises:
            StorageRefused: a login, a certificate or a redirection is no good.
            StorageUnavailable: no answer in all the time.
        """
        attempts = _Attempts(self, request)
        while True:
            try:
                answer = self._ask(request)
            except FAILURES as error:
                was_idle = self._wire is not None and self._wire.used
                self.drop()
                attempts.failed(error, was_idle)
                continue
            may_pass = answer.status in TRY_AGAIN - request.final
            if may_pass and attempts.put_off(answer):
                continue
            return replace(answer, repeated=attempts.repeated)

    def expect(self, request: Request, *statuses: int) -> Answer:
        """The same, where no other statuses are a success."""
        answer = self.request(request)
        if answer.status not in statuses:
            raise status_error(answer.status, self.link.server, request.doing)
        return answer

    def _ask(self, request: Request) -> Answer:
        wire, head = self.begin(request)
        entries: list[Entry] = []
        if head.status == 207 and request.method == "PROPFIND":
            try:
                entries = parse(wire.body(head))
            except NotUnderstood as error:
                self.drop()
                raise StorageRefused(
                    f'"{self.link.server}" could not {request.doing}: '
                    f"its answer is not understood: {error}"
                ) from None
        else:
            _read_out(wire, head)
        return Answer(head.status, head, entries)

    def begin(self, request: Request) -> tuple[Wire, Head]:
        """Make a request: the head of its answer, once login and address are settled.

        Raises:
            StorageError: they cannot be settled.
            OSError, h11.ProtocolError: the connection is lost.
        """
        for _ in range(_ROUNDS):
            wire = self.wire()
            said = self._send(wire, request, request.body)
            head = wire.head()
            if self._is_final(request, head, said):
                return wire, head
            _read_out(wire, head)
        raise self._astray()

    def begin_upload(self, request: Request) -> tuple[Wire, Head | None]:
        """Start a PUT whose body follows, once the server has agreed to it.

        Returns:
            The connection, and an answer when it does not agree.

        Raises:
            See `begin`.
        """
        request = replace(request, headers=[*request.headers, ("transfer-encoding", "chunked")])
        waits = True
        for _ in range(_ROUNDS):
            wire = self.wire()
            expect = [("expect", "100-continue")] if waits else []
            asked = replace(request, headers=[*request.headers, *expect])
            said = self._send(wire, asked, None)
            head = wire.go_ahead(_GO_AHEAD_SECONDS if waits else 0)
            if head is None:
                return wire, None
            self.drop()  # It may wait for a body.
            if head.status == 417:
                waits = False
            elif self._is_final(request, head, said):
                return wire, head
        raise self._astray()

    def _send(self, wire: Wire, request: Request, body: bytes | None) -> str | None:
        address, target = wire.address, request.target(wire.address)
        said = self.link.login.header(request.method, address.origin + target)
        headers = [_AGENT, *request.headers]
        if said is not None:
            headers.append(("authorization", said))
        if request.destination is not None:
            origin = address.origin if request.origin is None else request.origin
            headers.append(("destination", origin + address.target(request.destination)))
        wire.ask(request.method, target, headers, body)
        return said

    def _is_final(self, request: Request, head: Head, said: str | None) -> bool:
        """Whether an answer is about the request itself; else it is to be made again."""
        address = self.link.address
        if head.status == 401:
            url = address.origin + request.target(address)
            challenges = head.all("www-authenticate")
            if not self.link.login.learn(request.method, url, said, challenges):
                raise self.link.login.refused(self.link.server)
            return False
        if head.status in _REDIRECTS:
            self._follow(request, head.get("location") or "")
            return False
        return True

    def _follow(self, request: Request, location: str) -> None:
        """Take to where the server has moved the storage's collection, but to no other server."""
        address = self.link.address
        target = request.target(address)
        try:
            there = Address.parse(urljoin(address.origin + target, location))
        except ValueError:
            raise self._astray() from None
        same_port = there.port == address.port and there.scheme == address.scheme
        encrypts = there.encrypted and not address.encrypted
        ours, theirs = unquoted(target), unquoted(there.path)
        below = ours[len(unquoted(address.path)) :]
        if (
            there.host != address.host
            or not (same_port or encrypts)
            or request.above
            or not theirs.endswith(below)
        ):
            raise self._astray()
        levels = request.name.count("/") + 1 if request.name else 0
        path = there.above(levels)
        self.link.address = Address(there.scheme, there.host, there.port, path)

    def _astray(self) -> StorageRefused:
        return StorageRefused(
            f'"{self.link.server}" sends us elsewhere',
            "set url to where the WebDAV collection is in the end",
        )


class _Attempts:
    """How often a request was made, and whether it is made once more."""

    def __init__(self, session: Session, request: Request) -> None:
        self._session = session
        self._request = request
        self._patience = session.link.patience
        self._delay = self._patience.first_delay
        self._end: float | None = None
        self.repeated = False

    def failed(self, error: BaseException, was_idle: bool) -> None:
        """The connection broke: returns when it is time for another attempt.

        Raises:
            StorageError: there shall be none.
        """
        session, link = self._session, self._session.link
        if session.stopped.is_set():
            raise Aborted from None
        if link.closed:
            raise StorageUnavailable(f'the connection to "{link.server}" was closed') from None
        failure = connection_error(error, link.server, self._request.doing)
        first, self.repeated = not self.repeated, True
        if first and was_idle and isinstance(failure, StorageUnavailable):
            return  # Servers close connections that nobody used for a while.
        if isinstance(failure, StorageRefused) or not self._wait(self._delay):
            raise failure from error

    def put_off(self, answer: Answer) -> bool:
        """The server is busy: whether to make another attempt, after a while."""
        asked_for = answer.head.get("retry-after") or ""
        delay = float(asked_for) if asked_for.isdigit() else self._delay
        waited = self._wait(max(delay, self._delay))
        self.repeated = self.repeated or waited
        return waited

    def _wait(self, seconds: float) -> bool:
        now = time.monotonic()
        if self._end is None:
            self._end = now + self._patience.seconds
        if now + seconds > self._end:
            return False
        self._session.stopped.wait(seconds)
        if self._session.stopped.is_set():
            raise Aborted
        self._delay = min(2 * self._delay, self._patience.longest_delay)
        return True


def _read_out(wire: Wire, head: Head) -> None:
    """Read the body of an answer that nobody wants, so that the connection can be used again."""
    if (head.length or 0) > _MAX_ERROR:
        wire.close()
        return
    size = 0
    for piece in wire.body(head):
        size += len(piece)
        if size > _MAX_ERROR:
            wire.close()
            return
