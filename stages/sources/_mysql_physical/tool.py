"""mariadb-backup and xtrabackup: which of them, and how they are run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pipeline.context import StageContext
from pipeline.errors import SourceError
from pipeline.stage import Needed
from schemas.mysql import MysqlPhysicalSource
from stages._child import Child, Program, installed, locate
from stages.sources._mysql.link import Link
from stages.sources._mysql_physical.xbstream import Xbstream

PROGRAMS = {True: ("mariadb-backup", "mariabackup"), False: ("xtrabackup",)}
_CHECKPOINTS = ("xtrabackup_checkpoints", "mariadb_backup_checkpoints")
_POSITIONS = ("xtrabackup_binlog_info", "mariadb_backup_binlog_info")
_DONE = "completed OK!"
"""The last word of both programs when all went well."""
_LINGER = 60


@dataclass(frozen=True)
class Base:
    """What an increment builds on: the index of a copy."""

    to_lsn: int
    """Up to where in the log of InnoDB the copy goes."""
    server: str
    """What tells it from other servers."""
    series: str
    """Of its version: programs of another one cannot join the copies."""

    def dump(self) -> bytes:
        return json.dumps(vars(self)).encode()


def read_base(data: bytes) -> Base:
    """The index of a copy.

    Raises:
        SourceError: it is none.
    """
    try:
        found = json.loads(data)
        return Base(int(found["to_lsn"]), str(found["server"]), str(found["series"]))
    except (ValueError, KeyError, TypeError):
        raise SourceError("the index of the earlier copy is not understood") from None


def program(spec: MysqlPhysicalSource, is_mariadb: bool) -> str:
    """The program that fits the server.

    Raises:
        SourceError: it is not installed on this machine.
    """
    if spec.program is not None:
        return locate(spec.program, SourceError)
    names = PROGRAMS[is_mariadb]
    for name in names:
        try:
            return locate(name, SourceError)
        except SourceError:
            continue
    raise SourceError(f'"{names[0]}" was not found', "install it on the machine of the server")


def needed(spec: MysqlPhysicalSource) -> list[Needed]:
    """What is needed, whatever the server may be."""
    names = [spec.program] if spec.program else [PROGRAMS[True][0], PROGRAMS[False][0]]
    package = "the package mariadb-backup, or percona-xtrabackup of Percona"
    unpackers = ("mbstream", "xbstream")
    return [
        Needed(" or ".join(names), installed(*names), package),
        Needed(" or ".join(unpackers), installed(*unpackers), package, False, to_restore=True),
    ]


def version(path: str) -> str:
    """What a program says about its version; both say it on standard error."""
    with Child(Program([path, "--version"]), StageContext(), SourceError) as child:
        said = b"".join(child.output()).decode(errors="replace") + child.stderr
    return " ".join(said.split())


def series_of(link: Link) -> str:
    return ".".join(map(str, link.release[:2]))


def identity(link: Link) -> str:
    """What tells a server from others, and from itself after a new start from other data."""
    names = ("hostname", "datadir", "port", "server_uuid", "server_uid")
    known = link.variables(*names)
    return "|".join(known.get(name, "") for name in names)


class Copy:
    """One run of the program.

    Args:
        base: what an increment builds on; None for a full copy.
    """

    def __init__(
        self, spec: MysqlPhysicalSource, link: Link, context: StageContext, base: Base | None
    ) -> None:
        self._spec = spec
        self._link = link
        self._context = context
        self._base = base
        self._stream = Xbstream(_CHECKPOINTS + _POSITIONS)

    def chunks(self) -> Iterator[bytes]:
        """The stream.

        Raises:
            SourceError: the program failed, or does not say that all went well.
        """
        path = program(self._spec, self._link.is_mariadb)
        with self._link.login.option_file() as descriptor:
            command = Program(
                [path, f"--defaults-file=/dev/fd/{descriptor}", *self._arguments()],
                pass_fds=[descriptor],
                cwd="/",
                linger=_LINGER,
            )
            with Child(command, self._context, SourceError) as child:
                for chunk in child.output():
                    self._stream.feed(chunk)
                    yield chunk
        if not child.stderr.endswith(_DONE):
            raise SourceError(f'"{command.name}" does not say "{_DONE}": the copy is not whole')
        self._stream.finish()
        self._tell()

    def _arguments(self) -> list[str]:
        spec = self._spec
        datadir = spec.datadir or self._link.variables("datadir")["datadir"]
        arguments = ["--backup", "--stream=xbstream", f"--datadir={datadir}"]
        arguments += [f"--parallel={spec.threads}"] if spec.threads > 1 else []
        if spec.kill_long_queries is not None:
            arguments.append(f"--kill-long-queries-timeout={max(1, int(spec.kill_long_queries))}")
        if self._base is not None:
            arguments.append(f"--incremental-lsn={self._base.to_lsn}")
        return [*arguments, *spec.extra_args]

    def _tell(self) -> None:
        findings = self._context.findings
        findings.server_version = self._link.version
        findings.count("files", self._stream.files)
        checkpoints = self._checkpoints()
        for name in ("from_lsn", "to_lsn", "last_lsn"):
            if name in checkpoints:
                findings.facts[name] = checkpoints[name]
        findings.facts |= self._position()
        if self._context.increment is not None:
            if "to_lsn" not in checkpoints:
                raise SourceError("the stream does not tell its LSN: nothing can build on it")
            to_lsn = int(checkpoints["to_lsn"])
            base = Base(to_lsn, identity(self._link), series_of(self._link))
            self._context.increment.keep(base.dump())

    def _checkpoints(self) -> Mapping[str, str]:
        text = next((self._text(name) for name in _CHECKPOINTS if self._text(name)), "")
        pairs = (line.partition("=") for line in text.splitlines())
        return {name.strip(): value.strip() for name, _, value in pairs}

    def _position(self) -> dict[str, str]:
        """Of the binary log: file, position, and GTID where there is one, on a line."""
        text = next((self._text(name) for name in _POSITIONS if self._text(name)), "")
        values = text.split("\n", 1)[0].split("\t")
        names = ("binlog_file", "binlog_position", "gtid")
        return {name: value for name, value in zip(names, values, strict=False) if value}

    def _text(self, name: str) -> str:
        return self._stream.contents.get(name, b"").decode(errors="replace")
