"""Names of objects on a storage: pure functions, each with its inverse (DESIGN section 6, fixed).

::

    <backup>/<artifact>/<artifact>_2026-11-23T03-15-00Z.sql.zst.age
    <backup>/<artifact>/<artifact>_2026-11-23T03-15-00Z.sql.zst.age.manifest.json
    <backup>/<artifact>/<artifact>_2026-11-23T03-15-00Z.snapshot.zst.age    index of an increment
    <backup>/<artifact>/.<basename>.<token>.part            unfinished
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from urllib.parse import quote, unquote

MANIFEST_SUFFIX = ".manifest.json"
INDEX_SUFFIX = ".snapshot.zst"
_STAMP = "%Y-%m-%dT%H-%M-%SZ"
_OBJECT = re.compile(
    r"(?P<artifact>.+)_(?P<stamp>\d{4}-\d\d-\d\dT\d\d-\d\d-\d\dZ)(?P<suffix>(\.[A-Za-z0-9]+)*)"
)
_PART = re.compile(r"\.(?P<base>.+)\.(?P<token>[0-9a-f]{8}-[0-9]{8}T[0-9]{6}Z-[0-9a-f]{6})\.part")


def quote_name(name: str) -> str:
    """A file-system- and URL-safe form; letters, digits, `_`, `-` and inner `.` stay readable."""
    quoted = quote(name.encode("utf-8", "surrogateescape"), safe="").replace("~", "%7E")
    return "%2E" + quoted[1:] if quoted.startswith(".") else quoted


def unquote_name(quoted: str) -> str:
    """The inverse of `quote_name`."""
    return unquote(quoted, errors="surrogateescape")


def format_stamp(when: datetime) -> str:
    """UTC to the second, without colons (SMB refuses them)."""
    return when.astimezone(timezone.utc).strftime(_STAMP)


def parse_stamp(stamp: str) -> datetime:
    """The inverse of `format_stamp`.

    Raises:
        ValueError: it is not a stamp.
    """
    return datetime.strptime(stamp, _STAMP).replace(tzinfo=timezone.utc)


@dataclass(frozen=True)
class ObjectName:
    """The name of an artifact's object, taken apart."""

    backup: str
    artifact: str
    taken_at: datetime
    suffix: str
    """All suffixes together: `.sql.zst.age`."""

    @property
    def directory(self) -> str:
        return f"{self.backup}/{quote_name(self.artifact)}"

    @property
    def path(self) -> str:
        base = quote_name(self.artifact)
        return f"{self.directory}/{base}_{format_stamp(self.taken_at)}{self.suffix}"

    @property
    def manifest(self) -> str:
        return self.path + MANIFEST_SUFFIX


def parse_object(path: str) -> ObjectName | None:
    """Take the path of an object apart; None when we would not have written it like this."""
    parts = path.split("/")
    if len(parts) != 3:
        return None
    backup, directory, base = parts
    match = _OBJECT.fullmatch(base)
    if match is None or match["artifact"] != directory:
        return None
    try:
        taken_at = parse_stamp(match["stamp"])
    except ValueError:
        return None
    name = ObjectName(backup, unquote_name(directory), taken_at, match["suffix"])
    return name if name.path == path else None


def indexes_of(path: str) -> list[str]:
    """The names that the index beside an object may have: in the clear, or encrypted."""
    name = parse_object(path)
    if name is None:
        return []
    bare = replace(name, suffix=INDEX_SUFFIX).path
    return [bare, bare + ".age"]


def part_name(name: str, token: str) -> str:
    """Where an object lies until it is committed."""
    directory, _, base = name.rpartition("/")
    part = f".{base}.{token}.part"
    return f"{directory}/{part}" if directory else part


def parse_part(path: str) -> tuple[str, str] | None:
    """(final name, token) of an unfinished object; None when it is not one of ours."""
    directory, _, base = path.rpartition("/")
    match = _PART.fullmatch(base)
    if match is None:
        return None
    try:
        parse_token(match["token"])
    except ValueError:
        return None  # looks like a token, but names no moment
    return (f"{directory}/{match['base']}" if directory else match["base"]), match["token"]


def run_token(identity: str, when: datetime, nonce: str) -> str:
    """Names a run in its unfinished objects: `<identity>-<UTC time>-<nonce>`.

    Args:
        identity: 8 hex digits that stand for project, host and backup.
        when: start of the run.
        nonce: 6 hex digits.
    """
    return f"{identity}-{when.astimezone(timezone.utc).strftime('%Y%m%dT%H%M%SZ')}-{nonce}"


def parse_token(token: str) -> tuple[str, datetime]:
    """(identity, start of the run) of a token made by `run_token`."""
    identity, stamp, _ = token.split("-")
    return identity, datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=timezone.utc)
