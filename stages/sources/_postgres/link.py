"""A connection to a PostgreSQL server through libpq: nothing waits longer than it may, an abort
ends any wait at once, and a lost connection is never an end.

::

    with Link(server, "shop", Teardown()) as link:
        link.rows("SELECT datname FROM pg_database")
        for batch in link.copy_out("COPY orders TO STDOUT"):
            ...
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack

import psycopg
from psycopg import pq

from pipeline.context import Teardown
from pipeline.errors import SourceError
from pipeline.stage import CHUNK
from schemas.postgres import PostgresServer
from stages.sources._low_water import LowWater
from stages.sources._postgres.address import connection_string
from stages.sources._postgres.errors import failed, text_of

CONNECT_SECONDS = 15.0
_CANCEL_SECONDS = 1.0
_TICK = 0.25
_BLOCK = 64 << 10
_OBJECT = 300
"""Bytes that a message costs us besides its content: rows may be tiny."""
_FAILED = (
    pq.ExecStatus.FATAL_ERROR,
    pq.ExecStatus.BAD_RESPONSE,
    pq.ExecStatus.PIPELINE_ABORTED,
)
_COPYING = (pq.ExecStatus.COPY_IN, pq.ExecStatus.COPY_OUT, pq.ExecStatus.COPY_BOTH)


class Link:
    """A connection for one thread.

    Args:
        database: to connect to; None for a connection that speaks the replication protocol.
        idle_timeout: seconds of silence, while we wait for the server, that are an error.
        extra: further settings of the connection.
    """

    def __init__(
        self,
        server: PostgresServer,
        database: str | None,
        teardown: Teardown,
        idle_timeout: float = 60.0,
        extra: dict[str, str] | None = None,
    ) -> None:
        self._info = connection_string(server, database, with_password=True, extra=extra)
        self._teardown = teardown
        self._idle_timeout = idle_timeout
        self._silence = 0.0
        self._is_busy = False
        """A command was sent, and not all of its results were taken."""
        self._poll = select.poll()
        self._stack = ExitStack()

    def __enter__(self) -> Link:
        try:
            self._connect()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self._is_busy:
                self._cancel()
        finally:
            self._stack.close()

    @property
    def version(self) -> int:
        """Of the server, such as 150018 for 15.18."""
        return self._pg.server_version

    @property
    def version_text(self) -> str:
        return self.parameter("server_version")

    @property
    def encrypted(self) -> bool:
        return self._pg.ssl_in_use

    def parameter(self, name: str) -> str:
        """A setting that the server reports by itself; empty when it does not."""
        return (self._pg.parameter_status(name.encode()) or b"").decode()

    def on_notice(self, listen: Callable[[str], None]) -> None:
        """Have warnings of the server told."""
        self._pg.notice_handler = lambda result: listen(text_of(result))

    # -- questions -------------------------------------------------------------------------------

    def rows(self, sql: str, parameters: Sequence[str] = ()) -> list[tuple[str, ...]]:
        """The rows of a query as text; NULL is an empty one."""
        if parameters:
            values = [value.encode() for value in parameters]
            self._begin(lambda: self._pg.send_query_params(sql.encode(), values))
        else:
            self.begin(sql)
        found: list[tuple[str, ...]] = []
        while (result := self.result()) is not None:
            found += table(result)
        return found

    def begin(self, command: str) -> None:
        """Send a command; its results are taken with `result`."""
        self._begin(lambda: self._pg.send_query(command.encode()))

    def _begin(self, send: Callable[[], None]) -> None:
        self._is_busy = True
        try:
            send()
            self._flush()
        except psycopg.Error as error:
            raise self._lost(error) from None

    def result(self) -> pq.abc.PGresult | None:
        """The next result of a command, None after the last.

        Raises:
            SourceError: the server refused the command, or the connection was lost.
        """
        result = self.any_result()
        if result is not None and result.status in _FAILED:
            raise self.refused(result)
        return result

    def any_result(self) -> pq.abc.PGresult | None:
        """The next result, which may be a failed one."""
        try:
            while self._pg.is_busy():
                self._receive()
            result = self._pg.get_result()
            self._is_busy = result is not None
            return result
        except psycopg.Error as error:
            raise self._lost(error) from None

    def refused(self, result: pq.abc.PGresult) -> SourceError:
        """The error for a failed result."""
        self._teardown.check()
        return failed("the server refused", text_of(result))

    # -- copies ----------------------------------------------------------------------------------

    def copy_out(self, command: str) -> Iterator[list[memoryview]]:
        """The messages of a COPY ... TO STDOUT, one for each row, in batches; see `messages`."""
        self.begin(command)
        result = self.result()
        if result is None or result.status != pq.ExecStatus.COPY_OUT:
            raise SourceError("the server gave no data for COPY")
        yield from self.messages()
        while self.result() is not None:
            pass

    def messages(self) -> Iterator[list[memoryview]]:
        """The messages of the copy that has begun, in batches that take about a chunk of memory.

        Raises:
            SourceError: the connection was lost; the result that follows tells other failures.
        """
        low_water = LowWater(self._socket)
        yield from self._batches(low_water)
        low_water.end()

    def _batches(self, low_water: LowWater) -> Iterator[list[memoryview]]:
        get = self._pg.get_copy_data
        batch: list[memoryview] = []
        size = 0
        waits = True
        while True:
            try:
                length, message = get(1)
            except psycopg.Error as error:
                raise self._lost(error) from None
            if length > 0:
                batch.append(message)
                waits = False
                size += length + _OBJECT
                if size >= CHUNK:
                    yield batch
                    batch, size = [], 0
            elif length < 0:
                break
            elif waits:
                self._receive_much(low_water)
            else:  # There may be more: libpq takes little at a time.
                self._consume()
                waits = True
        if batch:
            yield batch

    def copy_in(self, command: str, pieces: Iterator[bytes]) -> None:
        """Send the data of a COPY ... FROM STDIN, or of another command that takes data."""
        self.begin(command)
        result = self.result()
        if result is None or result.status != pq.ExecStatus.COPY_IN:
            raise SourceError("the server takes no data for COPY")
        try:
            for piece in pieces:
                for start in range(0, len(piece), _BLOCK):
                    self._put(piece[start : start + _BLOCK])
            self._pg.put_copy_end()
            self._flush()
        except psycopg.Error as error:
            raise self._lost(error) from None
        while (result := self.result()) is not None:
            if result.status in _COPYING:
                raise SourceError("the server expects something else after COPY")

    def _put(self, data: bytes) -> None:
        self._pg.put_copy_data(data)
        self._flush()

    def _flush(self) -> None:
        while self._pg.flush():
            # What the server says in the meantime must be read, or both sides wait.
            if self._wait(select.POLLOUT | select.POLLIN) & select.POLLIN:
                self._pg.consume_input()

    # -- waiting ---------------------------------------------------------------------------------

    def _connect(self) -> None:
        self._teardown.check()
        deadline = time.monotonic() + CONNECT_SECONDS
        try:
            self._pg = pq.PGconn.connect_start(self._info.encode())
            self._stack.callback(self._pg.finish)
            self._shake_hands(deadline)
        except psycopg.Error as error:
            raise failed("cannot connect", str(error)) from None
        self._pg.nonblocking = 1
        self._cancel_request = self._prepare_cancel()
        self._poll.register(self._pg.socket, select.POLLIN)
        # A second descriptor of the same socket: libpq may close its own at any time.
        ours = self._stack.enter_context(socket.fromfd(self._pg.socket, socket.AF_INET, 0))
        self._stack.enter_context(self._teardown.calling(lambda: _cut(ours)))
        self._socket = ours

    def _shake_hands(self, deadline: float) -> None:
        while (state := self._pg.connect_poll()) != pq.PollingStatus.OK:
            if state == pq.PollingStatus.FAILED or self._pg.status == pq.ConnStatus.BAD:
                raise failed("cannot connect", self._pg.get_error_message())
            reading = state == pq.PollingStatus.READING
            # The socket changes from one address of the server to the next.
            poll = select.poll()
            poll.register(self._pg.socket, select.POLLIN if reading else select.POLLOUT)
            while not poll.poll(_TICK * 1000):
                self._teardown.check()
                if time.monotonic() > deadline:
                    raise SourceError(f"cannot connect: no answer within {CONNECT_SECONDS:g} s")

    def _receive_much(self, low_water: LowWater) -> None:
        if low_water.wait():
            self._silence = 0.0
            self._consume()
        else:
            with low_water.lowered():
                self._receive()

    def _receive(self) -> None:
        self._wait(select.POLLIN)
        # Also after a wait in vain: the TLS layer may hold what no poll shows.
        self._consume()

    def _consume(self) -> None:
        try:
            self._pg.consume_input()
        except psycopg.Error as error:
            raise self._lost(error) from None

    def _wait(self, events: int) -> int:
        """Wait a moment for the connection to be ready for something; what for."""
        self._poll.modify(self._pg.socket, events)
        ready = self._poll.poll(_TICK * 1000)
        if ready:
            self._silence = 0.0
            return ready[0][1]
        self._teardown.check()
        # Only waits count: in between, a slow storage may hold us up for hours.
        self._silence += _TICK
        if self._silence > self._idle_timeout:
            raise SourceError(
                f"the server was silent for {self._idle_timeout:g} s", "see `idle_timeout`"
            )
        return 0

    def _prepare_cancel(self) -> pq.abc.PGcancelConn | None:
        """What can ask the server to end a command; it has to be made while we are connected."""
        try:
            request = self._pg.cancel_conn()
        except psycopg.Error:
            return None  # The libpq here is older than 17: the server will notice by itself.
        self._stack.callback(request.finish)
        return request

    def _cancel(self) -> None:
        """Ask the server to end what it is at: waiting for a checkpoint or a lock, it would not
        notice for long that we are gone.
        """
        if self._cancel_request is None:
            return
        deadline = time.monotonic() + _CANCEL_SECONDS
        try:
            self._cancel_request.start()
            while time.monotonic() < deadline:
                state = self._cancel_request.poll()
                if state in (pq.PollingStatus.OK, pq.PollingStatus.FAILED):
                    return
                reading = state == pq.PollingStatus.READING
                poll = select.poll()
                poll.register(
                    self._cancel_request.socket, select.POLLIN if reading else select.POLLOUT
                )
                poll.poll(_TICK * 1000)
        except psycopg.Error:
            return  # The server is gone.

    def _lost(self, error: psycopg.Error) -> SourceError:
        self._teardown.check()
        return failed("the connection to the server was lost", str(error))


def table(result: pq.abc.PGresult) -> list[tuple[str, ...]]:
    """The rows of a result as text; NULL is an empty one."""
    columns = range(result.nfields)
    return [
        tuple((result.get_value(row, column) or b"").decode() for column in columns)
        for row in range(result.ntuples)
    ]


def _cut(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        # The other side was quicker, or the connection has just been closed.
        pass
