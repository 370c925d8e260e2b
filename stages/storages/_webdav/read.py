"""Reading: a GET from an offset, gone on with from where it broke."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

from pipeline.errors import StorageError, StorageRefused, StorageUnavailable
from stages.storages._names import ended_early, is_missing
from stages.storages._webdav.errors import FAILURES, connection_error, status_error
from stages.storages._webdav.session import Request, Session
from stages.storages._webdav.tree import look
from stages.storages._webdav.wire import Head

_RANGE = re.compile(r"bytes (\d+)-\d+/(?:\d+|\*)")


class Reader:
    """One object, from an offset to its end."""

    def __init__(self, session: Session, name: str, offset: int) -> None:
        self._session = session
        self._name = name
        self._offset = offset
        self._doing = f'read "{name}"'

    def chunks(self) -> Iterator[bytes]:
        """Read it.

        Raises:
            ObjectMissing: there is no such object.
            StorageError: its end was not reached.
        """
        entry = look(self._session, self._name, self._doing)
        if entry is None or entry.is_collection:
            raise is_missing(self._name)
        if entry.size is not None and self._offset > entry.size:
            raise ended_early(self._name, self._offset)
        tries = _Tries(self._session)
        while entry.size is None or self._offset < entry.size:
            before = self._offset
            try:
                yield from self._rest()
            except FAILURES as error:
                self._session.drop()
                failure = connection_error(error, self._session.link.server, self._doing)
                tries.after(failure, moved=self._offset > before)
            else:
                break
        if entry.size is not None and self._offset != entry.size:
            raise ended_early(self._name, entry.size)

    def _rest(self) -> Iterator[bytes]:
        span = [("range", f"bytes={self._offset}-")] if self._offset else []
        # Compressed on the way, it would be something else than what lies there.
        headers = [("accept-encoding", "identity"), *span]
        wire, head = self._session.begin(Request("GET", self._name, self._doing, headers=headers))
        for chunk in _without(wire.body(head), self._surplus(head)):
            self._offset += len(chunk)
            yield chunk

    def _surplus(self, head: Head) -> int:
        """Bytes that come before the offset: all of them, when the server knows no ranges."""
        if head.status == 404:
            raise is_missing(self._name)
        if head.status == 200:
            return self._offset
        start = _RANGE.fullmatch(head.get("content-range") or "")
        if head.status != 206:
            raise status_error(head.status, self._session.link.server, self._doing)
        if start is None or int(start[1]) != self._offset:
            raise StorageRefused(
                f'"{self._session.link.server}" sent another part of "{self._name}" than it was '
                "asked for"
            )
        return 0


class _Tries:
    """How long a download that broke is gone on with, while nothing more comes."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._delay = session.link.patience.first_delay
        self._end: float | None = None

    def after(self, failure: StorageError, moved: bool) -> None:
        """Wait for the next attempt.

        Raises:
            StorageError: there shall be none.
        """
        patience, link = self._session.link.patience, self._session.link
        now = time.monotonic()
        if moved or self._end is None:
            self._end, self._delay = now + patience.seconds, patience.first_delay
        if link.closed or not isinstance(failure, StorageUnavailable) or now > self._end:
            raise failure
        time.sleep(self._delay)
        self._delay = min(2 * self._delay, patience.longest_delay)


def _without(chunks: Iterator[bytes], surplus: int) -> Iterator[bytes]:
    """All but the first so many bytes."""
    for chunk in chunks:
        if surplus < len(chunk):
            yield chunk[surplus:] if surplus else chunk
        surplus = max(surplus - len(chunk), 0)
