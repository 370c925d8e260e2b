"""The answer to a PROPFIND (RFC 4918, section 14.16), read piece by piece."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from xml.parsers import expat

from stages.storages._webdav.names import unquoted

_BLANK = " "
"""Between namespace and name; no namespace contains one."""
_MAX_DEPTH = 64
_MAX_TEXT = 64 << 10
_MAX_ENTRIES = 2_000_000


def _dav(name: str) -> str:
    return f"DAV:{_BLANK}{name}"


_RESPONSE, _PROPSTAT = _dav("response"), _dav("propstat")
_WITH_TEXT = {
    _dav(name)
    for name in ("href", "status", "getcontentlength", "quota-available-bytes", "quota-used-bytes")
}
_RESOURCE_TYPE, _COLLECTION = _dav("resourcetype"), _dav("collection")

PROPERTIES = (
    '<?xml version="1.0" encoding="utf-8"?>\n'
    '<propfind xmlns="DAV:"><prop><resourcetype/><getcontentlength/>{more}</prop></propfind>'
)
"""The body that asks for what an `Entry` holds."""
ASK = PROPERTIES.format(more="").encode()
ASK_QUOTA = PROPERTIES.format(more="<quota-available-bytes/>").encode()


class NotUnderstood(Exception):
    """The answer is no multistatus, or one that nobody sends in good faith."""


@dataclass(frozen=True)
class Entry:
    """One resource."""

    path: bytes
    """Decoded, absolute, without a slash at its end."""
    is_collection: bool
    size: int | None
    """In bytes; None when the server does not tell."""
    available: int | None = None
    """Bytes of its quota that are left, where that was asked for and told (RFC 4331)."""


def parse(pieces: Iterable[bytes]) -> list[Entry]:
    """Read an answer.

    Document types are refused: entities are what bombs are made of, and what could read files.

    Raises:
        NotUnderstood: see there.
    """
    reader = _Reader()
    try:
        for piece in pieces:
            reader.parser.Parse(piece, False)
        reader.parser.Parse(b"", True)
    except (expat.ExpatError, ValueError) as error:
        raise NotUnderstood(str(error)) from None
    if not reader.is_multistatus:
        raise NotUnderstood("it is no multistatus")
    return reader.entries


class _Reader:
    """What is known at some point of the document."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.is_multistatus = False
        self.parser = expat.ParserCreate(None, _BLANK)
        self.parser.buffer_text = True
        self.parser.StartDoctypeDeclHandler = _refuse
        self.parser.EntityDeclHandler = _refuse
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._data
        self._open: list[str] = []
        self._text = ""
        self._href = ""
        self._refused = False
        self._found: dict[str, str] = {}
        self._stated: dict[str, str] = {}

    def _start(self, name: str, _: dict[str, str]) -> None:
        if not self._open:
            self.is_multistatus = name == _dav("multistatus")
        if name == _RESPONSE:
            self._href, self._refused, self._found = "", False, {}
        elif name == _PROPSTAT:
            self._stated = {}
        elif name == _COLLECTION and self._open[-1:] == [_RESOURCE_TYPE]:
            self._stated[_COLLECTION] = ""
        self._text = ""
        self._open.append(name)
        if len(self._open) > _MAX_DEPTH:
            raise NotUnderstood("it is nested too deeply")

    def _data(self, text: str) -> None:
        if self._open[-1] not in _WITH_TEXT:
            return
        self._text += text
        if len(self._text) > _MAX_TEXT:
            raise NotUnderstood("it has a text without end")

    def _end(self, name: str) -> None:
        self._open.pop()
        if name == _RESPONSE:
            self._finish_entry()
        elif name == _PROPSTAT:
            if _is_ok(self._stated.pop(_dav("status"), "")):
                self._found |= self._stated
        elif name in _WITH_TEXT:
            self._take_text(name, self._text.strip())

    def _take_text(self, name: str, text: str) -> None:
        if _PROPSTAT in self._open:
            self._stated[name] = text
        elif name == _dav("href"):
            self._href = self._href or text
        elif name == _dav("status"):
            self._refused = not _is_ok(text)

    def _finish_entry(self) -> None:
        if not self._href:
            raise NotUnderstood("it lacks an address")
        if len(self.entries) >= _MAX_ENTRIES:
            raise NotUnderstood("it has no end")
        if self._refused:
            return
        found = self._found
        self.entries.append(
            Entry(
                unquoted(self._href),
                _COLLECTION in found,
                _number(found.get(_dav("getcontentlength"))),
                _number(found.get(_dav("quota-available-bytes"))),
            )
        )


def _refuse(*_: object) -> None:
    raise NotUnderstood("it declares a document type")


def _is_ok(status: str) -> bool:
    """Whether a line such as `HTTP/1.1 200 OK` says so."""
    return status.split(" ")[1:2] == ["200"]


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() else None
