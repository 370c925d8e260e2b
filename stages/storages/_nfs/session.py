"""Calls over one connection at a time, which is replaced when it drops."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from pipeline.errors import StorageUnavailable
from stages.storages._nfs.calls import NFS
from stages.storages._nfs.errors import reason_of
from stages.storages._nfs.rpc import PROC_UNAVAIL, RpcRejected, call_message, check_reply
from stages.storages._nfs.tcp import Connection
from stages.storages._nfs.types import Call, NfsError, Status
from stages.storages._tcp import Interrupt

T = TypeVar("T")

_FIRST_PAUSE, _LAST_PAUSE = 0.1, 2.0
_FIRST_WAIT, _LAST_WAIT = 0.1, 5.0


class Session:
    """For one thread; any number of calls may be under way.

    What was not answered when a connection drops is sent again over the next one, in order and
    under the same numbers.

    Args:
        server: its name, for messages.
        credentials: of each call.
        timeout: seconds without an answer after which the session fails.
        connect: makes a connection, and watches it with the interrupt.
    """

    def __init__(
        self,
        server: str,
        credentials: bytes,
        timeout: float,
        connect: Callable[[Interrupt], Connection],
    ) -> None:
        self.interrupt = Interrupt()
        self._server = server
        self._credentials = credentials
        self._timeout = timeout
        self._connect = connect
        self._connection: Connection | None = None
        self._pending: dict[int, Call[Any]] = {}
        self._silent_since: float | None = None
        self._busy_since: float | None = None
        self._attempts = 0
        self._is_broken = False

    @property
    def is_idle(self) -> bool:
        """Whether another thread may have it."""
        return not (self._pending or self._is_broken)

    def submit(self, call: Call[T]) -> Call[T]:
        """Send a call without waiting for its answer.

        Raises:
            StorageError: the server cannot be reached.
        """
        self.interrupt.check()
        call.begin()
        self._pending[call.xid] = call
        try:
            if self._connection is None:
                self._connection = self._connect_first()
            self._connection.send(self._message(call))
        except OSError as error:
            self._recover(error)
        return call

    def result(self, call: Call[T]) -> T:
        """Wait for the answer to a submitted call.

        Raises:
            NfsError, RpcRejected: the call failed.
            Malformed: what answered is no NFS server.
            StorageError: the server went away, and did not come back.
        """
        self._await(call)
        if is_busy(call):
            self._try_later(call)
        return call.outcome()

    def call(self, call: Call[T]) -> T:
        """Submit a call and wait for its answer; raises what they raise."""
        return self.result(self.submit(call))

    def in_flight(self, calls: Iterable[Call[T]], depth: int) -> Iterator[Call[T]]:
        """Submit many calls, `depth` of them at once, and give them back in the same order."""
        flying: deque[Call[T]] = deque()
        for call in calls:
            flying.append(self.submit(call))
            if len(flying) == depth:
                yield flying.popleft()
        yield from flying

    def end(self, make_error: Callable[[], Exception]) -> None:
        """Have all that is or will be done here raise an error; from any thread."""
        self._is_broken = True
        self.interrupt.end(make_error)

    def close(self) -> None:
        """Drop the connection; only from the session's own thread."""
        self._is_broken = True
        self._drop()

    def _message(self, call: Call[Any]) -> list[Any]:
        return call_message(
            call.xid, NFS, call.procedure, self._credentials, call.arguments, call.data
        )

    def _connect_first(self) -> Connection:
        try:
            return self._connect(self.interrupt)
        except OSError as error:
            self.interrupt.check()
            self._is_broken = True
            raise StorageUnavailable(
                f'"{self._server}" cannot be reached: {reason_of(error)}'
            ) from error

    def _await(self, call: Call[Any]) -> None:
        while not call.is_done:
            assert self._connection  # Whoever is waited for was sent.
            try:
                xid, reply = self._connection.receive()
            except OSError as error:
                self._recover(error)
                continue
            self._silent_since, self._attempts = None, 0
            answered = self._pending.pop(xid, None)
            if answered:
                _finish(answered, reply)

    def _try_later(self, call: Call[Any]) -> None:
        """The server is busy, perhaps fetching the file from a tape: ask again, as a new call."""
        self._busy_since, pause = time.monotonic(), _FIRST_WAIT
        while is_busy(call):
            if time.monotonic() - self._busy_since > self._timeout:
                raise StorageUnavailable(
                    f'"{self._server}" put us off for more than {self._timeout:g} s'
                )
            self.interrupt.sleep(pause)
            pause = min(2 * pause, _LAST_WAIT)
            self._await(self.submit(call))
        self._busy_since = None

    def _recover(self, error: OSError) -> None:
        """Connect again, and send again what was not answered.

        Raises:
            StorageUnavailable: the time is up.
        """
        if self._silent_since is None:
            # Who notices that nothing moves has waited already, half of the time that there is.
            waited = self._timeout / 2 if isinstance(error, TimeoutError) else 0
            self._silent_since = time.monotonic() - waited
        reason = reason_of(error)
        while True:
            self._drop()
            self._pause(reason)
            try:
                self._connection = self._connect(self.interrupt)
                for call in self._pending.values():
                    self._connection.send(self._message(call))
                return
            except (OSError, StorageUnavailable) as another:
                reason = reason_of(another)

    def _pause(self, reason: str) -> None:
        """Sleep before an attempt, longer each time; the first is made at once."""
        self.interrupt.check()
        assert self._silent_since is not None
        left = self._silent_since + self._timeout - time.monotonic()
        if left <= 0:
            self._is_broken = True
            raise StorageUnavailable(
                f'lost the connection to "{self._server}" for more than {self._timeout:g} s: '
                f"{reason}"
            )
        if self._attempts:
            pause = min(_FIRST_PAUSE * 2 ** (self._attempts - 1), _LAST_PAUSE)
            self.interrupt.sleep(min(pause, left))
        self._attempts += 1

    def _drop(self) -> None:
        if self._connection:
            self._connection.close()
            self._connection = None


def is_busy(call: Call[Any]) -> bool:
    """Whether the server asked to try again later."""
    return isinstance(call.error, NfsError) and call.error.status == Status.JUKEBOX


def _finish(call: Call[Any], reply: Any) -> None:
    try:
        check_reply(reply)
        call.finish(reply)
    except RpcRejected as error:
        unknown = error.status == PROC_UNAVAIL
        call.fail(NfsError(Status.NOTSUPP) if unknown else error)
