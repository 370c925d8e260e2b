"""The client programs that are installed, and which of them fits a server."""

from __future__ import annotations

import glob
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pipeline.context import StageContext
from pipeline.errors import SourceError
from pipeline.stage import Needed
from stages._child import Program, capture, stream
from stages.sources._postgres.errors import tidied

_FOLDERS = (
    "/usr/lib/postgresql/*/bin",  # Debian, Ubuntu
    "/usr/pgsql-*/bin",  # the packages of the PostgreSQL project for Red Hat and SUSE
    "/usr/lib/postgresql*/bin",  # SUSE
    "/usr/libexec/postgresql*",  # Alpine
    "/usr/local/pgsql/bin",
    "/opt/postgresql*/bin",
)
_VERSION = re.compile(r"\(PostgreSQL\) (\d+)(?:\.(\d+))?(?:\.\d+)?(\w*)")
_OF_SERVER = ("pg_combinebackup", "pg_verifybackup")
"""Programs that come with the server."""
# Debian's wrapper picks a version by the clusters of this machine, not by the server.
_WRAPPER = "pg_wrapper"


@dataclass(frozen=True)
class Client:
    """An installed program."""

    path: str
    major: int
    minor: int

    @property
    def shown(self) -> str:
        return f"{os.path.basename(self.path)} {self.major}.{self.minor}"


def find(name: str, version: int, folder: str | None, context: StageContext) -> Client:
    """The program that fits a server: of its own major version, else of the next newer one.

    Args:
        version: of the server, such as 150018.
        folder: look there only.

    Raises:
        SourceError: there is none, or only older ones, which cannot read a newer server.
    """
    wanted = version // 10000
    found = [_inspect(path, context) for path in _paths(name, folder)]
    usable = [client for client in found if client.major >= wanted]
    if usable:
        return min(usable, key=lambda client: (client.major, -client.minor))
    others = ", ".join(sorted({f"{client.major}.{client.minor}" for client in found}))
    where = f' in "{folder}"' if folder else ""
    raise SourceError(
        f'no "{name}" for PostgreSQL {wanted} is installed{where}'
        + (f", only for {others}" if others else ""),
        f"install {package_for(name, wanted)}",
    )


def output(
    program: Program, context: StageContext, chunks: Iterable[bytes] | None = None
) -> Iterator[bytes]:
    """What a program writes; see `stages._child`.

    Raises:
        SourceError: it failed; the message has what it said.
    """
    try:
        yield from stream(program, context, SourceError, chunks)
    except SourceError as error:
        raise tidied(error) from None


def needed(name: str, folder: str | None, to_restore: bool = False) -> Needed:
    """A program, whatever the version of the server may be.

    Args:
        folder: look there only.
    """
    package = "the package postgresql" if name in _OF_SERVER else "the package postgresql-client"
    package += " (Red Hat: postgresql" + ("-server)" if name in _OF_SERVER else ")")
    return Needed(name, _paths(name, folder), package, to_restore=to_restore)


def package_for(name: str, major: int) -> str:
    """The packages that have a program."""
    server_side = name in _OF_SERVER
    debian = f"postgresql-{major}" if server_side else f"postgresql-client-{major}"
    return f"the package {debian} (Red Hat: postgresql{major}{'-server' if server_side else ''})"


def _paths(name: str, folder: str | None) -> list[str]:
    """Full paths, each program once."""
    if folder is not None:
        folders = [folder]
    else:
        folders = [match for pattern in _FOLDERS for match in sorted(glob.glob(pattern))]
        folders += os.environ.get("PATH", "").split(os.pathsep)
    found: dict[str, str] = {}
    for each in folders:
        path = shutil.which(name, path=each) if each else None
        if path is not None and os.path.basename(os.path.realpath(path)) != _WRAPPER:
            found.setdefault(os.path.realpath(path), path)
    return list(found.values())


def _inspect(path: str, context: StageContext) -> Client:
    said = capture(Program([path, "--version"], timeout=30), context, SourceError).decode(
        errors="replace"
    )
    match = _VERSION.search(said)
    if match is None:
        raise SourceError(f'"{path}" does not tell its version')
    return Client(path, int(match[1]), int(match[2] or 0))
