"""Dumps by mysqldump and mariadb-dump, for `method: client`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pipeline.context import StageContext
from pipeline.errors import SourceError
from pipeline.stage import Needed
from schemas.mysql import MysqlSource
from stages._child import Child, Program, capture, installed, locate
from stages.sources._mysql import catalog, script
from stages.sources._mysql.catalog import Choice
from stages.sources._mysql.link import Link

_PROGRAMS = {True: ("mariadb-dump", "mysqldump"), False: ("mysqldump", "mariadb-dump")}
_SILENT = ("--skip-comments", "--compact", "--xml", "-X")
"""Arguments with which the last line is left out."""
_TAIL = 4096


def program(link: Link, spec: MysqlSource) -> str:
    """The dump program that fits the server.

    Raises:
        SourceError: none is installed.
    """
    if spec.program is not None:
        return locate(spec.program, SourceError)
    names = _PROGRAMS[link.is_mariadb]
    for name in names:
        try:
            return locate(name, SourceError)
        except SourceError:
            continue
    raise SourceError(
        f'neither "{names[0]}" nor "{names[1]}" was found',
        "install it, or leave out `method: client`: none is needed for the default",
    )


def needed(spec: MysqlSource) -> Needed:
    """What is needed, whatever the server may be."""
    names = [spec.program] if spec.program else [*_PROGRAMS[True]]
    package = "the package mariadb-client or mysql-client (Red Hat: mariadb or mysql)"
    return Needed(" or ".join(names), installed(*names), package)


def version(link: Link, spec: MysqlSource) -> str:
    """Which program it is, in a line; that of another maker leaves things out.

    Raises:
        SourceError: it is not installed.
    """
    path = program(link, spec)
    said = capture(Program([path, "--version"]), StageContext(), SourceError).decode(
        errors="replace"
    )
    line = " ".join(said.split())
    if ("mariadb" in line.lower()) != link.is_mariadb:
        return f"warning: the client and the server are of different makers: {line}"
    return f"the client is {line}"


def stream(
    link: Link, spec: MysqlSource, databases: Sequence[str], context: StageContext
) -> Iterator[bytes]:
    """The output of the program.

    Args:
        link: for looking at what there is; the program connects by itself.

    Raises:
        SourceError: it failed, or its output does not end as a whole dump does.
    """
    path = program(link, spec)
    context.findings.server_version = link.version
    context.findings.facts["client"] = version(link, spec).removeprefix("the client is ")
    context.findings.count("databases", len(databases))
    arguments = [*_options(path, link, spec), *_left_out(link, spec, databases), *spec.extra_args]
    with link.login.option_file() as descriptor:
        command = [path, f"--defaults-file=/dev/fd/{descriptor}", *arguments]
        command += ["--databases", "--", *databases]
        end = b""
        with Child(Program(command, pass_fds=[descriptor]), context, SourceError) as child:
            for chunk in child.output():
                end = (end + chunk[-_TAIL:])[-_TAIL:]
                yield chunk
        if not set(_SILENT) & set(spec.extra_args) and script.END.encode() not in end:
            raise SourceError("the dump does not end with the line that a whole one has")


def _options(path: str, link: Link, spec: MysqlSource) -> list[str]:
    options = ["--single-transaction", "--quick", "--hex-blob", "--default-character-set=utf8mb4"]
    options.append("--skip-dump-date")  # The same content is the same bytes.
    options += [f"--{'' if spec.triggers else 'skip-'}triggers"]
    options += ["--routines"] * spec.routines + ["--events"] * spec.events
    if spec.lock == "full":
        options += ["--lock-all-tables", "--skip-single-transaction"]
    if not link.is_mariadb and "mariadb" not in path:
        # Else the first needs the privilege PROCESS, and the second makes a dump of a part of the
        # server claim the transactions of all of it.
        options += ["--no-tablespaces", "--set-gtid-purged=COMMENTED"]
    return options


def _left_out(link: Link, spec: MysqlSource, databases: Sequence[str]) -> list[str]:
    """The program knows no patterns: what they leave out is named."""
    if not spec.tables and not spec.exclude_tables:
        return []
    choice = Choice(spec)
    return [
        f"--ignore-table={database}.{name}"
        for database in databases
        for name in catalog.contents(link, database, choice).left_out
    ]
