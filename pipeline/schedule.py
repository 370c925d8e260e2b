"""When a schedule makes a backup run: cron expressions, in the time of this machine."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_LOCALTIME = "/etc/localtime"
_DATABASE = "/zoneinfo/"


def local_zone() -> tuple[tzinfo, str]:
    """The time zone of this machine, and its name: as `TZ` says, else as the system does."""
    name = os.environ.get("TZ", "").lstrip(":")
    if not name:
        _, _, name = os.path.realpath(_LOCALTIME).partition(_DATABASE)
    if name:
        with suppress(ZoneInfoNotFoundError, ValueError, OSError):
            return ZoneInfo(name), name
    name = time.tzname[0]
    if "TZ" not in os.environ:
        with suppress(OSError, ValueError), open(_LOCALTIME, "rb") as file:
            return ZoneInfo.from_file(file, name), name
    # A rule instead of a name, or no database of zones: as it is today.
    now = datetime.now().astimezone()
    assert now.tzinfo is not None
    return now.tzinfo, name


def firings(expression: str, after: datetime, zone: tzinfo) -> Iterator[datetime]:
    """The moments that a schedule names, later than `after`, without end, in that zone.

    Where clocks are set, as cron of Debian does it: a time that is skipped counts as the next one
    there is, and one that comes twice counts once, unless the schedule is by the hour or finer.
    """
    from cronsim import CronSim

    return iter(CronSim(expression, after.astimezone(zone)))
