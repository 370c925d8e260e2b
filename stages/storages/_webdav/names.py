"""How objects are called on the server, and what its addresses mean.

Unfinished objects get names of their own there. The leading dot of `.NAME.TOKEN.part` would hide
them from us as well with nginx, and Nextcloud and ownCloud refuse names that end in `.part`.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from urllib.parse import quote, unquote_to_bytes, urlsplit

from pipeline.naming import parse_part

_PORTS = {"http": 80, "https": 443}
_PART, _ON_SERVER = ".part", ".partial"
_KEPT = "/%:@!$&'()*+,;=~"
"""Characters of a configured path that stay as they are."""
_LONE_PERCENT = re.compile("%(?![0-9A-Fa-f]{2})")


def on_server(name: str) -> str:
    """The name on the server of an object, or of an unfinished one."""
    directory, slash, base = name.rpartition("/")
    if parse_part(name) is None:
        return name
    return f"{directory}{slash}{base[1 : -len(_PART)]}{_ON_SERVER}"


def from_server(name: str) -> str:
    """The inverse of `on_server`."""
    directory, slash, base = name.rpartition("/")
    if not base.endswith(_ON_SERVER):
        return name
    part = f"{directory}{slash}.{base[: -len(_ON_SERVER)]}{_PART}"
    return part if parse_part(part) else name


def quoted(name: str) -> str:
    """A name as part of an address; bytes that are not UTF-8 stay what they are."""
    return "/".join(quote(os.fsencode(part), safe="") for part in name.split("/"))


def unquoted(reference: str) -> bytes:
    """The path in an address, whole or only a path, without a slash at its end."""
    if not reference.startswith("/"):
        reference = urlsplit(reference).path
    return unquote_to_bytes(reference).rstrip(b"/")


@dataclass(frozen=True)
class Address:
    """Where the storage's collection is.

    Args:
        path: percent-encoded; it starts and ends with a slash.
    """

    scheme: str
    host: str
    port: int
    path: str

    @classmethod
    def parse(cls, url: str) -> Address:
        """Take an http or https address apart.

        Raises:
            ValueError: it is none.
        """
        parts = urlsplit(url)
        if parts.scheme not in _PORTS or not parts.hostname:
            raise ValueError("not an http or https address")
        host = parts.hostname
        if not host.isascii():
            host = host.encode("idna").decode()
        path = quote(_LONE_PERCENT.sub("%25", parts.path.strip("/")), safe=_KEPT)
        port = parts.port or _PORTS[parts.scheme]
        return cls(parts.scheme, host, port, f"/{path}/" if path else "/")

    @property
    def encrypted(self) -> bool:
        return self.scheme == "https"

    @property
    def server(self) -> str:
        """For messages: `host:port`."""
        return f"{self.host}:{self.port}"

    @property
    def authority(self) -> str:
        """For the header `Host`."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def origin(self) -> str:
        return f"{self.scheme}://{self.authority}"

    def target(self, name: str, collection: bool = False) -> str:
        """The path of an object, or of a collection; "" is the storage's own."""
        if not name:
            return self.path
        return self.path + quoted(name) + "/" * collection

    def above(self, levels: int) -> str:
        """The path of a collection so many levels above the storage's own."""
        parts = self.path.strip("/").split("/")
        return "/".join(["", *parts[: max(len(parts) - levels, 0)], ""])
