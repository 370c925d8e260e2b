"""A base backup over the replication protocol, as one tar archive that can be started from.

Members of the data directory keep their names, those of a tablespace are in `tablespaces/NUMBER/`,
and the last member is `backup_manifest`. The WAL that makes the copy consistent is among them.
"""

from __future__ import annotations

import os
import secrets
import tarfile
import time
from collections.abc import Iterator
from contextlib import ExitStack

from psycopg import pq

from pipeline.context import StageContext
from pipeline.errors import SourceError
from pipeline.stage import CHUNK
from schemas.postgres import PostgresPhysicalSource
from stages.sources._postgres.errors import code_of, text_of
from stages.sources._postgres.link import Link, table
from stages.sources._postgres_physical.manifest import NAME, ManifestCheck
from stages.sources._postgres_physical.scan import BLOCK, Scan

FIRST_WITH_INCREMENTS = 170000
_FIRST_WITH_MANIFEST = 130000
_FIRST_WITH_IDLE_TIMEOUT = 140000
_FIRST_WITH_OPTIONS = 150000
_DATA_CORRUPTED = "XX001"
_MOST_WARNINGS = 100
_ARCHIVE, _MANIFEST, _PROGRESS, _DATA = b"nmpd"
Pieces = list[bytes | memoryview]


class BaseBackup:
    """One base backup, full or, when the context says what it builds on, an increment."""

    def __init__(self, spec: PostgresPhysicalSource, context: StageContext) -> None:
        self._spec = spec
        self._context = context
        self._check = ManifestCheck(spec.manifest_checksums)
        self._manifest = bytearray()
        self._files = 0
        self._warnings: list[str] = []

    def chunks(self) -> Iterator[bytes]:
        """The archive.

        Raises:
            SourceError: the server refused or was lost, or its manifest says something else.
        """
        with ExitStack() as stack:
            link = stack.enter_context(self._link())
            self._note(link)
            if self._spec.wal and self._spec.slot:
                self._hold_wal(stack, link.version)
            self._send_parent(link)
            link.on_notice(self._warn)
            link.begin(backup_command(self._spec, link.version, self._builds_on_another))
            facts = self._context.findings.facts
            facts["start_lsn"], facts["timeline"] = _row(link)
            spaces = _table(link)
            facts.update({f"tablespace {oid}": path for oid, path, _ in spaces if oid})
            self._context.findings.count("tablespaces", len(spaces) - 1)
            out: Pieces = []
            size = 0
            for added in self._archives(link, [oid.encode() for oid, _, _ in spaces], out):
                size += added
                if size >= CHUNK:
                    yield b"".join(out)
                    out.clear()
                    size = 0
            facts["end_lsn"], _ = self._end(link)
            if out:
                yield b"".join(out)
            yield from self._rest(link.version)

    # -- before ----------------------------------------------------------------------------------

    @property
    def _builds_on_another(self) -> bool:
        increment = self._context.increment
        return increment is not None and increment.base is not None

    def _link(self, extra: dict[str, str] | None = None) -> Link:
        spec = self._spec
        return Link(spec, None, self._context.teardown, spec.idle_timeout, extra)

    def _note(self, link: Link) -> None:
        findings = self._context.findings
        findings.server_version = link.version_text
        system, *_ = link.rows("IDENTIFY_SYSTEM")[0]
        findings.facts.update(system=system, label=self._spec.label)
        if self._spec.incremental:
            require_increments(link)

    def _hold_wal(self, stack: ExitStack, version: int) -> None:
        """A second connection with a temporary slot: what it holds back, and the slot itself, go
        when the connection does.
        """
        patient = version >= _FIRST_WITH_IDLE_TIMEOUT
        extra = {"options": "-c idle_session_timeout=0"} if patient else {}
        name = f"nxs_backup_{os.getpid()}_{secrets.token_hex(4)}"
        reserve = "(RESERVE_WAL true)" if version >= _FIRST_WITH_OPTIONS else "RESERVE_WAL"
        link = stack.enter_context(self._link(extra))
        link.rows(f"CREATE_REPLICATION_SLOT {name} TEMPORARY PHYSICAL {reserve}")

    def _send_parent(self, link: Link) -> None:
        increment = self._context.increment
        if increment is not None and increment.base is not None:
            link.copy_in("UPLOAD_MANIFEST", increment.base())

    def _warn(self, text: str) -> None:
        if len(self._warnings) < _MOST_WARNINGS:
            self._warnings.append(" ".join(text.split()))

    # -- data ------------------------------------------------------------------------------------

    def _archives(self, link: Link, spaces: list[bytes], out: Pieces) -> Iterator[int]:
        """Append the members of all archives to `out`; yields how many bytes were received."""
        if link.version >= _FIRST_WITH_OPTIONS:
            yield from self._marked_messages(link, out)
            return
        for number in spaces:
            _expect_copy(link)
            scan = Scan(self._check, number or None)
            for batch in link.messages():
                for message in batch:
                    scan.feed(message, out)
                yield sum(map(len, batch))
            self._close(scan)
        if self._has_manifest(link.version):
            _expect_copy(link)
            for batch in link.messages():
                self._collect(batch)
                yield 0

    def _marked_messages(self, link: Link, out: Pieces) -> Iterator[int]:
        """Servers from 15 on send everything in one stream, each message with a letter for its
        kind.
        """
        _expect_copy(link)
        scan: Scan | None = None
        in_manifest = False
        for batch in link.messages():
            size = 0
            for message in batch:
                kind = message[0]
                if kind == _DATA and scan is not None:
                    scan.feed(message[1:], out)
                    size += len(message)
                elif kind == _DATA and in_manifest:
                    self._collect([message[1:]])
                elif kind == _ARCHIVE:
                    self._close(scan)
                    scan = Scan(self._check, _tablespace_of(message))
                elif kind == _MANIFEST:
                    self._close(scan)
                    scan, in_manifest = None, True
                elif kind != _PROGRESS:
                    raise SourceError("the server has sent a message that is not understood")
            yield size
        self._close(scan)

    def _close(self, scan: Scan | None) -> None:
        if scan is not None:
            scan.finish()
            self._files += scan.files

    def _collect(self, batch: list[memoryview]) -> None:
        for message in batch:
            self._manifest += message
        if len(self._manifest) > self._spec.manifest_size:
            raise SourceError("the backup manifest is too large", "raise `manifest_size`")

    # -- after -----------------------------------------------------------------------------------

    def _end(self, link: Link) -> tuple[str, ...]:
        """The row that tells where the backup ends; the command must end well after it."""
        row = _row(link)
        while (result := link.any_result()) is not None:
            if result.status == pq.ExecStatus.FATAL_ERROR:
                self._damaged(link, result)
        return row

    def _damaged(self, link: Link, result: pq.abc.PGresult) -> None:
        """Wrong page checksums are told when everything has been sent."""
        if code_of(result) != _DATA_CORRUPTED or self._spec.verify_checksums != "warn":
            error = link.refused(result)
            error.message = "; ".join([error.message, *self._warnings[:3]])
            raise error
        for warning in self._warnings or [text_of(result)]:
            self._context.findings.skip("page checksums", warning)

    def _has_manifest(self, version: int) -> bool:
        return version >= _FIRST_WITH_MANIFEST

    def _rest(self, version: int) -> Iterator[bytes]:
        """What our archive ends with: the manifest, once it is known to fit."""
        manifest, self._manifest = bytes(self._manifest), bytearray()
        self._context.findings.count("files", self._files)
        if self._has_manifest(version):
            if not manifest:
                raise SourceError("the server has sent no backup manifest")
            self._check.verify(manifest)
            info = tarfile.TarInfo(NAME.decode())
            info.size, info.mode, info.mtime = len(manifest), 0o600, int(time.time())
            info.uname = info.gname = "postgres"
            yield info.tobuf(tarfile.USTAR_FORMAT)
        for start in range(0, len(manifest), CHUNK):
            piece = manifest[start : start + CHUNK]
            if self._context.increment is not None:
                self._context.increment.keep(piece)
            yield piece
        yield bytes(-len(manifest) % BLOCK + 2 * BLOCK)


