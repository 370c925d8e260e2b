"""A directory of an fsspec file system, through those calls that do what they say.

What is avoided: `exists` (false on any error), `find` and `walk` (a directory that cannot be listed
is an empty one), `rm`, `mv` and `copy` (a name with `*`, `?` or `[` is a pattern), the caches.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from glob import has_magic
from typing import Any

from fsspec.asyn import AsyncFileSystem  # type: ignore[import-untyped]
from fsspec.spec import AbstractFileSystem  # type: ignore[import-untyped]

from pipeline.errors import StorageRefused
from stages.storages._fsspec.errors import is_missing

_ATTEMPTS = 20
"""Others may remove what is being listed."""


@dataclass(frozen=True)
class Entry:
    """What lies in a directory."""

    name: str
    size: int
    is_directory: bool


class Tree:
    """The files below a directory; names are relative to it.

    Args:
        fs: the file system, whose paths have no protocol.
        root: the directory there.
        spares_full: whether `rmdir` leaves a directory alone that is not empty; some remove it all.
    """

    def __init__(self, fs: AbstractFileSystem, root: str, spares_full: bool) -> None:
        self.fs = fs
        self.root = root
        self._spares_full = spares_full

    def release(self) -> None:
        """Let go of the file system, which closes its connections."""
        # Drivers with asyncio hold themselves through these: only the garbage collector, some time,
        # in some thread, would end them.
        for name, value in list(vars(self.fs).items()):
            if callable(value) and hasattr(value, "__wrapped__"):
                delattr(self.fs, name)
        del self.fs

    def locate(self, name: str) -> str:
        """The path of an object.

        Raises:
            StorageRefused: the driver would take the name for something else.
        """
        path = f"{self.root.rstrip('/')}/{name}" if name else self.root
        split = getattr(self.fs, "split_path", None)
        # In the names of object stores, versions are marked by `?` or `#`.
        means_itself = split is None or "/".join(split(path)[:2]).strip("/") == path.strip("/")
        if self.fs._strip_protocol(path) != path or not means_itself:
            raise StorageRefused(f'object name "{name}" cannot be used with this driver')
        return path

    def info(self, name: str) -> dict[str, Any] | None:
        """What is known about a file or directory, fresh; None when there is none."""
        path = self.locate(name)
        self.fs.invalidate_cache()
        try:
            found: dict[str, Any] = self.fs.info(path)
        except Exception as error:
            if is_missing(error):
                return None
            raise
        return found

    def size(self, name: str) -> int | None:
        """The size of a file; None when there is no such file."""
        found = self.info(name)
        return int(found["size"]) if found and found["type"] == "file" else None

    def entries(self, directory: str) -> list[Entry]:
        """The files and directories in a directory; none when it is missing, or is a file."""
        path = self.locate(directory)
        for attempt in range(_ATTEMPTS):
            self.fs.invalidate_cache()
            try:
                return list(_entries(path, self.fs.ls(path, detail=True)))
            except Exception as error:
                if not is_missing(error):
                    raise
                # Some drivers look at each entry by itself, which may be gone by then.
                found = self.info(directory)
                if found is None or found["type"] != "directory":
                    return []
                if attempt == _ATTEMPTS - 1:
                    raise
        raise AssertionError("unreachable")

    def put(self, name: str, content: bytes) -> None:
        """Write a small file in one go."""
        self.fs.pipe_file(self.locate(name), content)

    def remove(self, name: str) -> None:
        """Remove a file; one that is missing is fine."""
        path = self.locate(name)
        driver = type(self.fs)
        is_exact = overrides(driver, "rm_file") or (
            not self.fs.async_impl and overrides(driver, "_rm")
        )
        if has_magic(path) and not is_exact:
            raise StorageRefused(
                f'object "{name}" cannot be removed', "the driver would take its name for a pattern"
            )
        try:
            (self.fs.rm_file if is_exact else self.fs.rm)(path)
        except Exception as error:
            if not is_missing(error):
                raise

    def make_directory(self, directory: str) -> None:
        self.fs.makedirs(self.locate(directory), exist_ok=True)

    def remove_empty_parents(self, name: str) -> None:
        """Remove the directories above a file that hold nothing, but never the root."""
        parts = name.split("/")[:-1] if self._spares_full else []
        while parts:
            try:
                self.fs.rmdir(self.locate("/".join(parts)))
            except Exception:
                return  # It is not empty, or gone: drivers have no common word for that.
            parts.pop()


def overrides(driver: type[AbstractFileSystem], method: str) -> bool:
    """Whether a driver brings a method of its own, blocking or not."""
    names = {method, f"_{method}"}
    own = (getattr(driver, name, None) for name in names)
    bases = (AbstractFileSystem, AsyncFileSystem)
    inherited = {getattr(base, name, None) for base in bases for name in names}
    return any(each is not None and each not in inherited for each in own)


def _entries(path: str, found: list[dict[str, Any]]) -> Iterator[Entry]:
    for info in found:
        parent, _, name = info["name"].rstrip("/").rpartition("/")
        # Asked for a file, or a directory that object stores have a marker for, drivers name that.
        is_inside = parent.strip("/") == path.strip("/") and name
        if is_inside and info["type"] == "directory":
            yield Entry(name, 0, is_directory=True)
        elif is_inside and info["type"] == "file" and not info["name"].endswith("/"):
            yield Entry(name, int(info["size"]), is_directory=False)
