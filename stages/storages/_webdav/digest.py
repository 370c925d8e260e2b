"""Digest authentication; apart, so that who does not need it does not wait for its library."""

from __future__ import annotations

import httpx


class Digest:
    """Answers to one challenge.

    Args:
        user: its name.
        password: its password.
        method: of the request that was refused.
        url: its address.
        challenge: one `WWW-Authenticate`.

    Raises:
        ValueError: the challenge has an algorithm, or a protection, that is not known.
    """

    def __init__(self, user: str, password: str, method: str, url: str, challenge: str) -> None:
        self._auth = httpx.DigestAuth(user, password)
        request = httpx.Request(method, url)
        flow = self._auth.auth_flow(request)
        next(flow)
        refusal = httpx.Response(401, headers={"www-authenticate": challenge}, request=request)
        try:
            flow.send(refusal)
        except (httpx.ProtocolError, KeyError, NotImplementedError, StopIteration):
            raise ValueError("not a challenge that can be answered") from None

    def header(self, method: str, url: str) -> str:
        """What goes into `Authorization` for another request; each counts up."""
        flow = self._auth.auth_flow(httpx.Request(method, url))
        return str(next(flow).headers["authorization"])
