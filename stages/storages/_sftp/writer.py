"""Writing over SFTP: a window of WRITE requests in flight.

One request at a time would wait a round trip for each; a window keeps the connection full. Blocks
stay in it until the server has acknowledged them, so that everything that a broken connection
leaves unanswered is sent again over the next one.
"""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from typing import Any

from pipeline.errors import Aborted, StorageError
from pipeline.stage import Writer
from stages.storages._sftp.errors import was_closed
from stages.storages._sftp.link import Link
from stages.storages._sftp.part import Place
from stages.storages._sftp.session import Session
from stages.storages._sftp.upload import Upload
from stages.storages._sftp.window import Window

ABORT_SECONDS = 3.0
"""How long `abort` may try to remove what it leaves behind."""


class SftpWriter(Writer):
    """The half of a writer that its caller's thread runs; see `Upload` for the other.

    Args:
        link: where new sessions come from.
        session: a session of its own.
        file: an open `.name.token.part` on the server.
        place: where the object goes.
        block: the largest block that the server takes, in bytes.
    """

    def __init__(self, link: Link, session: Session, file: Any, place: Place, block: int) -> None:
        self._link = link
        self._window = Window(block)
        self._upload = Upload(link, session, file, place, self._window)
        self._is_synced = False
        self._call: concurrent.futures.Future[None] | None = None

    def write(self, chunk: bytes) -> None:
        self._is_synced = False
        self._send(self._window.cut(chunk))

    def flush(self) -> None:
        self._send(self._window.rest())
        self._window.wait_empty()
        if not self._is_synced:
            self._wait_for(self._upload.sync)
        self._is_synced = True

    def commit(self) -> None:
        self.flush()
        self._wait_for(self._upload.publish)
        if not self._window.stop(Aborted()):
            raise Aborted

    def abort(self) -> None:
        if not self._window.stop(Aborted()):
            return  # Aborted before, or committed.
        call = self._call
        if call:
            call.cancel()
        # Never raises, by contract: `sweep` finds what a dead connection keeps.
        with suppress(Exception):
            cleanup = self._link.submit(self._upload.clean_up())
            try:
                cleanup.result(ABORT_SECONDS)
            finally:
                cleanup.cancel()

    def _send(self, groups: Iterable[Sequence[memoryview]]) -> None:
        self._window.check()
        for blocks in groups:
            self._window.add(blocks)
            if not self._link.loop.call_soon(self._upload.send):
                self._window.stop(was_closed(self._link.server))

    def _wait_for(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run a coroutine function on the loop; `abort` ends the wait."""
        self._call = call = self._link.submit(work())
        try:
            self._window.check()  # An `abort` that has missed the call has stopped the window.
            self._link.wait(call)
        except StorageError as error:
            self._window.stop(error)
            self._window.check()
        finally:
            call.cancel()
            self._call = None

    def __del__(self) -> None:
        if self._window.stop(Aborted()):
            self._link.loop.call_soon(self._upload.drop)
