"""The start of an upload: the name is free, the place is there, and it shows that we write."""

from __future__ import annotations

import posixpath
from contextlib import suppress

from stages.storages._fsspec.errors import Kind as ErrorKind
from stages.storages._fsspec.errors import kind_of as kind_of_error
from stages.storages._fsspec.kinds import Kind, kind_of
from stages.storages._fsspec.tree import Tree
from stages.storages._fsspec.upload import Place, Upload
from stages.storages._names import exists_already, in_progress

_ATTEMPTS = 20


def begin(tree: Tree, place: Place, block_size: int) -> Upload:
    """Start an upload in the way that suits the file system.

    Raises:
        StorageRefused: the name is taken, or being written by the same run.
        Exception: whatever the driver raises.
    """
    kind = kind_of(type(tree.fs))
    if tree.info(place.name) is not None:
        raise exists_already(place.name)
    if tree.info(place.part) is not None:
        raise in_progress(place.name)
    _put_part(tree, place, kind)
    try:
        return kind.upload(tree, place, block_size if kind.sized else None)
    except BaseException:
        with suppress(Exception):  # The first error is the one to tell.
            tree.remove(place.part)
        raise


def _put_part(tree: Tree, place: Place, kind: Kind) -> None:
    # Whoever removes the last object of a directory removes the directory too. Object stores have
    # none, but some of them keep their objects in a file system that does.
    may_pass = {ErrorKind.EXISTS, ErrorKind.MISSING} if kind.has_directories else {ErrorKind.EXISTS}
    for attempt in range(_ATTEMPTS):
        try:
            if kind.has_directories:
                tree.make_directory(posixpath.dirname(place.part))
            tree.put(place.part, b"")
            return
        except Exception as error:
            if kind_of_error(error) not in may_pass or attempt == _ATTEMPTS - 1:
                raise
