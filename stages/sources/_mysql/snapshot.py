"""One moment, seen through several connections.

Each connection has a transaction with a consistent view. That the views are the same comes from

- a global read lock while they are opened, a few milliseconds (`FLUSH TABLES WITH READ LOCK`), or
- MariaDB saying that they are: it tells for each view its position in the binary log. Without a
  lock they are opened again until the positions agree.

The position that comes with it is what replication or point-in-time recovery starts from.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from pipeline.errors import SourceError
from stages.sources._mysql import replica
from stages.sources._mysql.link import Link, literal

SAVEPOINT = "nxs_backup"
"""Going back to it lets go of the locks on the definitions of the tables read since."""
_TRIES = 20
_SHORT = 2
"""Seconds that a global lock is waited for at once: meanwhile everybody who writes waits too."""


@dataclass
class Snapshot:
    """How the views were opened."""

    links: Sequence[Link]
    """Those that share it: maybe fewer than were given."""
    facts: dict[str, str] = field(default_factory=dict)
    """Position in the binary log, GTID."""
    warnings: list[str] = field(default_factory=list)
    lock: Link | None = None
    """Holds the global read lock, for `lock: full`."""


def take(links: Sequence[Link], spare: Link, lock: str, lock_wait: float) -> Snapshot:
    """Open the same view on these connections.

    Args:
        spare: a connection of its own for the lock; it is closed unless it has to hold it.
        lock: as in the configuration: `auto`, `none` or `full`.
        lock_wait: seconds to wait for the global lock.

    Raises:
        SourceError: it is not to be had; no lock is left behind.
    """
    if lock == "full":
        facts = _locked(links, spare, lock_wait)
        return Snapshot(links, facts, lock=spare)
    logs = _writes_log(links[0])
    if _positions_tell(links[0]):
        found = _aligned(links)
        if found is not None:
            return Snapshot(links, found)
    if lock == "auto" and (len(links) > 1 or logs):
        try:
            facts = _locked(links, spare, lock_wait)
        except SourceError as error:
            return _alone(links[0], f"no global lock: {error.message}")
        spare.execute("UNLOCK TABLES")
        return Snapshot(links, facts)
    return _alone(links[0], "lock is none" if len(links) > 1 else "")


def _alone(link: Link, why: str) -> Snapshot:
    """The view of one connection needs no lock."""
    _open(link)
    facts = _position_of_view(link) if link.is_mariadb else {}
    warnings = []
    if why:
        lost = "" if facts else ", and without a position in the binary log"
        warnings.append(f"read over one connection{lost}: {why}")
    return Snapshot([link], facts, warnings)


def _open(link: Link) -> None:
    link.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT")
    link.execute(f"SAVEPOINT {SAVEPOINT}")


def release(link: Link) -> None:
    """Let go of the locks on the definitions of tables, and keep the view."""
    link.execute(f"ROLLBACK TO SAVEPOINT {SAVEPOINT}")


def _locked(links: Sequence[Link], lock: Link, wait: float) -> dict[str, str]:
    """Open the views while nobody writes.

    Raises:
        SourceError: the lock is not permitted, or not to be had within `wait` seconds.
    """
    deadline = time.monotonic() + wait
    lock.execute(f"SET SESSION lock_wait_timeout={max(1, min(_SHORT, int(wait)))}")
    while True:
        try:
            lock.execute("FLUSH TABLES WITH READ LOCK")
            break
        except SourceError as error:
            # A long statement is under way: let those pass who wait behind us, and try again.
            if "error 1205" not in error.message or time.monotonic() > deadline:
                raise
            time.sleep(0.5)
    for link in links:
        _open(link)
    return _position_of_server(lock)


def _writes_log(link: Link) -> bool:
    return link.variables("log_bin").get("log_bin") == "ON"


def _positions_tell(link: Link) -> bool:
    """Whether equal positions mean equal views: everything that is written must be in the log."""
    if not link.is_mariadb or not _writes_log(link):
        return False
    known = link.variables("log_slave_updates", "binlog_do_db", "binlog_ignore_db")
    if known.get("binlog_do_db") or known.get("binlog_ignore_db"):
        return False
    replicates = link.status("Slave_running").get("Slave_running") == "ON"
    return known.get("log_slave_updates") == "ON" or not replicates


def _aligned(links: Sequence[Link]) -> dict[str, str] | None:
    """Open the views until they agree; None when the server is written to too often."""
    for _ in range(_TRIES):
        for link in links:
            _open(link)
        found = [_position_of_view(link) for link in links]
        if found[0] and all(each == found[0] for each in found):
            return found[0]
        if not found[0]:
            return None
        for link in links:
            link.execute("ROLLBACK")
    return None


def _position_of_view(link: Link) -> dict[str, str]:
    """Of the transaction of this connection (MariaDB); empty when there is none."""
    status = link.status("binlog\\_snapshot\\_%")
    file, position = status.get("Binlog_snapshot_file"), status.get("Binlog_snapshot_position")
    if not file or not position or not position.isdecimal():
        return {}
    facts = {"binlog_file": file, "binlog_position": position}
    gtid = link.query(f"SELECT BINLOG_GTID_POS({literal(file)}, {position})")[0][0]
    return facts | ({"gtid": gtid} if gtid else {})


def _position_of_server(link: Link) -> dict[str, str]:
    """While nobody writes; empty without a binary log, or without the privilege to see it."""
    modern = not link.is_mariadb and link.release >= (8, 2)
    try:
        rows = link.rows("SHOW BINARY LOG STATUS" if modern else "SHOW MASTER STATUS")
    except SourceError as error:
        if "denies access" in error.message:
            return {}
        raise
    if not rows:
        return {}
    facts = {"binlog_file": rows[0]["File"], "binlog_position": str(rows[0]["Position"])}
    gtid = rows[0].get("Executed_Gtid_Set")
    if link.is_mariadb:
        gtid = link.query("SELECT @@GLOBAL.gtid_binlog_pos")[0][0]
    return facts | ({"gtid": "".join(gtid.split())} if gtid else {})


def is_replica(link: Link) -> bool:
    """Whether the server replicates from another; False where we may not see it."""
    try:
        return bool(replica.status(link))
    except SourceError:
        return False
