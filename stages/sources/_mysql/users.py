"""Accounts, roles and what they may do, as statements."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pipeline.context import Findings
from pipeline.errors import SourceError
from stages.sources._mysql.link import Link, quoted

_OWN = frozenset(
    {"mysql.sys", "mysql.session", "mysql.infoschema", "mariadb.sys", "PUBLIC", "public"}
)
"""Accounts that every server makes for itself; of the role PUBLIC there are only grants."""
_DEFAULT_ROLE = re.compile(r" DEFAULT ROLE (.+?)(?= REQUIRE )")
_NO_ACCOUNT = "error 1133"


class Users:
    """The accounts of a server.

    Raises:
        SourceError: from every method: they may not be read.
    """

    def __init__(self, link: Link, findings: Findings) -> None:
        self._link = link
        self._findings = findings
        self._roles = _roles(link)
        self._accounts: list[str] = []
        self._defaults: list[str] = []

    def accounts(self) -> Iterator[bytes]:
        """What makes them, for the beginning of a dump: what follows may be theirs."""
        yield b"\n"
        for name in self._roles:
            yield f"CREATE ROLE IF NOT EXISTS {name};\n".encode()
        for name in _accounts(self._link):
            yield from self._account(name)

    def _account(self, name: str) -> Iterator[bytes]:
        try:
            definition = self._link.query(f"SHOW CREATE USER {name}")[0][0]
        except SourceError as error:
            if _NO_ACCOUNT not in error.message:
                raise
            self._findings.warn(f"the account {name} is left out: the server does not know it")
            return
        self._accounts.append(name)
        creation, default = split_definition(definition)
        self._defaults += [f"SET DEFAULT ROLE {default} TO {name};\n"] if default else []
        self._findings.count("users")
        yield f"{creation};\n".encode()

    def grants(self) -> Iterator[bytes]:
        """What they may do, for the end: it can be about a table or a routine."""
        yield b"\n"
        for name in [*self._roles, *_public(self._link), *self._accounts]:
            for (grant,) in self._link.query(f"SHOW GRANTS FOR {name}"):
                yield f"{grant};\n".encode()
        yield "".join([*self._defaults, "FLUSH PRIVILEGES;\n"]).encode()


def split_definition(definition: str) -> tuple[str, str]:
    """What makes an account where there is none, and the roles it has by default (MySQL), which
    have to be granted before.
    """
    found = _DEFAULT_ROLE.search(definition)
    creation = _DEFAULT_ROLE.sub("", definition, count=1)
    creation = creation.replace("CREATE USER ", "CREATE USER IF NOT EXISTS ", 1)
    return creation, found[1] if found else ""


def _roles(link: Link) -> list[str]:
    if not link.is_mariadb:  # Roles of MySQL are accounts that may not log in.
        return []
    rows = link.query("SELECT User FROM mysql.user WHERE is_role = 'Y' ORDER BY User")
    return [quoted(name) for (name,) in rows if name not in _OWN]


def _public(link: Link) -> list[str]:
    """The role that everybody has (MariaDB 10.11)."""
    if not link.is_mariadb or link.release < (10, 11):
        return []
    rows = link.query("SELECT User FROM mysql.global_priv WHERE User = 'PUBLIC' AND Host = ''")
    return ["PUBLIC"] if rows else []


def _accounts(link: Link) -> list[str]:
    only = "WHERE is_role = 'N' " if link.is_mariadb else ""
    rows = link.query(f"SELECT User, Host FROM mysql.user {only}ORDER BY User, Host")
    return [f"{quoted(name)}@{quoted(host)}" for name, host in rows if name not in _OWN]
