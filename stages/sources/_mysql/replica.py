"""The replication of a replica, stopped for the time of a dump."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from pipeline.errors import SourceError
from stages.sources._mysql.link import Link, literal

_ATTEMPTS = 5
_PAUSE = 2.0


class Pause:
    """Stops the applying of changes, of those replications that run.

    Args:
        connect: opens a connection; starting again does not depend on one that may be dead.
    """

    def __init__(self, connect: Callable[[], Link]) -> None:
        self._connect = connect
        self._stopped: list[str] = []
        self.facts: dict[str, str] = {}
        """Up to where the changes of the primary are part of the dump."""

    def begin(self) -> None:
        """Stop.

        Raises:
            SourceError: the server is no replica, or does not permit it.
        """
        link = self._connect()
        try:
            replications = status(link)
            if not replications:
                raise SourceError(
                    f'"{link.login.address}" is no replica', "leave stop_slave out of its backup"
                )
            for name, row in replications:
                if _value(row, "SQL_Running") == "Yes":
                    self._stopped.append(name)
                    link.execute(_command(link, "STOP", name))
            for name, row in status(link):
                self._note(name, row)
        finally:
            link.close()

    def _note(self, name: str, row: dict[str, str | None]) -> None:
        prefix = f"{name}_" if name else ""
        for fact, keys in {
            "source_log_file": ("Relay_Master_Log_File", "Relay_Source_Log_File"),
            "source_log_position": ("Exec_Master_Log_Pos", "Exec_Source_Log_Pos"),
        }.items():
            value = next((row[key] for key in keys if row.get(key)), None)
            if value:
                self.facts[prefix + fact] = str(value)

    def end(self) -> None:
        """Start what was stopped, however often that has to be tried.

        Raises:
            SourceError: it is still stopped.
        """
        for attempt in range(_ATTEMPTS):
            if not self._stopped:
                return
            if attempt:
                time.sleep(_PAUSE)
            try:
                self._start_all()
            except SourceError as error:
                reason = error
        if self._stopped:
            raise SourceError(f"replication could not be started again: {reason.message}")

    def _start_all(self) -> None:
        link = self._connect()
        try:
            while self._stopped:
                link.execute(_command(link, "START", self._stopped[-1]))
                self._stopped.pop()
        finally:
            link.close()


def status(link: Link) -> Sequence[tuple[str, dict[str, str | None]]]:
    """The replications of a server by their names; empty when it is no replica."""
    if link.is_mariadb:
        rows = link.rows("SHOW ALL SLAVES STATUS")
        return [(row["Connection_name"], row) for row in rows]
    modern = link.release >= (8, 0, 22)
    rows = link.rows("SHOW REPLICA STATUS" if modern else "SHOW SLAVE STATUS")
    return [(row.get("Channel_Name", ""), row) for row in rows]


def _value(row: dict[str, str | None], what: str) -> str | None:
    return row.get(f"Slave_{what}") or row.get(f"Replica_{what}")


def _command(link: Link, verb: str, name: str) -> str:
    if link.is_mariadb:
        return f"{verb} SLAVE {literal(name)} SQL_THREAD" if name else f"{verb} SLAVE SQL_THREAD"
    word = "REPLICA" if link.release >= (8, 0, 22) else "SLAVE"
    return f"{verb} {word} SQL_THREAD FOR CHANNEL {literal(name)}"
