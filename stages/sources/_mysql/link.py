"""A connection to a server, set up for reading. All that leans on the inside of PyMySQL is here and
in `rows.py`.
"""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pymysql  # type: ignore[import-untyped]
from pymysql.constants import CLIENT, COMMAND  # type: ignore[import-untyped]
from pymysql.converters import encoders  # type: ignore[import-untyped]
from pymysql.cursors import Cursor, DictCursor  # type: ignore[import-untyped]

from pipeline.errors import SourceError
from stages._tls import ssl_context
from stages.sources._low_water import LowWater
from stages.sources._mysql.login import Login

_CONNECT_SECONDS = 15
_HOURS = 3600
_SETTINGS: dict[str, str] = {
    "sql_mode": "''",
    "time_zone": "'+00:00'",
    "sql_quote_show_create": "1",
    # Whatever would cut off or change what a SELECT gives.
    "sql_big_selects": "1",
    "sql_auto_is_null": "0",
    "max_error_count": "64",
    "max_statement_time": "0",
    "max_execution_time": "0",
    "system_versioning_asof": "DEFAULT",
    # A stalled upload stops our reading; the server must not give up on us for that.
    "net_write_timeout": str(6 * _HOURS),
    "net_read_timeout": str(6 * _HOURS),
    "wait_timeout": str(7 * 24 * _HOURS),
    "idle_transaction_timeout": "0",
    "idle_readonly_transaction_timeout": "0",
    "idle_write_transaction_timeout": "0",
    # Hashes of passwords as hexadecimal digits: some are not text.
    "print_identified_with_as_hex": "1",
    "show_gipk_in_create_table_and_information_schema": "1",
}
"""Set for our sessions where the server knows them."""
_DENIED = frozenset({1044, 1045, 1095, 1142, 1143, 1227, 1370, 1698})
_LOST = frozenset({0, 1053, 1158, 1159, 1160, 1161, 1927, 2006, 2013, 4031})
_HINTS = {
    1045: "check user and password",
    1698: "check user and password; this account may only log in through the socket",
    1129: 'the server has blocked this host after failed logins; "FLUSH HOSTS" there',
    1040: "the server has too many connections",
    1205: "something holds a lock; see `lock_wait`",
    1412: "a table was altered during the dump; run it when nobody does that",
    1146: "a table was dropped or renamed during the dump",
    1054: "a table was altered during the dump; run it when nobody does that",
    1317: "somebody ended the query",
    1969: "the server ended the query for its time; see its max_statement_time",
    3024: "the server ended the query for its time; see its max_execution_time",
}


