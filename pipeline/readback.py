"""Reads an object back and proves it on the way: size and digest as stored, then every stage
undone, then the plain size and digest. `restore` and `verify` are two uses of the same stream.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from hashlib import sha256

from pipeline import catalog, registry
from pipeline.catalog import Entry
from pipeline.context import StageContext
from pipeline.errors import StorageError, TransformError
from pipeline.stage import Storage, Transform
from pipeline.streams import Step, chained
from schemas.manifest import Manifest, ManifestStage
from schemas.pipeline import Backup
from schemas.transforms import TransformSpec


def inverses(manifest: Manifest, backup: Backup, identity: str | None) -> list[Transform]:
    """The transforms that undo the stages of a manifest, last applied first.

    The manifest says what was done, the configuration of today has the keys and programs to undo
    it.

    Args:
        identity: file with the private key, instead of the one in the configuration.

    Raises:
        ConfigError: a stage of this type does not exist here.
    """
    known = [*backup.stages, *(spec for branch in backup.fan_out for spec in branch.stages)]
    transforms = [
        registry.make_inverse(stage, _spec_for(stage, known)) for stage in manifest.stages
    ]
    if identity is not None:
        transforms = [transform.with_identity(identity) for transform in transforms]
    return transforms[::-1]


def _spec_for(stage: ManifestStage, known: Sequence[TransformSpec]) -> TransformSpec | None:
    """The stage of today's configuration that fits; among filters the suffix tells them apart."""
    fitting = [spec for spec in known if spec.type == stage.type]
    exact = [spec for spec in fitting if getattr(spec, "suffix", stage.suffix) == stage.suffix]
    return next(iter(exact), None)


def blocked_by(transforms: Sequence[Transform]) -> str | None:
    """Why the stream cannot be undone on this machine, or None when it can."""
    reasons = [reason for reason in (each.can_invert() for each in transforms) if reason]
    return "; ".join(reasons) or None


def plain_stream(
    storage: Storage, entry: Entry, transforms: Sequence[Transform], context: StageContext
) -> AbstractContextManager[Iterator[bytes]]:
    """The plain stream of an entry; reaching its end proves that all of it is right.

    Raises:
        StorageError: the object is missing, damaged or not readable; raised while reading.
        TransformError: a stage cannot be undone; raised while reading.
    """
    manifest = entry.manifest
    steps: list[Step] = [partial(transform.invert, context=context) for transform in transforms]
    steps.append(
        partial(
            proved,
            size=manifest.plain_size,
            digest=manifest.plain_sha256,
            what=f'the plain stream of "{entry.path}"',
        )
    )
    return _opened(storage, entry, steps)


def stored_stream(storage: Storage, entry: Entry) -> AbstractContextManager[Iterator[bytes]]:
    """The stored stream of an entry, proved against its manifest, with no stage undone."""
    return _opened(storage, entry, [])


@contextmanager
def _opened(storage: Storage, entry: Entry, steps: Sequence[Step]) -> Iterator[Iterator[bytes]]:
    manifest = entry.manifest
    stored = (manifest.stored_size, manifest.stored_sha256)
    with opened(entry.path, iter(catalog.read_object(storage, entry)), stored, steps) as chunks:
        yield chunks


@contextmanager
def opened(
    path: str, chunks: Iterator[bytes], stored: tuple[int, str], steps: Sequence[Step]
) -> Iterator[Iterator[bytes]]:
    """A stored stream with steps applied; reaching its end proves size and digest as stored."""
    size, digest = stored
    raw = proved(chunks, size=size, digest=digest, what=f'"{path}"')
    with chained(raw, steps) as plain:
        yield _drained(plain, raw)


def _drained(chunks: Iterator[bytes], stored: Iterator[bytes]) -> Iterator[bytes]:
    """Read the stored stream to its end even when the last stage needs no more: its digest is at
    the end.
    """
    yield from chunks
    for rest in stored:
        if rest:
            raise TransformError("the stored object goes on after the end of its stream")


def proved(chunks: Iterator[bytes], size: int, digest: str | None, what: str) -> Iterator[bytes]:
    """Pass the stream on, and raise at its end when it is not what the manifest says.

    Raises:
        StorageError: size or digest differ.
    """
    seen, hasher = 0, sha256()
    for chunk in chunks:
        seen += len(chunk)
        if digest is not None:
            hasher.update(chunk)
        yield chunk
    if seen != size:
        raise StorageError(f"{what} has {seen} bytes, its manifest says {size}")
    if digest is not None and hasher.hexdigest() != digest:
        raise StorageError(f"{what} does not have the SHA-256 that its manifest says")
