"""A directory of this machine, or of anything mounted on it."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from pipeline.errors import (
    Aborted,
    StorageDenied,
    StorageError,
    StorageRefused,
    StorageUnavailable,
)
from pipeline.naming import parse_part, part_name
from pipeline.report import format_size
from pipeline.stage import CHUNK, ObjectInfo, Storage, Writer
from schemas.storages import LocalStorage
from stages.storages._names import (
    check_name,
    check_part,
    check_prefix,
    ended_early,
    exists_already,
    in_progress,
    is_missing,
    was_removed,
)
from stages.storages._publish import publish

_NEW_PART = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
_FILE_MODE = 0o600
_DIRECTORY_MODE = 0o750
_CREATE_ATTEMPTS = 100
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_DENIED = frozenset({errno.EACCES, errno.EPERM})
_MAY_PASS = frozenset(
    {
        errno.EIO,
        errno.EAGAIN,
        errno.EBUSY,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOMEM,
        errno.ENODEV,
        errno.ENXIO,
        errno.ENOTCONN,
        errno.ESTALE,
        errno.ETIMEDOUT,
        errno.EREMOTEIO,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENETUNREACH,
        errno.ECONNRESET,
        errno.ECONNREFUSED,
    }
)
"""Errors of a disk or a mounted file system that another try may not meet."""


def storage_error(error: OSError, path: str) -> StorageError:
    """What an operating system error means to a storage."""
    if error.errno in _FULL:
        return StorageRefused(f'no space left for "{path}"', "the disk or a quota is full")
    reason = (error.strerror or str(error)).lower()
    if error.errno in _MAY_PASS:
        return StorageUnavailable(f'"{path}" cannot be used now: {reason}')
    kind = StorageDenied if error.errno in _DENIED else StorageRefused
    return kind(f'"{path}" cannot be used: {reason}')


@contextmanager
def _translated(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise storage_error(error, path) from error


class LocalWriter(Writer):
    """Writes `.name.token.part`; `commit` links it to its name."""

    def __init__(self, storage: Local, name: str, part: str, fd: int) -> None:
        self._storage = storage
        self._name = name
        self._part = part
        self._fd = fd
        self._dirty = True
        self._failed: StorageError | None = None
        self._aborted = False
        self._committed = False
        self._lock = threading.Lock()  # Held while the descriptor is in use.

    @contextmanager
    def _using_file(self) -> Iterator[int]:
        """The descriptor, kept open meanwhile: closed, its number could name another file."""
        try:
            with self._lock, _translated(self._storage.locate(self._name)):
                if self._failed:
                    raise self._failed
                if self._aborted or self._fd < 0:
                    raise Aborted
                yield self._fd
        except StorageError as error:
            self._failed = error
            raise
        finally:
            if self._aborted:
                self._close()
        if self._aborted and not self._committed:
            raise Aborted

    def write(self, chunk: bytes) -> None:
        with self._using_file() as fd:
            self._dirty = True
            view = memoryview(chunk)
            while view and not self._aborted:
                view = view[os.write(fd, view) :]

    def flush(self) -> None:
        with self._using_file() as fd:
            if self._storage.fsync and self._dirty:
                os.fsync(fd)
            self._dirty = False

    def commit(self) -> None:
        if self._dirty:
            self.flush()
        part, final = self._storage.locate(self._part), self._storage.locate(self._name)
        with self._using_file() as fd:
            try:
                publish(part, final)
            except FileExistsError:
                raise exists_already(self._name) from None
            except FileNotFoundError:
                raise (Aborted() if self._aborted else was_removed(self._name)) from None
            self._sync_name(final)
            self._committed = True
            self._fd = -1
            os.close(fd)

    def _sync_name(self, final: str) -> None:
        try:
            self._storage.sync_directory(os.path.dirname(final))
        except OSError:
            # What a power cut may take away must not look committed.
            with suppress(OSError):
                os.unlink(final)
            raise

    def abort(self) -> None:
        if self._committed or self._aborted:
            return
        self._aborted = True
        self._close()
        # Best effort by contract: `sweep` finds what an unreachable disk keeps.
        with suppress(OSError):
            os.unlink(self._storage.locate(self._part))
        self._storage.remove_empty_parents(self._part)

    def _close(self) -> None:
        """Close the descriptor unless it is in use; then its user does."""
        if self._lock.acquire(blocking=False):
            try:
                if self._fd >= 0:
                    fd, self._fd = self._fd, -1
                    with suppress(OSError):  # The data is not wanted any more.
                        os.close(fd)
            finally:
                self._lock.release()

    def __del__(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)


class Local(Storage):
    """Objects are files below `path`."""

    def __init__(self, spec: LocalStorage) -> None:
        self._root = spec.path
        self.fsync = spec.fsync

    def locate(self, name: str) -> str:
        """The path of an object."""
        return os.path.join(self._root, *name.split("/")) if name else self._root

    def create(self, name: str, token: str) -> Writer:
        check_name(name)
        path, part = self.locate(name), part_name(name, token)
        with _translated(path):
            if os.path.lexists(path):
                raise exists_already(name)
            try:
                fd = self._open_part(self.locate(part))
            except FileExistsError:
                raise in_progress(name) from None
        return LocalWriter(self, name, part, fd)

    def _open_part(self, path: str) -> int:
        for _ in range(_CREATE_ATTEMPTS):
            # Whoever removes the last object of a directory removes the directory too.
            with suppress(FileNotFoundError):
                self._make_directory(os.path.dirname(path))
                return os.open(path, _NEW_PART, _FILE_MODE)
        return os.open(path, _NEW_PART, _FILE_MODE)

    def _make_directory(self, path: str) -> None:
        if os.path.isdir(path):
            return
        parent = os.path.dirname(path)
        if parent and parent != path:
            self._make_directory(parent)
        with suppress(FileExistsError):
            os.mkdir(path, _DIRECTORY_MODE)
            self.sync_directory(parent or ".")

    def sync_directory(self, path: str) -> None:
        """Have the names in a directory reach the disk, if the storage is to wait for that.

        Raises:
            OSError: they did not.
        """
        if not self.fsync:
            return
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EROFS, errno.EOPNOTSUPP):
                raise  # Those three: a file system that does not sync directories.
        finally:
            os.close(fd)

    def remove_empty_parents(self, name: str) -> None:
        """Remove the directories above an object that hold nothing any more, but never the root."""
        parts = name.split("/")[:-1]
        with suppress(OSError):
            while parts:
                os.rmdir(self.locate("/".join(parts)))
                parts.pop()

    def open(self, name: str, offset: int = 0) -> Iterator[bytes]:
        check_name(name)
        path = self.locate(name)
        with _translated(path):
            try:
                source = open(path, "rb", buffering=0)  # noqa: SIM115
            except (FileNotFoundError, NotADirectoryError):
                raise is_missing(name) from None
            with source:
                size = max(os.fstat(source.fileno()).st_size, offset)
                at = source.seek(offset)
                while chunk := source.read(CHUNK):
                    at += len(chunk)
                    yield chunk
                # Seeking goes beyond the end without an error.
                if min(at, os.fstat(source.fileno()).st_size) < size:
                    raise ended_early(name, size)

    def list(self, prefix: str) -> Sequence[ObjectInfo]:
        check_prefix(prefix)
        found = []
        for name, entry in self._files(prefix):
            # One that has been deleted since we read the directory is not there.
            with _translated(entry.path), suppress(FileNotFoundError):
                if not entry.name.startswith("."):
                    found.append(ObjectInfo(name, entry.stat(follow_symlinks=False).st_size))
        return sorted(found, key=lambda info: info.name)

    def _files(self, prefix: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
        """All regular files below a directory, hidden ones included, hidden directories not."""
        path = self.locate(prefix)
        with _translated(path):
            try:
                entries = os.scandir(path)
            except FileNotFoundError:
                return
            except NotADirectoryError:
                if prefix:
                    return
                raise
            with entries:
                for entry in entries:
                    name = f"{prefix}/{entry.name}" if prefix else entry.name
                    if entry.is_file(follow_symlinks=False):
                        yield name, entry
                    elif entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
                        yield from self._files(name)

    def delete(self, names: Sequence[str]) -> None:
        for name in names:
            check_name(name)
        self._remove(names)

    def _remove(self, names: Sequence[str]) -> None:
        first: StorageError | None = None
        for name in names:
            path = self.locate(name)
            try:
                os.unlink(path)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                first = first or storage_error(error, path)
            else:
                self.remove_empty_parents(name)
        if first:
            raise first

    def unfinished(self, prefix: str) -> Sequence[str]:
        check_prefix(prefix)
        return sorted(name for name, _ in self._files(prefix) if parse_part(name))

    def sweep(self, names: Sequence[str]) -> None:
        for name in names:
            check_part(name)
        self._remove(names)

    def probe(self) -> Sequence[str]:
        with _translated(self._root):
            self._make_directory(self._root)
            space = os.statvfs(os.path.join(self._root, ""))  # The slash: no file passes.
        return [
            f'directory "{self._root}"',
            f"free space: {format_size(space.f_bavail * space.f_frsize)}",
        ]


COMPONENT = Local
