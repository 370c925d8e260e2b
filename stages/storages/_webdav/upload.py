"""One PUT whose size is not known before: it goes to its end, or it fails.

A source may pause for longer than servers wait for more of a body (nginx: one minute). So a little
is held back of what there is to send, and goes out byte by byte while nothing else comes.
"""

from __future__ import annotations

import threading

from pipeline.errors import StorageError, StorageUnavailable
from stages.storages._webdav.errors import (
    FAILURES,
    NOT_RESUMED,
    connection_error,
    described,
    status_error,
)
from stages.storages._webdav.session import Request, Session
from stages.storages._webdav.tree import Place, check_stored
from stages.storages._webdav.wire import Head, Wire

HELD_BACK = 4096
_PAUSE_SECONDS = 10.0
_SUCCESS = (200, 201, 204)


class Upload:
    """The body of an unfinished object on its way.

    Args:
        session: makes the PUT, and can do nothing else until its end.
        other: for questions meanwhile.
        place: where the object goes.
    """

    def __init__(self, session: Session, other: Session, place: Place) -> None:
        self.size = 0
        """Bytes that were taken; the last of them may not be sent yet."""
        self._session = session
        self._other = other
        self._place = place
        self._doing = f'write "{place.name}"'
        self._wire: Wire | None = None
        self._held = b""
        self._lock = threading.Lock()  # Held while something is sent.
        self._keeper: threading.Thread | None = None
        self._ended = threading.Event()

    def write(self, chunk: bytes) -> None:
        """Send a chunk, and what was held back of those before.

        Raises:
            StorageError: the upload has failed.
        """
        with self._lock:
            self.size += len(chunk)
            if len(self._held) + len(chunk) <= HELD_BACK:
                self._held += chunk
                return
            keep = max(len(chunk) - HELD_BACK, 0)
            held, self._held = self._held, chunk[keep:]
            self._send(held, memoryview(chunk)[:keep])

    def finish(self) -> None:
        """End the body, and see that the server has all of it.

        Raises:
            StorageError: it has not.
        """
        self.stop()
        if self._keeper is not None:
            self._keeper.join()
        with self._lock:
            if not self.size:
                check_stored(self._other, self._place, 0, self._doing)
                return
            held, self._held = self._held, b""
            wire = self._send(held)
            # The end would make a new one, if somebody has removed it.
            check_stored(self._other, self._place, None, self._doing)
            self._end(wire)

    def stop(self) -> None:
        """Have nothing more sent by itself; returns at once."""
        self._ended.set()

    # Sending

    def _send(self, *pieces: bytes | memoryview) -> Wire:
        if self._wire is None:
            self._wire = self._begin()
            self._keeper = threading.Thread(
                target=self._keep_going, args=(self._wire,), daemon=True
            )
            self._keeper.start()
        wire = self._wire
        try:
            head = wire.early_answer()
            if head is None:
                wire.send_body(pieces)
                return wire
        except FAILURES as error:
            head = wire.last_words()
            if head is None:
                raise self._broken(error) from error
        raise self._cut_off(head)

    def _begin(self) -> Wire:
        request = Request("PUT", self._place.part, self._doing)
        try:
            wire, head = self._session.begin_upload(request)
        except FAILURES as error:
            raise self._broken(error) from error
        if head is not None:
            raise status_error(head.status, self._session.link.server, self._doing)
        return wire

    def _keep_going(self, wire: Wire) -> None:
        """Send what was held back, slowly, while nothing else is there to be sent."""
        before = -1
        while not self._ended.wait(_PAUSE_SECONDS):
            with self._lock:
                paused, before = self.size == before, self.size
                if not paused or not self._held or self._ended.is_set():
                    continue
                first, self._held = self._held[:1], self._held[1:]
                try:
                    wire.send_body([first])
                except FAILURES:
                    return  # Whoever sends next meets the same.

    # Ending

    def _end(self, wire: Wire) -> None:
        try:
            wire.end_body()
            self._wait_for_answer(wire)
            head = wire.head()
        except FAILURES as error:
            self._find_out(error)
            return
        except StorageUnavailable as error:
            raise StorageUnavailable(error.message, NOT_RESUMED) from error
        if head.status not in _SUCCESS:
            raise status_error(head.status, self._session.link.server, self._doing)
        for _ in wire.body(head):
            pass  # A few words for people.
        check_stored(self._other, self._place, self.size, self._doing)

    def _wait_for_answer(self, wire: Wire) -> None:
        """Wait as long as it takes a server to put the body away, but not for a dead one."""
        while not wire.has_answer(self._session.link.spec.timeout):
            check_stored(self._other, self._place, None, self._doing)

    def _find_out(self, error: BaseException) -> None:
        """The connection broke when all was sent: perhaps only the answer is lost."""
        broken = self._broken(error)
        try:
            is_stored = check_stored(self._other, self._place, self.size, self._doing)
        except StorageError:
            raise broken from error
        if not is_stored:
            raise broken from error

    # Failing

    def _broken(self, error: BaseException) -> StorageError:
        failure = connection_error(error, self._session.link.server, self._doing)
        if isinstance(failure, StorageUnavailable):
            return StorageUnavailable(failure.message, NOT_RESUMED)
        return failure

    def _cut_off(self, head: Head) -> StorageError:
        """The server has answered before the end."""
        server = self._session.link.server
        if head.status < 300:
            return StorageUnavailable(
                f'"{server}" ended the upload of "{self._place.name}" early: '
                f"{described(head.status)}",
                NOT_RESUMED,
            )
        if head.status == 401:
            return self._session.link.login.refused(server)
        return status_error(head.status, server, self._doing)
