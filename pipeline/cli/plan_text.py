"""The document of `plan` as text for people; a calendar shows what rotation would do."""

from __future__ import annotations

from calendar import Calendar, month_name
from collections.abc import Iterator, Sequence
from datetime import date, datetime
from typing import Any

from pipeline.report import format_size

_NAMED = 10
_ABREAST = 2
_WEEKDAYS = "Mo  Tu  We  Th  Fr  Sa  Su "
_LEGEND = "+ a copy is there at the end, - one was removed by then"


def text(backup: dict[str, Any], zone: str) -> Iterator[str]:
    """The lines for one backup."""
    error = backup["error"]
    yield f"{backup['name']}: cannot run: {error}" if error else f"{backup['name']}: would run"
    yield from _schedule(backup["schedule"], zone)
    for artifact in backup["artifacts"]:
        for storage, suffix in artifact["storages"].items():
            yield f"  {artifact['name']} --> {storage} as *{suffix}"
        if "level" in artifact:
            base = artifact["builds_on"]
            yield f"    level {artifact['level']}, " + (f"builds on {base}" if base else "full")
        yield from (f"    warning: {warning}" for warning in artifact.get("warnings", ()))
    for program in backup["programs"]:
        yield f"  program {program['name']}: {_program(program)}"
    for storage in backup["storages"]:
        yield from _storage(storage, backup["expected_size"])
    if "memory_ceiling" in backup:
        yield f"  memory at most {format_size(backup['memory_ceiling'])}:"
        for part in backup["memory"]:
            yield f"    {format_size(part['bytes']):>10}  {part['part']}"
    for storage in backup["storages"]:
        if storage["simulation"]:
            yield from _simulation(storage["name"], storage["simulation"])


def _schedule(schedule: dict[str, Any] | None, zone: str) -> Iterator[str]:
    if schedule is None:
        yield "  no schedule: by itself nothing runs, and nothing is removed"
        return
    yield f"  schedule {schedule['cron']} (time zone {zone}), next:"
    for moment in schedule["next"]:
        yield f"    {datetime.fromisoformat(moment):%a %Y-%m-%d %H:%M %z}"


def _program(program: dict[str, Any]) -> str:
    found = [
        f"{each['version']} ({each['path']})" if each["version"] else each["path"]
        for each in program["found"]
    ]
    if found:
        return ", ".join(found)
    purpose = ", which only a restore needs" if program["to_restore"] else ""
    return f"missing{purpose}: install {program['install']}"


def _storage(storage: dict[str, Any], expected: int | None) -> Iterator[str]:
    largest = storage["largest_object"]
    size = f"objects up to {format_size(largest)}" if largest else "no limit of its own on objects"
    optional = "" if storage["required"] else " (optional)"
    yield f"  storage {storage['name']}{optional}: {size}"
    if storage["takes_expected"] is False and expected is not None:
        yield f"    error: objects of {format_size(expected)} are expected"
    if storage["error"]:
        yield f"    error: {storage['error']}"
    for path in storage["would_remove"]:
        yield f"    rotation would remove {path}"
    for path, reasons in storage["would_keep"].items():
        yield f"    rotation would keep {path}  ({', '.join(reasons)})"


def _simulation(storage: str, simulation: dict[str, Any]) -> Iterator[str]:
    """What the schedule leads to; artifacts that fare alike are told of together."""
    alike: dict[str, list[dict[str, Any]]] = {}
    for artifact in simulation["artifacts"]:
        moments = [artifact["made"], *([each["taken_at"] for each in artifact[k]] for k in _FATES)]
        alike.setdefault(str(moments), []).append(artifact)
    for artifacts in alike.values():
        course = artifacts[0]
        names = ", ".join(artifact["name"] for artifact in artifacts[:_NAMED])
        more = f" and {len(artifacts) - _NAMED} more" if len(artifacts) > _NAMED else ""
        yield ""
        yield (
            f"  {storage} until {simulation['until'][:10]}, {names}{more}: {len(course['made'])} "
            f"copies made, {len(course['removed'])} removed, {len(course['kept'])} there at the end"
        )
        yield from _calendar(course)
        for artifact in artifacts:
            yield from _losses(artifact["removed"])


_FATES = ("removed", "kept")


def _losses(removed: Sequence[dict[str, Any]]) -> Iterator[str]:
    """What of that which exists today would go, and when."""
    existing = [(each["at"], path) for each in removed for path in each["objects"]]
    for at, path in existing[:_NAMED]:
        yield f"    {at[:10]} removes {path}"
    if len(existing) > _NAMED:
        yield f"    and {len(existing) - _NAMED} more that exist today, see --json"


def _calendar(course: dict[str, Any]) -> Iterator[str]:
    """The months in which there are copies, each day with its fate (UTC, as rotation counts)."""
    marks = {_day(each["taken_at"]): "-" for each in course["removed"]}
    marks |= {_day(each["taken_at"]): "+" for each in course["kept"]}
    months = sorted({(day.year, day.month) for day in marks})
    if months:
        yield f"    {_LEGEND}"
    for first in range(0, len(months), _ABREAST):
        blocks = [_month(*month, marks) for month in months[first : first + _ABREAST]]
        height = max(map(len, blocks))
        for line in range(height):
            cells = [block[line] if line < len(block) else "" for block in blocks]
            yield "    " + "   ".join(f"{cell:<{len(_WEEKDAYS)}}" for cell in cells).rstrip()


def _month(year: int, month: int, marks: dict[date, str]) -> list[str]:
    lines = [f"{month_name[month]} {year}", _WEEKDAYS]
    for week in Calendar().monthdatescalendar(year, month):
        days = (
            f"{day.day:2}{marks.get(day, ' ')}" if day.month == month else "   " for day in week
        )
        lines.append(" ".join(days))
    return lines


def _day(stamp: str) -> date:
    return date.fromisoformat(stamp[:10])
