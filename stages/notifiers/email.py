"""Tells people by mail, over SMTP or through the sendmail of this machine."""

from __future__ import annotations

import re
import smtplib
import socket
import ssl
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, localtime, make_msgid

from pipeline.errors import NotifierError
from pipeline.events import Event
from pipeline.report import RunReport
from pipeline.segment import run_in_thread
from pipeline.stage import Notifier
from schemas.notifiers import EmailNotifier
from schemas.templates import fill
from stages.notifiers._delivery import DISTRUST, Failure, deliver, is_distrust, trusting
from stages.notifiers._template import of_events, of_report

_GRACE = 0.1
"""Seconds that a connection gets to end after it was cut; one that is not made yet cannot be."""
_SHORTEST = 1.0
_EX_TEMPFAIL = 75
"""Exit status of a sendmail that cannot take a message now; see sysexits.h."""


class Email(Notifier):
    """A mail a run, or a batch of events, in plain text."""

    def __init__(self, spec: EmailNotifier) -> None:
        self._spec = spec

    async def reach(self) -> None:
        """Waits for the greeting of the server. A program of this machine is taken to be there."""
        if self._spec.sendmail is not None:
            return
        greeting = _Greeting(self._spec)
        failure = await run_in_thread("email", greeting.hear, greeting.stop, grace=_GRACE)
        if failure is not None:
            raise NotifierError(f'"{self._spec.host}" {failure.what}', failure.hint)

    async def send(self, report: RunReport) -> None:
        await self._tell(of_report(report))

    async def send_events(self, events: Sequence[Event]) -> None:
        await self._tell(of_events(events, self.about))

    async def _tell(self, values: Mapping[str, str]) -> None:
        subject, text = self._spec.subject or "{title}", self._spec.text or "{text}"
        await self._mail(fill(subject, values), fill(text, values))

    async def _mail(self, subject: str, text: str) -> None:
        spec, message = self._spec, self._message(subject, text)
        # The same message in each attempt: by its id, one that arrives twice is recognised.
        made: Callable[[], _Smtp | _Sendmail]
        if spec.sendmail is not None:
            whom, made = spec.sendmail[0], lambda: _Sendmail(spec.sendmail or [], message)
        else:
            whom, made = spec.host or "", lambda: _Smtp(spec, message)

        async def attempt() -> Failure | None:
            carrier = made()
            return await run_in_thread("email", carrier.carry, carrier.stop, grace=_GRACE)

        await deliver(whom, attempt, spec.timeout)

    def _message(self, subject: str, text: str) -> EmailMessage:
        message = EmailMessage(policy=SMTP)
        message["From"] = self._spec.sender
        message["To"] = ", ".join(self._spec.to)
        message["Subject"] = re.sub(r"[\x00-\x1f\x7f\ud800-\udfff]+", "?", subject)[:200]
        message["Date"] = format_datetime(localtime())
        # With a domain of its own it would look up the name of this machine, which can hang.
        message["Message-ID"] = make_msgid(domain=self._spec.sender.rpartition("@")[2].strip(">"))
        message["Auto-Submitted"] = "auto-generated"  # so that nobody's absence notice answers
        message.set_content(text.encode("utf-8", "replace").decode() + "\n")
        return message


class _Conversation:
    """A connection over SMTP, as far as its greeting."""

    def __init__(self, spec: EmailNotifier) -> None:
        self._spec = spec
        self._connection: smtplib.SMTP | None = None

    def stop(self) -> None:
        """Cut the connection; called from another thread."""
        sock = getattr(self._connection, "sock", None)
        if sock is not None:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _connect(self) -> smtplib.SMTP:
        spec = self._spec
        host, name = spec.host or "", socket.gethostname()
        timeout = max(_SHORTEST, spec.timeout)
        # It looks up its own name otherwise, which can hang.
        local = name if re.fullmatch(r"[A-Za-z0-9.-]+", name) else "localhost"
        if spec.security == "tls":
            smtp: smtplib.SMTP
            smtp = smtplib.SMTP_SSL(local_hostname=local, timeout=timeout, context=self._context())
        else:
            smtp = smtplib.SMTP(local_hostname=local, timeout=timeout)
        self._connection = smtp
        smtp._host = host  # type: ignore[attr-defined]  # for TLS; only its constructor sets it
        code, _ = smtp.connect(host, spec.port or _PORTS[spec.security])
        if code != 220:
            raise smtplib.SMTPConnectError(code, "")
        return smtp

    def _context(self) -> ssl.SSLContext:
        return ssl.create_default_context() if self._spec.ca is None else trusting(self._spec.ca)


