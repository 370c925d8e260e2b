"""Writing over FTP: one STOR for the whole stream, and going on with it when it breaks.

FTP acknowledges nothing before the end, but after a broken connection the size of the file on the
server tells what has arrived. What was sent and may still have been on its way is kept in a window:
it has to cover what is under way in the network, the receive buffer of the server's kernel (Linux:
6 MiB at most by default), and what programs in between and the server itself hold. When the server
has less than what lies before the window, or will not let an upload go on (REST and STOR, else
APPE), the upload fails.
"""

from __future__ import annotations

import ftplib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from pipeline.errors import Aborted, StorageError, StorageRefused, StorageUnavailable
from pipeline.stage import Writer
from stages.storages._ftp.client import Client, FileMissing
from stages.storages._ftp.errors import is_denied, is_lost, reason_of
from stages.storages._ftp.link import Link, Patience, Place
from stages.storages._ftp.window import Window
from stages.storages._names import exists_already, was_removed

WINDOW_BYTES = 16 << 20
ABORT_SECONDS = 3.0
"""How long `abort` may try to remove what it leaves behind."""
_SETTLE_SECONDS = 1.0
_SEAM_BYTES = 1 << 20
"""So much of what the server has is compared with what was sent before an upload goes on."""


class CannotGoOn(StorageUnavailable):
    """The connection was lost, and another try to go on cannot help."""


