"""What `check --connect` finds out about a WebDAV server."""

from __future__ import annotations

from collections.abc import Sequence

from stages._tls import is_loopback
from stages.storages._probe import readable_size
from stages.storages._webdav.errors import status_error
from stages.storages._webdav.link import Link
from stages.storages._webdav.multistatus import ASK_QUOTA
from stages.storages._webdav.session import Answer, Request


def facts_of(link: Link) -> Sequence[str]:
    """Server, login, encryption and quota; one line each.

    Raises:
        StorageError: the server does not let us in.
    """
    with link.session() as session:
        headers = [("depth", "0"), ("content-type", "application/xml")]
        request = Request(
            "PROPFIND", "", "look around", collection=True, headers=headers, body=ASK_QUOTA
        )
        answer = session.request(request)
        if answer.status not in (207, 404, 403):  # Missing ones are made; some may only write.
            raise status_error(answer.status, link.server, request.doing)
    address = link.address
    software = _printable(answer.head.get("server") or "")
    scheme = f", {link.login.scheme} authentication" if link.login.scheme else ""
    return [
        f'collection "{address.path}" on "{link.server}"{software and f" ({software})"}{scheme}',
        *_encryption(link),
        *_quota(answer),
    ]


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)[:100]


def _encryption(link: Link) -> list[str]:
    host = link.address.host
    if not link.address.encrypted:
        what = "the password and " * (link.login.scheme == "basic") + "the backups"
        line = f"warning: the connection is not encrypted; anyone on the way can read {what}"
        return [] if is_loopback(host) else [f"{line}, and change them"]
    asked_for = link.spec.tls and link.spec.tls.mode  # Else: loopback.
    if asked_for and asked_for != "verify":
        return [
            "warning: the certificate is not checked; anyone on the way can read the backups, and "
            "change them"
        ]
    return ["encrypted with TLS"]


def _quota(answer: Answer) -> list[str]:
    """What is left of a quota, where the server tells (RFC 4331)."""
    available = [entry.available for entry in answer.entries if entry.available is not None]
    return [f"{readable_size(available[0])} left of the quota"] if available else []
