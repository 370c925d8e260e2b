"""Requests over one connection at a time, which is replaced when it drops."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from pipeline.errors import StorageUnavailable
from stages.storages._smb.errors import reason_of
from stages.storages._smb.link import Link
from stages.storages._smb.types import Call
from stages.storages._tcp import Interrupt

T = TypeVar("T")

_FIRST_PAUSE, _LAST_PAUSE = 0.1, 2.0
_MAX_LOSSES = 20
"""Connections that may break one after the other without any progress between them."""


class Session:
    """For one thread; any number of requests may be under way.

    What was under way is lost with its connection, and so are open files: `persist` does it again.

    Args:
        server: its name, for messages.
        timeout: seconds without progress after which a lost connection is not replaced any more.
        connect: makes a connection to the share, and watches it with the interrupt; is given the
            number of an earlier session that the server is to close, or 0.
        previous: such a number.
    """

    def __init__(
        self,
        server: str,
        timeout: float,
        connect: Callable[[Interrupt, int], Link],
        previous: int = 0,
    ) -> None:
        self.interrupt = Interrupt()
        self.generation = 0
        """Another number for each connection, for those who keep what does not outlive one."""
        self._server = server
        self._timeout = timeout
        self._connect = connect
        self.number = previous
        """What the server knows the last connection by."""
        self._link: Link | None = None
        self._silent_since: float | None = None
        self._attempts = 0
        self._losses = 0
        self._is_broken = False

    @property
    def is_usable(self) -> bool:
        """Whether another thread may have it."""
        return not self._is_broken

    @property
    def link(self) -> Link:
        """The connection; raises StorageError when there is none yet and none can be had."""
        self.interrupt.check()
        if self._link is None:
            try:
                self._open()
            except OSError as error:
                self.interrupt.check()
                self._is_broken = True
                raise StorageUnavailable(
                    f'"{self._server}" cannot be reached: {reason_of(error)}'
                ) from error
        assert self._link
        return self._link

    def submit(self, call: Call[T]) -> Call[T]:
        """Send a request without waiting for its answer.

        Raises:
            OSError: the connection is lost.
            Malformed: what answers does not keep to the rules.
            StorageError: the server cannot be reached.
        """
        return self.link.submit(call)

    def result(self, call: Call[T]) -> T:
        """Wait for the answer to a submitted request; raises SmbError, and like `submit`."""
        return self.link.result(call)

    def call(self, call: Call[T]) -> T:
        """Submit a request and wait for its answer; raises what they raise."""
        return self.result(self.submit(call))

    def in_flight(self, calls: Iterable[Call[T]], depth: int) -> Iterator[Call[T]]:
        """Submit many requests, `depth` of them at once, and give them back in the same order."""
        flying: deque[Call[T]] = deque()
        for call in calls:
            flying.append(self.submit(call))
            if len(flying) == depth:
                yield flying.popleft()
        yield from flying

    def persist(self, action: Callable[[], T], is_progress: bool = True) -> T:
        """Do something that takes a connection, again when that was lost.

        Args:
            action: what; may be done twice.
            is_progress: whether having done it is worth something when the connection breaks next.

        Raises:
            StorageUnavailable: the server went away, and did not come back.
        """
        while True:
            try:
                result = action()
            except OSError as error:
                self._recover(error)
            else:
                if is_progress:
                    self.progressed()
                return result

    def progressed(self) -> None:
        """Something is done that need not be done again."""
        self._silent_since, self._attempts, self._losses = None, 0, 0

    def end(self, make_error: Callable[[], Exception]) -> None:
        """Have all that is or will be done here raise an error; from any thread."""
        self._is_broken = True
        self.interrupt.end(make_error)

    def close(self) -> None:
        """Drop the connection; only from the session's own thread."""
        self._is_broken = True
        self._drop()

    def _open(self) -> None:
        self._link = self._connect(self.interrupt, self.number)
        self.number = self._link.session_id
        self.generation += 1

    def _recover(self, error: OSError) -> None:
        """Connect again.

        Raises:
            StorageUnavailable: the time is up.
        """
        self._losses += 1
        if self._silent_since is None:
            # Who notices that nothing moves has waited already, half of the time that there is.
            waited = self._timeout / 2 if isinstance(error, TimeoutError) else 0
            self._silent_since = time.monotonic() - waited
        reason = reason_of(error)
        while True:
            self._drop()
            self._pause(reason)
            try:
                self._open()
                return
            except (OSError, StorageUnavailable) as another:
                reason = reason_of(another)

    def _pause(self, reason: str) -> None:
        """Sleep before an attempt, longer each time; the first is made at once."""
        self.interrupt.check()
        assert self._silent_since is not None
        left = self._silent_since + self._timeout - time.monotonic()
        if left <= 0:
            self._give_up(f"for more than {self._timeout:g} s: {reason}")
        if self._losses > _MAX_LOSSES:
            self._give_up(f"{self._losses} times in a row: {reason}")
        if self._attempts:
            pause = min(_FIRST_PAUSE * 2 ** (self._attempts - 1), _LAST_PAUSE)
            self.interrupt.sleep(min(pause, left))
        self._attempts += 1

    def _give_up(self, how: str) -> None:
        self._is_broken = True
        raise StorageUnavailable(f'lost the connection to "{self._server}" {how}')

    def _drop(self) -> None:
        if self._link:
            self._link.close()
            self._link = None