class FtpWriter(Writer):
    """A STOR to `.name.token.part`; `commit` renames that.

    Args:
        link: where new connections come from.
        client: a connection on which the STOR is under way.
        place: where the object goes.
        patience: for going on after a broken connection.
    """

    def __init__(self, link: Link, client: Client, place: Place, patience: Patience) -> None:
        self._link = link
        self._client: Client | None = client
        self._place = place
        self._patience = patience
        self._doing = f'write "{place.name}"'
        self._window = Window(WINDOW_BYTES)
        self._sent = 0
        """Offset of the next byte to be sent."""
        self._stored = 0
        """Bytes that the server was last known to have."""
        self._lost_at: float | None = None
        """When it first broke since more had arrived."""
        self._loss = ""
        self._delay = patience.first_delay
        self._renaming = False
        self._failed: StorageError | None = None
        self._ended = threading.Event()
        """Committed or aborted."""
        self._aborted = False
        self._state = threading.Lock()  # Held to decide between commit and abort.
        self._busy = threading.Lock()  # Held while the client is in use.

    def write(self, chunk: bytes) -> None:
        with self._working():
            self._send(self._window.cut(chunk))

    def flush(self) -> None:
        with self._working():
            self._finish()

    def commit(self) -> None:
        with self._working():
            self._finish()
            self._insist(self._publish)
            with self._state:
                if self._aborted:
                    raise Aborted
                self._ended.set()
            if self._client is not None:
                self._link.give_back(self._client)
                self._client = None

    def abort(self) -> None:
        with self._state:
            if self._ended.is_set():
                return
            self._aborted = True
            self._ended.set()
            client = self._client
        if client is not None:
            client.breaker.trip()
        self._hang_up_unless_busy()
        with suppress(StorageError):  # The link is closed; `sweep` finds what stays.
            self._clean_up(self._link.new_client())

    @contextmanager
    def _working(self) -> Iterator[None]:
        try:
            with self._busy:
                if self._failed is not None:
                    raise self._failed
                if self._ended.is_set():
                    raise Aborted
                yield
        except StorageError as error:
            if self._aborted:
                raise Aborted from None
            self._failed = error
            raise
        finally:
            if self._aborted:
                self._hang_up_unless_busy()

    def _hang_up(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def _hang_up_unless_busy(self) -> None:
        """Close the connection; when it is in use, its user does that."""
        if self._busy.acquire(blocking=False):
            try:
                self._hang_up()
            finally:
                self._busy.release()

    # Sending

    def _send(self, pieces: Iterator[bytes]) -> None:
        for piece in pieces:
            self._window.append(piece)
            self._insist(self._catch_up)

    def _finish(self) -> None:
        self._send(self._window.rest())
        self._insist(self._complete)
        self._window.forget()

    def _catch_up(self) -> None:
        """Send what is not sent yet, over a new connection if need be."""
        client = self._client
        if client is None:
            client = self._reconnect()
        if self._sent == self._window.end:
            return
        if client.data is None:
            self._go_on(client)
        for piece in self._window.since(self._sent):
            client.upload(piece)
            self._sent += len(piece)
        if self._sent - self._stored > 2 * WINDOW_BYTES:
            self._lost_at = None  # So much cannot have been sent without any arriving.

    def _complete(self) -> None:
        """Have everything stored and confirmed by the server."""
        self._catch_up()
        if self._client is not None and self._client.data is not None:
            self._client.end_upload()
            self._check_size(self._client)
        self._stored = self._sent
        self._lost_at, self._loss = None, ""

    def _check_size(self, client: Client) -> None:
        place = self._place
        try:
            stored = client.size_of(place.part_path)
        except FileMissing:
            raise was_removed(place.name) from None
        # A server that tells no sizes has at least said that the transfer was complete.
        if stored is not None and stored != self._sent:
            raise StorageRefused(
                f'"{self._link.server}" holds {stored} bytes of "{place.name}", '
                f"{self._sent} were sent"
            )

    # Going on

    def _insist(self, action: Callable[[], None]) -> None:
        """Do something that can be done again; when the connection breaks, do so over a new one."""
        while True:
            try:
                with self._link.errors(self._doing):
                    action()
                return
            except CannotGoOn:
                raise
            except StorageUnavailable as error:
                self._hang_up()
                self._wait_for_better_times(error)

    def _wait_for_better_times(self, error: StorageUnavailable) -> None:
        if self._aborted or self._link.closed:
            raise error
        now = time.monotonic()
        if self._lost_at is None:
            self._lost_at = now
            self._loss = self._loss or error.message
            self._delay = self._patience.first_delay
        if now - self._lost_at > self._patience.seconds:
            hint = f"gave up after {self._patience.seconds:g} s of trying to go on"
            raise StorageUnavailable(error.message, hint) from error
        self._ended.wait(self._delay)
        self._delay = min(2 * self._delay, self._patience.longest_delay)

    def _connect(self) -> Client:
        client = self._link.new_client()
        with self._state:
            self._client = client
            if self._aborted:
                raise Aborted
        self._link.connect(client)
        return client

    def _reconnect(self) -> Client:
        """A new connection, and in `_sent` where to go on."""
        client, server, name = self._connect(), self._link.server, self._place.name
        try:
            stored = client.size_of(self._place.part_path)
        except FileMissing:
            raise was_removed(name) from None
        if stored is None:
            raise CannotGoOn(f'{self._loss}; "{server}" does not tell how much of it arrived')
        if stored > self._stored:
            self._stored, self._lost_at = stored, None
        if stored > self._window.end:
            raise StorageRefused(
                f'"{server}" holds {stored} bytes of "{name}", {self._window.end} were sent'
            )
        if stored < self._window.start:
            # More can appear: what the broken connection brought may not be written yet.
            raise StorageUnavailable(
                f'{self._loss}; "{server}" has {stored} bytes, '
                f"and only those after {self._window.start} are still here"
            )
        self._check_seam(client, stored)
        self._sent = stored
        return client

    def _check_seam(self, client: Client, stored: int) -> None:
        """What a server has after a crash may be something else than what was sent."""
        start = max(self._window.start, stored - _SEAM_BYTES)
        sent = self._window.between(start, stored)
        if not sent:
            return
        try:
            found = b"".join(client.download(f"RETR {self._place.part_path}", start))
        except ftplib.Error as error:
            if is_lost(error):
                raise
            return  # Not allowed to read: the size has to do.
        if found[: len(sent)] != sent:
            raise StorageRefused(
                f'"{self._link.server}" holds other bytes of "{self._place.name}" than were sent'
            )

    def _go_on(self, client: Client) -> None:
        part = self._place.part_path
        try:
            try:
                client.store(part, self._sent)
            except (ftplib.error_perm, ftplib.error_temp):
                if not client.usable:
                    raise
                self._see_it_settle(client)
                client.append(part)
        except ftplib.Error as error:
            if not self._loss or is_lost(error):
                raise
            message = f'{self._loss}; "{self._link.server}" does not let it go on'
            kind = CannotGoOn if is_denied(error) else StorageUnavailable
            raise kind(f"{message}: {reason_of(error)}") from error

    def _see_it_settle(self, client: Client) -> None:
        """Bytes that the server still has of a broken connection would be appended twice."""
        if self._loss:
            self._ended.wait(_SETTLE_SECONDS)
            if client.size_of(self._place.part_path) != self._sent:
                raise StorageUnavailable(f'"{self._link.server}" still writes what had been sent')

    # Ending

    def _publish(self) -> None:
        place, client = self._place, self._client
        if client is None:
            client = self._connect()
        if self._renaming and self._was_renamed(client):
            return
        self._check_size(client)
        # Most servers let a rename replace its target.
        if client.exists(place.final_path):
            raise exists_already(place.name)
        self._renaming = True
        try:
            client.rename(place.part_path, place.final_path)
        except ftplib.error_perm:
            self._renaming = False
            if client.exists(place.final_path):
                raise exists_already(place.name) from None
            if not client.exists(place.part_path):
                raise was_removed(place.name) from None
            raise

    def _was_renamed(self, client: Client) -> bool:
        """What became of a rename that nobody answered."""
        if client.exists(self._place.part_path):
            return False
        try:
            size = client.size_of(self._place.final_path)
        except FileMissing:
            return False
        return client.exists(self._place.final_path) if size is None else size == self._sent

    def _clean_up(self, client: Client) -> None:
        """Remove what is left, in a thread: not even a name server may hold us up."""
        thread = threading.Thread(target=self._remove, args=(client,), daemon=True)
        thread.start()
        thread.join(ABORT_SECONDS)
        if thread.is_alive():
            client.breaker.trip()

    def _remove(self, client: Client) -> None:
        place = self._place
        # Never raises, by contract: `sweep` finds what a dead connection keeps.
        with suppress(StorageError), self._link.errors(f'remove "{place.part}"'):
            try:
                self._link.connect(client)
                if self._renaming and self._was_renamed(client):
                    client.remove(place.final_path)
                client.remove(place.part_path)
                client.remove_empty_parents(place.root, place.part)
            finally:
                self._link.give_back(client)

    def __del__(self) -> None:
        self._hang_up()
