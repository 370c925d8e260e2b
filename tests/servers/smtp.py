"""An SMTP server on loopback that keeps the mail it takes; it can refuse, and ask for a login."""

from __future__ import annotations

import ssl
import threading
from collections import deque
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import SMTP as POLICY
from pathlib import Path
from types import TracebackType
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, Envelope, LoginPassword

from tests.servers.base import HOST, free_port

USER = "backup"


class Mailbox:
    """Runs while the `with` block does.

    Args:
        replies: to the end of each message, in order; the last one stays.
        certificate: PEM file with a certificate and its key; makes STARTTLS possible.
        implicit: TLS from the start instead.
        password: of `USER`; without it nobody can log in.
        bad: recipients that are refused.
    """

    def __init__(
        self,
        *replies: str,
        certificate: Path | None = None,
        implicit: bool = False,
        password: str | None = None,
        bad: tuple[str, ...] = (),
    ) -> None:
        self.received: list[EmailMessage] = []
        self.recipients: list[list[str]] = []
        self.raw: list[bytes] = []
        self.logins: list[bool] = []
        self.port = free_port()
        self._replies = deque(replies or ["250 OK"])
        self._password, self._bad = password, bad
        self._arrival = threading.Lock()
        context = None
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
        options: dict[str, Any] = {"ssl_context": context} if implicit else {}
        if context is not None and not implicit:
            options |= {"tls_context": context, "require_starttls": True}
        if password is not None:
            options |= {"authenticator": self._authenticate, "auth_required": True}
            options |= {"auth_require_tls": context is not None and not implicit}
        self._server = Controller(self, HOST, self.port, **options)

    def _authenticate(self, *arguments: Any) -> AuthResult:
        data = arguments[-1]
        assert isinstance(data, LoginPassword)
        fits = data.login == USER.encode() and data.password == (self._password or "").encode()
        self.logins.append(fits)
        return AuthResult(success=fits, handled=False)

    async def handle_RCPT(  # noqa: N802
        self, server: Any, session: Any, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address in self._bad:
            return "550 no such user"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Envelope) -> str:  # noqa: N802
        content = envelope.content
        assert isinstance(content, bytes)
        with self._arrival:
            reply = self._replies.popleft() if len(self._replies) > 1 else self._replies[0]
            if reply.startswith("250"):
                self.raw.append(content)
                self.recipients.append(envelope.rcpt_tos)
                found: Any = BytesParser(policy=POLICY).parsebytes(content)
                self.received.append(found)
        return reply

    def __enter__(self) -> Mailbox:
        self._server.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.stop()
