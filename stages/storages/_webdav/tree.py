"""What a storage does with collections and the objects in them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace

from pipeline.errors import StorageDenied, StorageRefused
from stages.storages._names import exists_already, in_progress, was_removed
from stages.storages._webdav.errors import status_error
from stages.storages._webdav.multistatus import ASK, Entry
from stages.storages._webdav.names import from_server, unquoted
from stages.storages._webdav.session import Answer, Request, Session

_XML = ("content-type", "application/xml")
_MADE = (200, 201, 204)
_PERHAPS_NO_PARENT = frozenset({400, 403, 404, 409, 500})
"""What servers answer to a PUT into a collection that does not exist: 409, but nginx 500."""
_NO_PARENT = (404, 409)
_CREATE_ATTEMPTS = 20
_BAD_GATEWAY = 502


@dataclass(frozen=True)
class Place:
    """Where an object goes: its name, and that of the unfinished one beside it."""

    name: str
    part: str

    @property
    def directory(self) -> str:
        return self.name.rpartition("/")[0]


@dataclass(frozen=True)
class Child:
    """What lies in a collection."""

    name: str
    """Its last part."""
    is_collection: bool
    size: int | None


# Looking


def look(session: Session, name: str, doing: str) -> Entry | None:
    """What has this name; None when nothing has.

    Raises:
        StorageDenied: we may not know.
    """
    request = Request("PROPFIND", name, doing, headers=[("depth", "0"), _XML], body=ASK)
    return next(iter(_found(session, request)), None)


def seems_there(session: Session, name: str, doing: str) -> bool:
    """Whether something has this name; False as well for those who may write, but not look."""
    try:
        return look(session, name, doing) is not None
    except StorageDenied:
        return False


def check_stored(session: Session, place: Place, size: int | None, doing: str) -> bool:
    """See that the unfinished object is there, and of this size.

    Returns:
        False when we may not look, or are not told the size.

    Raises:
        StorageRefused: it is gone, or has another size.
    """
    try:
        entry = look(session, place.part, doing)
    except StorageDenied:
        return False
    if entry is None:
        raise was_removed(place.name)
    if size is not None and entry.size not in (size, None):
        raise StorageRefused(
            f'"{session.link.server}" holds {entry.size} bytes of "{place.name}", {size} were sent',
            "does it, or a proxy before it, know chunked uploads?",
        )
    return size is None or entry.size is not None


def children(session: Session, name: str, doing: str) -> list[Child]:
    """What lies in a collection; nothing, when there is no such collection."""
    headers = [("depth", "1"), _XML]
    request = Request("PROPFIND", name, doing, collection=True, headers=headers, body=ASK)
    entries = _found(session, request)
    path = unquoted(request.target(session.link.address))
    itself = [entry for entry in entries if entry.path == path]
    if entries and not itself:
        # Not to be taken for an empty collection: whoever rotates would believe it.
        raise StorageRefused(
            f'"{session.link.server}" could not {doing}: it lists another place than it was asked',
            "does something between rewrite addresses? give the server's own address as url",
        )
    if not all(entry.is_collection for entry in itself):
        return []
    return list(_below(path, entries))


def _below(path: bytes, entries: list[Entry]) -> Iterator[Child]:
    for entry in entries:
        parent, _, base = entry.path.rpartition(b"/")
        if parent == path and base:
            yield Child(from_server(os.fsdecode(base)), entry.is_collection, entry.size)


def _found(session: Session, request: Request) -> list[Entry]:
    answer = session.request(request)
    if answer.status == 207:
        return answer.entries
    if answer.status == 404 or (answer.status in (400, 409) and _is_below_a_file(session, request)):
        return []
    raise status_error(answer.status, session.link.server, request.doing)


def _is_below_a_file(session: Session, request: Request) -> bool:
    """Whether a name leads through an object: some servers are confused by that."""
    above = request.name if request.collection else request.name.rpartition("/")[0]
    if not above:
        return False
    entry = look(session, above, request.doing)
    return entry is None or not entry.is_collection


# Changing


def claim(session: Session, place: Place, doing: str) -> None:
    """Make the unfinished object, empty; it says that somebody is writing.

    Raises:
        StorageRefused: the object, or the unfinished one, exists.
    """
    if seems_there(session, place.name, doing):
        raise exists_already(place.name)
    # Not all servers heed If-None-Match.
    if seems_there(session, place.part, doing):
        raise in_progress(place.name)
    request = Request("PUT", place.part, doing, headers=[("if-none-match", "*")])
    for attempt in range(_CREATE_ATTEMPTS):
        answer = session.request(request)
        if answer.status in _MADE or (answer.status == 412 and answer.repeated):
            return
        if answer.status == 412:
            raise in_progress(place.name)
        if answer.status not in _PERHAPS_NO_PARENT:
            break
        if attempt and seems_there(session, place.directory, doing):
            break  # At first, somebody else may have made it since.
        make_collections(session, place.directory, doing)
    raise status_error(answer.status, session.link.server, doing)


def make_collections(session: Session, name: str, doing: str) -> None:
    """Make a collection and those above it, even above the storage's own; it may be there."""
    missing = []
    for request in _upwards(session, name, doing):
        status = session.request(request).status
        if status in _NO_PARENT:
            missing.append(request)
            continue
        _check_made(session, request, status)
        break
    for request in reversed(missing):
        _check_made(session, request, session.request(request).status)


