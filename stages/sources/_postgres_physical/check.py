"""Checks an archive as it passes by: that it is whole, and what the manifest in it says."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.context import StageContext
from pipeline.errors import SourceError
from schemas.postgres import PostgresPhysicalSource
from stages.sources._postgres_physical.manifest import ManifestCheck, algorithm_of, verify_itself
from stages.sources._postgres_physical.scan import Scan


def checked(
    spec: PostgresPhysicalSource,
    chunks: Iterator[bytes],
    context: StageContext,
    has_manifest: bool = True,
) -> Iterator[bytes]:
    """Pass an archive on.

    Raises:
        SourceError: it is not whole, or not what its manifest says.
    """
    check, manifest = ManifestCheck(spec.manifest_checksums), bytearray()

    def keep(piece: memoryview) -> None:
        manifest.extend(piece)
        if len(manifest) > spec.manifest_size:
            raise SourceError("the backup manifest is too large", "raise `manifest_size`")

    scan = Scan(check, keep=keep)
    for chunk in chunks:
        context.teardown.check()
        # What belongs into the archive is all of it here, so what is collected is dropped.
        scan.feed(memoryview(chunk), [])
        yield chunk
    scan.finish()
    if not scan.ended:
        raise SourceError("the archive was cut off")
    context.findings.count("files", scan.files)
    if has_manifest:
        check.verify(bytes(manifest))


def examine(spec: PostgresPhysicalSource, chunks: Iterator[bytes], context: StageContext) -> str:
    """Read an archive through for `verify`; it may have been made with other settings.

    Raises:
        SourceError: it is not whole, or not what its manifest says.
    """
    check, manifest = ManifestCheck(spec.manifest_checksums), bytearray()
    scan = Scan(check, keep=manifest.extend)
    for chunk in chunks:
        context.teardown.check()
        scan.feed(memoryview(chunk), [])
    scan.finish()
    if not scan.ended:
        raise SourceError("the archive was cut off")
    found = f"a whole base backup of {scan.files} files"
    if not manifest:
        return f"{found}, without a manifest"
    verify_itself(bytes(manifest))
    if algorithm_of(bytes(manifest)) != spec.manifest_checksums:
        return f"{found}; checksums of another kind than configured, so not compared"
    check.verify(bytes(manifest))
    what = "checksums" if check.compares_contents else "sizes"
    return f"{found}, with the {what} of its manifest"
