"""What exists on a storage: manifests, their objects, and what does not fit together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timezone

from pipeline import manifest as manifests
from pipeline.errors import NxsError, ObjectMissing, StorageError
from pipeline.naming import MANIFEST_SUFFIX, format_stamp, parse_object
from pipeline.stage import ObjectInfo, Storage
from schemas.manifest import Manifest

READERS = 8
"""Manifests read at the same time: they are small, the round trips count."""
MANIFEST_LIMIT = 16 << 20
"""A larger "manifest" is not one of ours."""


@dataclass(frozen=True)
class Entry:
    """One backup on one storage."""

    storage: str
    directory: str
    manifest: Manifest
    size: int | None
    """Size of the object as the storage tells it; None when the object is missing."""
    index_size: int | None = None
    """The same for its index."""

    @property
    def path(self) -> str:
        return f"{self.directory}/{self.manifest.object}"

    @property
    def manifest_path(self) -> str:
        return self.path + MANIFEST_SUFFIX

    @property
    def index_path(self) -> str | None:
        """Where its index is, or was; None when it never had one."""
        index = self.manifest.index
        return f"{self.directory}/{index.object}" if index else None

    @property
    def has_index(self) -> bool:
        """Whether its index is there, whole by its size."""
        index = self.manifest.index
        return index is not None and index.stored_size == self.index_size

    @property
    def damage(self) -> str | None:
        """What a look at the listing already shows to be wrong, or None."""
        if self.size is None:
            return "the object is missing"
        if self.size != self.manifest.stored_size:
            return f"the object has {self.size} bytes instead of {self.manifest.stored_size}"
        return None

    def is_of(self, project: str, host: str) -> bool:
        """True when this project wrote it on this host; rotation touches nothing else."""
        return self.manifest.project == project and self.manifest.host == host


def read(storage: Storage, name: str, prefix: str, broken: list[str] | None = None) -> list[Entry]:
    """All backups below a directory, oldest first.

    A file that only looks like a manifest is passed over: rotation must not take it for ours. One
    that has the name of a manifest of ours and cannot be read is added to `broken`.

    Raises:
        StorageError: the storage cannot be listed, or a manifest cannot be read.
    """
    objects = {info.name: info for info in storage.list(prefix)}
    paths = [path for path in objects if path.endswith(MANIFEST_SUFFIX)]
    with ThreadPoolExecutor(READERS, thread_name_prefix="catalog") as pool:
        documents = list(pool.map(lambda path: _fetch(storage, objects[path]), paths))
    found = assemble(name, objects.values(), zip(paths, documents, strict=True))
    if broken is not None:
        whole = {entry.manifest_path for entry in found}
        named = (path for path in paths if parse_object(path.removesuffix(MANIFEST_SUFFIX)))
        broken.extend(f"{name}:{path}" for path in named if path not in whole)
    return sorted(found, key=lambda entry: (entry.manifest.taken_at, entry.path))


def _fetch(storage: Storage, info: ObjectInfo) -> bytes | None:
    if info.size > MANIFEST_LIMIT:
        return None
    try:
        return b"".join(storage.open(info.name))
    except ObjectMissing:
        return None  # removed since it was listed


def assemble(
    storage: str, objects: Iterable[ObjectInfo], documents: Iterable[tuple[str, bytes | None]]
) -> list[Entry]:
    """Put manifests and objects together; a pure function."""
    sizes = {info.name: info.size for info in objects}
    entries = []
    for path, document in documents:
        manifest = None if document is None else manifests.parse(path, document)
        if manifest is not None:
            directory = path.rpartition("/")[0]
            size = sizes.get(f"{directory}/{manifest.object}")
            index = manifest.index
            index_size = sizes.get(f"{directory}/{index.object}") if index else None
            entries.append(Entry(storage, directory, manifest, size, index_size))
    return entries


def at(entries: Sequence[Entry], when: str) -> list[Entry]:
    """The entries meant by `--at`: `all`, `latest` (one for each artifact), or the newest up to a
    time.

    Raises:
        NxsError: `when` is not a time.
    """
    if when == "all":
        return list(entries)
    limit = None if when == "latest" else parse_time(when)
    newest: dict[str, Entry] = {}
    for entry in entries:
        if limit is None or entry.manifest.taken_at <= limit:
            newest[entry.manifest.artifact] = entry
    return list(newest.values())


def parse_time(text: str) -> datetime:
    """A point in time: ISO 8601, UTC when it names no zone; also the form of our object names."""
    for form in ("%Y-%m-%dT%H-%M-%SZ", "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M"):
        try:
            return datetime.strptime(text, form).replace(tzinfo=timezone.utc)
        except ValueError:
            continue
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        raise NxsError(
            f'"{text}" is not a time', f"write it like {format_stamp(datetime.now(timezone.utc))}"
        ) from None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=timezone.utc)


def read_object(storage: Storage, entry: Entry) -> Iterable[bytes]:
    """The stored stream of an entry.

    Raises:
        StorageError: the object is missing or does not have the size it should have.
    """
    if entry.damage:
        raise StorageError(f'"{entry.path}" is damaged: {entry.damage}')
    return storage.open(entry.path)
