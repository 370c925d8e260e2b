"""A dump back into a server, by its plain client."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from pipeline.context import StageContext
from pipeline.errors import SourceError
from stages._child import Child, Program, locate
from stages.sources._mysql import catalog, script
from stages.sources._mysql.link import Link, quoted
from stages.sources._mysql.login import Login

_CLIENTS = {True: ("mariadb", "mysql"), False: ("mysql", "mariadb")}
_CREATED = re.compile(
    rb"(?m)^CREATE DATABASE (?:/\*!32312 )?IF NOT EXISTS(?:\*/)? `((?:[^`]|``)+)`"
)
_USED = re.compile(rb"(?m)^USE `((?:[^`]|``)+)`;$")


def load(
    login: Login,
    database: str | None,
    chunks: Iterator[bytes],
    overwrite: bool,
    context: StageContext,
) -> Sequence[str]:
    """Feed a dump to the client.

    Args:
        database: the name to restore to, for a dump of a single one; None: as it was called.
        overwrite: also into databases that exist and have tables.

    Raises:
        SourceError: a database is in the way, or the server did not take everything.
    """
    first = next(chunks, b"")
    about = _about(first)
    if database is not None and len(about) != 1:
        raise SourceError(
            f"the dump has {len(about)} databases, and one name for them was given",
            "leave the name out of --to",
        )
    link = Link(login, idle_timeout=3600)
    try:
        if not overwrite:
            _refuse_used(link, [database] if database is not None else about)
        program = _client(link)
    finally:
        link.close()
    whole = _resumed(first, chunks)
    if database is not None and database != about[0]:
        whole = _renamed(whole, about[0], database)
    with login.option_file() as descriptor:
        command = [program, f"--defaults-file=/dev/fd/{descriptor}"]
        command += ["--default-character-set=utf8mb4", "--binary-mode", "--comments"]
        command += ["--max-allowed-packet=1G"]
        child = Child(Program(command, pass_fds=[descriptor]), context, SourceError, feed=True)
        with child:
            for _ in child.output(whole):
                pass
    return []


def _about(first: bytes) -> list[str]:
    """The databases of a dump. Ours says so in its second line; of others, those in sight."""
    lines = first.split(b"\n", 2)
    if lines[0] == script.MAGIC.encode() and len(lines) > 1:
        return list(script.read_opening(lines[1]).get("databases", []))
    return [name.replace(b"``", b"`").decode() for name in _CREATED.findall(first)]


def _refuse_used(link: Link, names: Sequence[str]) -> None:
    for name in set(names) & set(catalog.databases(link)):
        if link.query(f"SHOW TABLES FROM {quoted(name)}"):
            raise SourceError(
                f'"{link.login.address}" has a database "{name}", and tables in it',
                "give --overwrite to replace them, or another name: mysql://host/name",
            )


def _client(link: Link) -> str:
    names = _CLIENTS[link.is_mariadb]
    for name in names:
        try:
            return locate(name, SourceError)
        except SourceError:
            continue
    raise SourceError(
        f'neither "{names[0]}" nor "{names[1]}" was found', "install it, or restore to a file"
    )


def _resumed(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    if first:
        yield first
    yield from rest


def _renamed(chunks: Iterator[bytes], old: str, new: str) -> Iterator[bytes]:
    """The dump of one database for another name: where it is made, and where it is used.

    Both stand on lines of their own. No line of a row begins like them: line feeds within values
    are written as escapes, and rows begin with a bracket.
    """
    was, becomes = quoted(old).encode(), quoted(new).encode()

    def made(found: re.Match[bytes]) -> bytes:
        return found[0].replace(was, becomes, 1)

    def used(found: re.Match[bytes]) -> bytes:
        return b"USE " + becomes + b";" if found[0] == b"USE " + was + b";" else found[0]

    for block in _whole_lines(chunks):
        yield _USED.sub(used, _CREATED.sub(made, block))


def _whole_lines(chunks: Iterator[bytes]) -> Iterator[bytes]:
    rest = b""
    for chunk in chunks:
        head, feed, tail = chunk.rpartition(b"\n")
        if feed:
            yield rest + head + feed
            rest = tail
        else:
            rest += chunk
    if rest:
        yield rest
