"""What can be found out about a server by asking it."""

from __future__ import annotations

from stages.sources._postgres.link import Link

_DATABASES = """
SELECT datname FROM pg_database WHERE datallowconn AND NOT datistemplate ORDER BY datname
"""
_PASSWORDS = "SELECT has_table_privilege('pg_authid', 'SELECT')"
_READS_ALL = """
SELECT rolsuper OR (
    current_setting('server_version_num')::int >= 140000
    AND pg_has_role(oid, (SELECT oid FROM pg_roles WHERE rolname = 'pg_read_all_data'), 'USAGE')
) FROM pg_roles WHERE rolname = current_user
"""


def quoted(name: str) -> str:
    """A name as SQL has it."""
    return '"' + name.replace('"', '""') + '"'


def databases(link: Link) -> list[str]:
    """Those that take connections, without templates."""
    return [name for (name,) in link.rows(_DATABASES)]


def may_read_passwords(link: Link) -> bool:
    """Whether the role may read the hashes of the passwords of all roles."""
    return link.rows(_PASSWORDS) == [("t",)]


def describe_server(link: Link) -> list[str]:
    """Facts about the server and this connection, one line each."""
    facts = [f"PostgreSQL {link.version_text}, {'TLS' if link.encrypted else 'not encrypted'}"]
    if link.rows("SELECT pg_is_in_recovery()") == [("t",)]:
        facts.append(
            "a standby: max_standby_streaming_delay may cancel a long dump; it is "
            + _setting(link, "max_standby_streaming_delay")
        )
    if link.rows(_READS_ALL) != [("t",)]:
        facts.append("the role is no superuser and not in pg_read_all_data: it must own all tables")
    return facts


def _setting(link: Link, name: str) -> str:
    return link.rows(f"SHOW {name}")[0][0]
