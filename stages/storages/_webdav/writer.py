"""Writing: a PUT to a name beside the object's, and a MOVE to its own.

Small requests are made again when a connection breaks. The PUT itself cannot be: nothing in WebDAV
goes on with half an upload, and the data is gone. So what breaks then fails.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from pipeline.errors import Aborted, StorageError, StorageRefused
from pipeline.stage import Writer
from stages.storages._webdav.link import Link
from stages.storages._webdav.session import Request, Session
from stages.storages._webdav.tree import Place, move, was_moved
from stages.storages._webdav.upload import Upload

_ABORT_SECONDS = 2.0
"""How long `abort` may try to remove what it leaves behind."""


class WebdavWriter(Writer):
    """An upload that ends with its first `flush`: nothing can be written after that.

    Args:
        link: where connections come from.
        session: the one that has made the unfinished object.
        place: where the object goes.
    """

    def __init__(self, link: Link, session: Session, place: Place) -> None:
        self._link = link
        self._place = place
        self._doing = f'write "{place.name}"'
        self._session = session
        self._other = Session(link)
        self._upload = Upload(session, self._other, place)
        self._is_flushed = False
        self._moving = False
        self._failed: StorageError | None = None
        self._ended = False
        """Committed or aborted."""
        self._aborted = False
        self._state = threading.Lock()  # Held to decide between commit and abort.
        self._busy = threading.Lock()  # Held while the sessions are in use.

    def write(self, chunk: bytes) -> None:
        with self._working():
            if self._is_flushed:
                raise StorageRefused(f'nothing can be added to "{self._place.name}" after a flush')
            self._upload.write(chunk)

    def flush(self) -> None:
        with self._working():
            self._finish()

    def commit(self) -> None:
        with self._working():
            self._finish()
            self._moving = True
            move(self._session, self._place, self._upload.size, self._doing)
            with self._state:
                if self._aborted:
                    raise Aborted
                self._ended = True
            self._hang_up()

    def abort(self) -> None:
        with self._state:
            if self._ended:
                return
            self._aborted = self._ended = True
        self._upload.stop()
        self._session.stop()
        self._other.stop()
        self._hang_up_unless_busy()
        self._clean_up()

    @contextmanager
    def _working(self) -> Iterator[None]:
        try:
            with self._busy:
                if self._failed is not None:
                    raise self._failed
                if self._ended:
                    raise Aborted
                yield
        except StorageError as error:
            if self._aborted:
                raise Aborted from None
            self._failed = error
            self._upload.stop()
            raise
        finally:
            if self._aborted or self._failed is not None:
                self._hang_up_unless_busy()

    def _finish(self) -> None:
        if not self._is_flushed:
            self._upload.finish()
            self._is_flushed = True

    # Ending

    def _hang_up(self) -> None:
        self._session.close()
        self._other.close()

    def _hang_up_unless_busy(self) -> None:
        """Close the connections; when they are in use, their user does that."""
        if self._busy.acquire(blocking=False):
            try:
                self._hang_up()
            finally:
                self._busy.release()

    def _clean_up(self) -> None:
        """Remove what is left, in a thread: not even a name server may hold us up."""
        session = Session(self._link)
        thread = threading.Thread(target=self._remove, args=(session,), daemon=True)
        thread.start()
        thread.join(_ABORT_SECONDS)
        session.stop()

    def _remove(self, session: Session) -> None:
        place, doing = self._place, f'remove "{self._place.part}"'
        # Never raises, by contract: `sweep` finds what a dead connection keeps.
        with suppress(StorageError, Aborted):
            try:
                # First, since a MOVE that is still under way finds nothing then, or is done.
                gone = session.request(Request("DELETE", place.part, doing)).status == 404
                may_be_moved = gone and self._moving
                if may_be_moved and was_moved(session, place, self._upload.size, doing):
                    session.request(Request("DELETE", place.name, doing))
            finally:
                session.close()

    def __del__(self) -> None:
        self._upload.stop()
        self._session.drop()
        self._other.drop()