def _check_made(session: Session, request: Request, status: int) -> None:
    """See that a MKCOL did its work, or that somebody else did, and perhaps undid it again."""
    if status in (201, 405, *_NO_PARENT):
        return
    # Apache does not permit to make what another one is making: by now it is there.
    if session.request(request).status not in (201, 405):
        raise status_error(status, session.link.server, request.doing)


def _upwards(session: Session, name: str, doing: str) -> Iterator[Request]:
    """A MKCOL for a collection, and for each one above it."""
    while name:
        yield Request("MKCOL", name, doing, collection=True)
        name = name.rpartition("/")[0]
    for above in range(session.link.address.path.count("/") - 1):
        yield Request("MKCOL", "", doing, collection=True, above=above)


def move(session: Session, place: Place, size: int, doing: str) -> None:
    """Give the unfinished object its name, unless another has it.

    Raises:
        StorageRefused: the name is taken, or the unfinished object is gone.
    """
    # Not all servers heed Overwrite.
    if seems_there(session, place.name, doing):
        raise exists_already(place.name)
    answer = _move(session, place, doing)
    if answer.status in _MADE:
        return
    if answer.repeated and was_moved(session, place, size, doing):
        return
    if answer.status == 412 or seems_there(session, place.name, doing):
        raise exists_already(place.name)
    if answer.status in _PERHAPS_NO_PARENT and not seems_there(session, place.part, doing):
        raise was_removed(place.name)
    raise status_error(answer.status, session.link.server, doing)


def _move(session: Session, place: Place, doing: str) -> Answer:
    request = Request(
        "MOVE",
        place.part,
        doing,
        headers=[("overwrite", "F")],
        destination=place.name,
        final=frozenset({_BAD_GATEWAY}),
    )
    answer = session.request(request)
    if answer.status == _BAD_GATEWAY:
        # Behind a proxy that ends TLS, a server does not know itself by the address we use.
        in_the_clear = f"http://{session.link.address.authority}"
        answer = session.request(replace(request, origin=in_the_clear))
    if answer.status == _BAD_GATEWAY:
        answer = session.request(replace(request, origin="", final=frozenset()))
    return answer


def was_moved(session: Session, place: Place, size: int, doing: str) -> bool:
    """What became of a MOVE that nobody answered."""
    if look(session, place.part, doing) is not None:
        return False
    entry = look(session, place.name, doing)
    return entry is not None and not entry.is_collection and entry.size in (size, None)


def remove(session: Session, name: str) -> None:
    """Remove an object; one that does not exist is fine.

    Raises:
        StorageRefused: it is a collection, of which a DELETE would take everything.
    """
    doing = f'delete "{name}"'
    entry = look(session, name, doing)
    if entry is None:
        return
    if entry.is_collection:
        raise StorageRefused(f'"{name}" is no object but a collection; it is left alone')
    session.expect(Request("DELETE", name, doing), 200, 204, 404)


def remove_if_empty(session: Session, name: str) -> None:
    """Remove a collection that nobody else uses: with a DELETE goes whatever is in it."""
    doing = f'delete "{name}"'
    if not children(session, name, doing):
        session.expect(Request("DELETE", name, doing, collection=True), 200, 204, 404)