def backup_command(spec: PostgresPhysicalSource, version: int, increment: bool = False) -> str:
    """BASE_BACKUP in the grammar of a server."""
    label = spec.label.replace("'", "''")
    checksums = spec.manifest_checksums.upper()
    rate = None if spec.max_rate is None else spec.max_rate >> 10
    if version >= _FIRST_WITH_OPTIONS:
        options = [
            f"LABEL '{label}'",
            f"CHECKPOINT '{spec.checkpoint}'",
            f"WAL {_truth(spec.wal)}",
            # Without WAL of its own, the backup is good only once the archive has what it needs.
            f"WAIT {_truth(not spec.wal)}",
            "TABLESPACE_MAP true",
            "MANIFEST 'yes'",
            f"MANIFEST_CHECKSUMS '{checksums}'",
            f"VERIFY_CHECKSUMS {_truth(spec.verify_checksums != 'off')}",
        ]
        options += [f"MAX_RATE {rate}"] if rate else []
        options += ["INCREMENTAL true"] if increment else []
        return f"BASE_BACKUP ({', '.join(options)})"
    words = [
        f"BASE_BACKUP LABEL '{label}'",
        "FAST" if spec.checkpoint == "fast" else "",
        "WAL NOWAIT" if spec.wal else "",
        f"MAX_RATE {rate}" if rate else "",
        "TABLESPACE_MAP",
        "NOVERIFY_CHECKSUMS" if spec.verify_checksums == "off" else "",
        f"MANIFEST 'yes' MANIFEST_CHECKSUMS '{checksums}'"
        if version >= _FIRST_WITH_MANIFEST
        else "",
    ]
    return " ".join(filter(None, words))


def require_increments(link: Link) -> None:
    """Find out whether a server can make increments.

    Raises:
        SourceError: it cannot.
    """
    if link.version < FIRST_WITH_INCREMENTS:
        raise SourceError(
            f"PostgreSQL {link.version_text} makes no increments",
            "that takes 17 or newer; remove `incremental`",
        )
    if link.rows("SHOW summarize_wal") != [("on",)]:
        raise SourceError(
            "the server does not keep what increments need",
            "set `summarize_wal = on` on the server and reload it",
        )


def _truth(value: bool) -> str:
    return "true" if value else "false"


def _tablespace_of(message: memoryview) -> bytes | None:
    name = bytes(message[1:]).partition(b"\0")[0]
    return None if name == b"base.tar" else name.removesuffix(b".tar")


def _table(link: Link) -> list[tuple[str, ...]]:
    result = link.result()
    if result is None or result.status != pq.ExecStatus.TUPLES_OK:
        raise SourceError("the server has answered BASE_BACKUP with something else")
    return table(result)


def _row(link: Link) -> tuple[str, ...]:
    return _table(link)[0]


def _expect_copy(link: Link) -> None:
    result = link.result()
    if result is None or result.status != pq.ExecStatus.COPY_OUT:
        raise SourceError("the server has sent no archive")
