"""What every storage that works with names says about them in the same words."""

from __future__ import annotations

from pipeline.errors import ObjectMissing, StorageRefused
from pipeline.naming import parse_part


def check_name(name: str) -> None:
    """Refuse names that leave the storage's directory, or that no listing would show.

    Raises:
        StorageRefused: a part is empty or starts with a dot, or the name is absolute.
    """
    parts = name.split("/")
    if "\0" in name or not all(part and not part.startswith(".") for part in parts):
        raise StorageRefused(
            f'object name "{name}" cannot be used',
            'names are relative, and their parts are neither empty nor start with "."',
        )


def check_prefix(prefix: str) -> None:
    """Like `check_name`, for a directory; "" is the storage's own.

    Raises:
        StorageRefused: it is not below the storage's directory.
    """
    if prefix:
        check_name(prefix)


def check_part(name: str) -> None:
    """Refuse to take anything for an unfinished object that we did not name so.

    Raises:
        StorageRefused: the name was not made by `part_name`.
    """
    parsed = parse_part(name)
    if parsed is None:
        raise StorageRefused(f'"{name}" is not the name of an unfinished object')
    check_name(parsed[0])


def is_below(name: str, prefix: str) -> bool:
    """Whether `name` lies below the directory `prefix`."""
    return not prefix or name.startswith(prefix + "/")


def exists_already(name: str) -> StorageRefused:
    return StorageRefused(f'object "{name}" already exists', "objects are never overwritten")


def in_progress(name: str) -> StorageRefused:
    return StorageRefused(
        f'object "{name}" is being written already', "the same run may write it once only"
    )


def ended_early(name: str, expected: int) -> StorageRefused:
    return StorageRefused(f'object "{name}" ended early', f"{expected} bytes or more were expected")


def is_missing(name: str) -> ObjectMissing:
    return ObjectMissing(f'object "{name}" does not exist')


def was_removed(name: str) -> StorageRefused:
    return StorageRefused(
        f'the unfinished object "{name}" was removed while it was being written',
        "did another run clear it away?",
    )
