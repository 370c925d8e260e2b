"""What PostgreSQL says, in our style, with a hint where we know one."""

from __future__ import annotations

import re

from psycopg import pq

from pipeline.errors import SourceError

_HINTS = (
    ("password authentication failed", "see `user` and `password`"),
    ("no password supplied", "give `password` or `passfile`"),
    (
        "no pg_hba.conf entry for replication",
        "add a line `host replication USER ADDRESS scram-sha-256` to pg_hba.conf and reload",
    ),
    ("no pg_hba.conf entry", "add a line for this user, database and address to pg_hba.conf"),
    ("does not support ssl", "turn TLS on in the server, or set `tls: {mode: off}`"),
    ("certificate verify failed", "give the certificate of the authority as `tls.ca`"),
    ("does not match host name", "use the name in the certificate as `host`"),
    ("max_wal_senders", "raise max_wal_senders on the server, or end other replication"),
    (
        "all replication slots are in use",
        "raise max_replication_slots on the server, drop slots that nobody needs, "
        "or set `slot: false`",
    ),
    ("replication slots can only be used if", "raise it on the server, or set `slot: false`"),
    ("wal_level", "set `wal_level = replica` on the server and restart it"),
    ("must be superuser or replication role", "ALTER ROLE ... REPLICATION"),
    ("permission denied to start wal sender", "ALTER ROLE ... REPLICATION"),
    ("permission denied to create a replication slot", "ALTER ROLE ... REPLICATION"),
    ("too many clients", "raise max_connections on the server, or run at another time"),
    ("summariz", "set `summarize_wal = on` on the server"),
)
_PROGRAM = re.compile(r"\b(pg_\w+|psql): (error|detail|hint): ")
_NOISE = ("This probably means", "before or while processing")
_DIAGNOSTICS = (pq.DiagnosticField.MESSAGE_PRIMARY, pq.DiagnosticField.MESSAGE_DETAIL)


def hint_for(text: str) -> str | None:
    """What one could do about it."""
    lowered = text.lower()
    found = next((hint for said, hint in _HINTS if said in lowered), None)
    if found and "no encryption" in lowered:
        return f"{found}; where it has hostssl lines only, set `tls: {{mode: verify}}`"
    return found


def said(text: str) -> str:
    """What libpq or the server said, on one line, without capital and period."""
    lines = [" ".join(line.split()) for line in text.splitlines()]
    shown: list[str] = []
    for line in lines:
        for noise in (
            "consuming input failed: ",
            "connection to server ",
            "ERROR: ",
            "FATAL: ",
            "PANIC: ",
        ):
            line = line.removeprefix(noise)
        line = line.replace(" failed: FATAL: ", ": ").replace(" failed: ", ": ").rstrip(".")
        if line and line not in shown and not line.startswith(_NOISE):
            shown.append(line)
    text = "; ".join(shown)[:600] or "no reason given"
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    return text if text[:2].isupper() else text[:1].lower() + text[1:]


def failed(what: str, text: str) -> SourceError:
    """An error from a text of libpq or the server."""
    return SourceError(f"{what}: {said(text)}", hint_for(text))


def tidied(error: SourceError) -> SourceError:
    """The error of a client program without its noise, and with a hint."""
    lines = [line.strip() for line in error.message.split(" | ")]
    text = said("\n".join(_PROGRAM.sub("", line) for line in lines))
    return SourceError(text, error.hint or hint_for(text))


def text_of(result: pq.abc.PGresult) -> str:
    """Message and detail of a failed result."""
    fields = [result.error_field(field) for field in _DIAGNOSTICS]
    told = "\n".join(field.decode(errors="replace") for field in fields if field)
    return told or result.get_error_message()


def code_of(result: pq.abc.PGresult) -> str:
    """The SQLSTATE of a failed result; empty when the connection was lost."""
    return (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode()