class Link:
    """One connection. Its methods are for one thread at a time, `interrupt` for any.

    Args:
        idle_timeout: seconds that the server may be silent.
        lock_wait: seconds to wait for a lock.
        joining: gets each socket before it is connected, and after; may raise.

    Raises:
        SourceError: from every method that talks to the server.
    """

    def __init__(
        self,
        login: Login,
        idle_timeout: float,
        lock_wait: float = 30,
        joining: Callable[[socket.socket], None] = lambda _: None,
    ) -> None:
        self.login = login
        self._low_water: LowWater | None = None
        with self._explained():
            self._connection = _connect(login, idle_timeout, joining)
            # Before anything that a limit would cut off.
            self.execute("SET SESSION sql_select_limit=18446744073709551615")
            self.version: str = self.query("SELECT VERSION()")[0][0]
            self._set_up({**_SETTINGS, "lock_wait_timeout": str(max(1, int(lock_wait)))})
        self.is_mariadb = "mariadb" in self.version.lower()

    @property
    def release(self) -> tuple[int, ...]:
        """The version in numbers, such as (10, 11, 19)."""
        return tuple(int(part) for part in re.findall(r"\d+", self.version)[:3])

    def _set_up(self, wanted: dict[str, str]) -> None:
        names = ",".join(f"'{name}'" for name in wanted)
        known = self.query(f"SHOW SESSION VARIABLES WHERE Variable_name IN ({names})")
        settings = [f"SESSION {name}={wanted[name]}" for name, _ in known]
        self.execute("SET " + ", ".join(settings))
        self.execute("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ")

    def query(self, sql: str, arguments: Sequence[str] | None = None) -> list[tuple[Any, ...]]:
        """All rows of a statement; texts, or None."""
        rows: list[tuple[Any, ...]] = self._run(sql, arguments, Cursor)
        return rows

    def rows(self, sql: str, arguments: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """The same, each row by the names of its columns."""
        rows: list[dict[str, Any]] = self._run(sql, arguments, DictCursor)
        return rows

    def execute(self, sql: str) -> None:
        """Run a statement that has no rows."""
        self._run(sql, None, Cursor)

    def variables(self, *names: str) -> dict[str, str]:
        """The global variables among these that the server knows."""
        listed = ",".join(f"'{name}'" for name in names)
        return dict(self.query(f"SHOW GLOBAL VARIABLES WHERE Variable_name IN ({listed})"))

    def status(self, pattern: str) -> dict[str, str]:
        """Counters of the server whose names match a pattern of LIKE."""
        return dict(self.query("SHOW STATUS LIKE %s", [pattern]))

    def _run(self, sql: str, arguments: Sequence[str] | None, kind: type[Cursor]) -> list[Any]:
        with self._explained(), self._connection.cursor(kind) as cursor:
            cursor.execute(sql, arguments)
            return list(cursor.fetchall())

    def begin_rows(self, sql: str) -> tuple[bytes, Callable[[memoryview], int]]:
        """Start a SELECT whose packets the caller reads.

        Returns:
            The first bytes after the description of the columns, and what reads on from there.
        """
        connection: Any = self._connection
        with self._explained():
            connection._execute_command(COMMAND.COM_QUERY, sql)
            columns = connection._read_packet().read_length_encoded_integer()
            for _ in range(columns + 1):
                connection._read_packet()
            # Whatever is buffered, at once; from here on the socket is read without the buffer.
            first = connection._rfile.read1(1 << 16)
            if isinstance(connection._sock, ssl.SSLSocket):
                return first, connection._sock.recv_into
            self._low_water = LowWater(connection._sock)
            return first, self._low_water.receive_into

    def end_rows(self) -> None:
        """The caller has read the last packet."""
        connection: Any = self._connection
        connection._result = None
        if self._low_water is not None:
            self._low_water.end()
            self._low_water = None

    def explain(self, error: BaseException) -> SourceError:
        """What an error of the driver or the socket means."""
        if isinstance(error, TimeoutError):
            return SourceError(
                f'"{self.login.address}" was silent for too long', "see idle_timeout"
            )
        if isinstance(error, pymysql.err.MySQLError) and len(error.args) > 1:
            return _explained(self.login, int(error.args[0]), str(error.args[1]))
        return _explained(self.login, 0, str(error))

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except SourceError:
            raise
        except (pymysql.err.Error, OSError, EOFError) as error:
            raise self.explain(error) from None

    def interrupt(self) -> None:
        """End whatever waits for the server; the connection is of no use afterwards."""
        sock = getattr(self._connection, "_sock", None)
        if sock is not None:
            interrupt(sock)

    def close(self) -> None:
        """Say goodbye, and let go of the connection; never raises."""
        self._connection._force_close()


def interrupt(sock: socket.socket) -> None:
    """Wake whoever waits for a socket, with an error."""
    with contextlib.suppress(OSError):  # Not connected, or not any more.
        # Not the method of a TLS socket: that one takes the key away from a reader.
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


def _connect(
    login: Login, idle_timeout: float, joining: Callable[[socket.socket], None]
) -> pymysql.Connection[Any]:
    context = ssl_context(login.tls, login.host)
    connection: Any = pymysql.connect(
        host=login.host,
        user=login.user,
        password=login.password,
        charset="utf8mb4",
        read_timeout=_CONNECT_SECONDS,
        write_timeout=int(max(1, idle_timeout)),
        autocommit=True,
        # Every value as text: what dates and numbers look like is for the server to say.
        conv=encoders,
        ssl=context,
        ssl_disabled=context is None,
        defer_connect=True,
        program_name="nxs-backup",
    )
    if login.tls.mode == "prefer":
        connection._ssl_required = False
        connection.client_flag &= ~CLIENT.SSL
    # What goes through a socket of this machine needs no encryption to be secret.
    connection._secure = login.socket is not None
    sock = _reach(login, joining)
    try:
        connection.connect(sock)
    except BaseException:
        sock.close()
        raise
    connection._read_timeout = max(1, idle_timeout)
    return connection


def _reach(login: Login, joining: Callable[[socket.socket], None]) -> socket.socket:
    """A connection without a login.

    Raises:
        SourceError: nobody is there.
    """
    try:
        return _first(_addresses(login), joining)
    except OSError as error:
        reason = (error.strerror or str(error) or "no answer").lower()
        raise SourceError(f'"{login.address}" cannot be reached: {reason}') from None


def _addresses(login: Login) -> list[tuple[socket.AddressFamily, Any]]:
    if login.socket is not None:
        return [(socket.AF_UNIX, login.socket)]
    found = socket.getaddrinfo(login.host, login.port, type=socket.SOCK_STREAM)
    return [(family, address) for family, _, _, _, address in found]


def _first(
    addresses: list[tuple[socket.AddressFamily, Any]], joining: Callable[[socket.socket], None]
) -> socket.socket:
    """A socket that is connected to the first address that answers."""
    failure = OSError("it has no address")
    for family, address in addresses:
        sock = socket.socket(family)
        try:
            joining(sock)
            sock.settimeout(_CONNECT_SECONDS)
            if family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            sock.connect(address)
            joining(sock)  # Only now it can be woken for certain.
            return sock
        except OSError as error:
            sock.close()
            failure = error
        except BaseException:
            sock.close()
            raise
    raise failure


def _explained(login: Login, code: int, text: str) -> SourceError:
    said = " ".join(text.split()).rstrip(".")
    where = f'"{login.address}"'
    if code in _LOST:
        return SourceError(f"the connection to {where} was lost: {said or 'closed'}")
    if code == 2003:
        return SourceError(f"{where} cannot be reached: {said}")
    if code in _DENIED:
        hint = _HINTS.get(code, "see `check --connect` for the privileges that are needed")
        return SourceError(f"{where} denies access: {said}", hint)
    return SourceError(f"{where} says: {said} (error {code})", _HINTS.get(code))


def quoted(name: str) -> str:
    """A name as an identifier."""
    return "`" + name.replace("`", "``") + "`"


def literal(text: str) -> str:
    """A text as a string literal, whatever sql_mode and character set are in force: no backslash
    is left in it that could be read in two ways.
    """
    if re.fullmatch(r"[ -&(-\[\]-~]*", text):
        return f"'{text}'"
    return f"_utf8mb4 x'{text.encode('utf-8', 'surrogateescape').hex()}'"
