"""Proving who we are: basic (RFC 7617), digest (RFC 7616), bearer (RFC 6750)."""

from __future__ import annotations

import base64
import re
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.errors import StorageRefused
from schemas.storages import WebdavStorage

if TYPE_CHECKING:
    from stages.storages._webdav.digest import Digest

_SCHEME = re.compile(r"(?:^|,)\s*([A-Za-z]+)(?:\s|$)")
_STALE = re.compile(r'(?i)\bstale\s*=\s*"?true')


class Login:
    """What a storage says of itself in each request; shared by all its threads."""

    def __init__(self, spec: WebdavStorage) -> None:
        self.scheme: str | None = spec.auth if spec.user and spec.auth != "auto" else None
        """In use; None: nothing is said, or it is not known yet what the server wants."""
        self._wanted = spec.auth
        self._user = spec.user
        self._secret = spec.password.get_secret_value() if spec.password else ""
        self._token = spec.token.get_secret_value() if spec.token else None
        self._lock = threading.Lock()
        self._digest: Digest | None = None
        if self._token is not None:
            self.scheme = "bearer"

    def header(self, method: str, url: str) -> str | None:
        """What goes into `Authorization` for a request, as far as we know how to say it."""
        with self._lock:
            if self.scheme == "bearer":
                return f"Bearer {self._token}"
            if self.scheme == "basic":
                pair = f"{self._user}:{self._secret}".encode()
                return f"Basic {base64.b64encode(pair).decode()}"
            return self._digest.header(method, url) if self._digest else None

    def learn(self, method: str, url: str, said: str | None, challenges: Sequence[str]) -> bool:
        """Take note of a 401: whether the request may succeed when it is made again.

        Args:
            method: of the request that was refused.
            url: its address.
            said: what its `Authorization` was.
            challenges: the answer's `WWW-Authenticate`.
        """
        if self._user is None or (said and not _is_stale(challenges)):
            return False
        with self._lock:
            if self._wanted != "basic" and self._take_digest(method, url, challenges):
                self.scheme = "digest"
                return True
            offered = {one.lower() for each in challenges for one in _SCHEME.findall(each)}
            if self._wanted == "auto" and "basic" in offered and said is None:
                self.scheme = "basic"
                return True
        return False

    def _take_digest(self, method: str, url: str, challenges: Sequence[str]) -> bool:
        """Remember the first challenge that we can answer."""
        from stages.storages._webdav.digest import Digest

        for challenge in challenges:
            if challenge.lower().startswith("digest"):
                try:
                    self._digest = Digest(self._user or "", self._secret, method, url, challenge)
                except ValueError:
                    continue
                return True
        return False

    def refused(self, server: str) -> StorageRefused:
        """The error when the server does not let us in."""
        if self._token is not None:
            hint = "check token; it may have expired"
        elif self._user is None:
            hint = "it asks who we are; set user and password, or token"
        elif self._wanted != "auto":
            hint = f"check user and password, and whether it wants {self._wanted} authentication"
        else:
            hint = "check user and password"
        return StorageRefused(f'"{server}" refused the login', hint)


def _is_stale(challenges: Sequence[str]) -> bool:
    return any(_STALE.search(challenge) for challenge in challenges)