class _Greeting(_Conversation):
    """Sees whether the server is there."""

    def hear(self) -> Failure | None:
        """Connect, and hang up politely."""
        try:
            self._connect().quit()
        except smtplib.SMTPException:
            return Failure("hung up, or its answer is not SMTP")
        except OSError as error:
            return _failure_of_error(error)
        finally:
            if self._connection is not None:
                self._connection.close()
        return None


class _Smtp(_Conversation):
    """One attempt over SMTP."""

    def __init__(self, spec: EmailNotifier, message: EmailMessage) -> None:
        super().__init__(spec)
        self._mail = message

    def carry(self) -> Failure | None:
        """Deliver, and say why not; texts of the server are not repeated."""
        try:
            refused = self._converse()
        except NotifierError:
            raise
        except smtplib.SMTPNotSupportedError:
            return Failure("does not offer what is asked for", "look at `security` and `user`")
        except smtplib.SMTPAuthenticationError as error:
            return _refusal(error.smtp_code, "does not accept user and password")
        except smtplib.SMTPRecipientsRefused as error:
            codes = [code for code, _ in error.recipients.values()]
            return _refusal(min(codes), f"answered {min(codes)} to the recipients")
        except smtplib.SMTPResponseException as error:
            return _refusal(error.smtp_code, f"answered {error.smtp_code}")
        except smtplib.SMTPServerDisconnected:
            return Failure("hung up, or its answer is not SMTP", may_pass=True)
        except (OSError, UnicodeError, ValueError) as error:
            return _failure_of_error(error)
        finally:
            if self._connection is not None:
                self._connection.close()
        if refused:
            total = len(self._spec.to)
            return Failure(f"refused {len(refused)} of {total} recipients", "look at `to`")
        return None

    def _converse(self) -> dict[str, tuple[int, bytes]]:
        spec, smtp = self._spec, self._connect()
        if spec.security == "starttls":
            smtp.starttls(context=self._context())
        if spec.user is not None:
            smtp.login(spec.user, spec.password.get_secret_value() if spec.password else "")
        refused = smtp.send_message(self._mail)
        with suppress(smtplib.SMTPException, OSError):
            smtp.quit()  # the message is theirs already
        return refused


_PORTS = {"starttls": 587, "tls": 465, "off": 25}


def _refusal(code: int, what: str) -> Failure:
    """4xx is for now, 5xx for ever; anything else is no SMTP."""
    if code < 400:
        return Failure("hung up, or its answer is not SMTP", may_pass=True)
    return Failure(what, may_pass=code < 500)


def _failure_of_error(error: Exception) -> Failure:
    if is_distrust(error):
        return DISTRUST
    if isinstance(error, ssl.SSLError):
        return Failure("does not speak TLS here", "look at `port` and `security`")
    if isinstance(error, TimeoutError):
        return Failure("did not answer", may_pass=True)
    if isinstance(error, (ConnectionRefusedError, socket.gaierror)):
        return Failure("cannot be reached", may_pass=True)
    if isinstance(error, OSError):
        return Failure("broke the connection", may_pass=True)
    return Failure("cannot be sent this", "look for characters that are not ASCII in addresses")


class _Sendmail:
    """One attempt through a program of this machine."""

    def __init__(self, command: Sequence[str], message: EmailMessage) -> None:
        self._command, self._mail = command, message
        self._process: subprocess.Popen[bytes] | None = None

    def stop(self) -> None:
        """End the program; called from another thread."""
        if self._process is not None:
            self._process.kill()

    def carry(self) -> Failure | None:
        """Hand the message over; what the program says may hold addresses, and is not repeated."""
        try:
            self._process = subprocess.Popen(
                # -t: recipients are in the message. -i: a line with a single dot is not its end.
                [*self._command, "-t", "-i"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        except OSError as error:
            return Failure("cannot be started", (error.strerror or "look at `sendmail`").lower())
        # Like any other text of this machine: with its line ends, and not those of the network.
        self._process.communicate(self._mail.as_bytes(policy=SMTP.clone(linesep="\n")))
        status = self._process.returncode
        if status == 0:
            return None
        return Failure(f"ended with status {status}", may_pass=status == _EX_TEMPFAIL)


COMPONENT = Email
