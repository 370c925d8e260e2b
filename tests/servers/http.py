"""An HTTP or HTTPS server on loopback that keeps what it is sent and answers as it is told to."""

from __future__ import annotations

import ssl
import sys
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Literal


@dataclass(frozen=True)
class Answer:
    """What one request gets."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    delay: float = 0.0
    """Seconds before it."""
    manner: Literal["http", "hang", "garbage", "close", "endless", "trickle"] = "http"
    """`hang` says nothing until the server stops, `endless` never ends its body, `trickle` sends
    its head byte by byte, and never to the end.
    """


@dataclass(frozen=True)
class Received:
    """A request as it arrived."""

    method: str
    path: str
    headers: Mapping[str, str]
    """With names in lower case."""
    body: bytes


class HttpSink:
    """Runs while the `with` block does. Answers are used up in order; the last one stays.

    Args:
        certificate: PEM file with a certificate and its key; makes it an HTTPS server.
    """

    def __init__(self, *answers: Answer, certificate: Path | None = None) -> None:
        self.received: list[Received] = []
        self.asked: list[Received] = []
        """Questions of notifiers whether anyone is there: no messages, and no answer is used up."""
        self.stopping = threading.Event()
        self._answers = deque(answers or [Answer()])
        self._arrival = threading.Condition()
        self._server = _Server(self, _context(certificate))
        self._scheme = "http" if certificate is None else "https"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    def __enter__(self) -> HttpSink:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        if self._server.errors:
            raise self._server.errors[0]

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def url(self, path: str = "/", host: str = "127.0.0.1") -> str:
        """The address of `path` on this server."""
        return f"{self._scheme}://{host}:{self.port}{path}"

    def wait_for(self, requests: int) -> None:
        """Block until so many requests have arrived as a whole."""
        with self._arrival:
            assert self._arrival.wait_for(lambda: len(self.received) >= requests, timeout=60)

    def take(self, request: Received) -> Answer:
        """Keep a request and give out the next answer."""
        with self._arrival:
            self.received.append(request)
            self._arrival.notify_all()
            return self._answers.popleft() if len(self._answers) > 1 else self._answers[0]

    def look(self, request: Received) -> Answer:
        """Keep a question; it gets the status that a message would get."""
        with self._arrival:
            self.asked.append(request)
            answer = self._answers[0]
        return replace(answer, body=b"") if answer.manner == "http" else answer


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # so that closing waits for them, and no connection outlives a test
    request_queue_size = 128

    def __init__(self, sink: HttpSink, context: ssl.SSLContext | None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.sink = sink
        self.context = context
        self.errors: list[BaseException] = []

    def handle_error(self, request: object, client_address: object) -> None:
        error = sys.exc_info()[1]
        # Clients of these tests refuse certificates and leave early: that is no error of ours.
        if error is not None and not isinstance(error, (ssl.SSLError, ConnectionError)):
            self.errors.append(error)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def setup(self) -> None:
        if self.server.context is not None:
            # In the thread of the connection: a handshake that hangs must not stop the others.
            self.request.settimeout(10)
            self.request = self.server.context.wrap_socket(self.request, server_side=True)
        super().setup()

    def finish(self) -> None:
        super().finish()
        self.request.close()

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_POST(self) -> None:
        """Serve any method."""
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        request, sink = Received(self.command, self.path, headers, body), self.server.sink
        asks = (self.command, self.path, headers.get("user-agent")) == ("HEAD", "/", "nxs-backup")
        answer = sink.look(request) if asks else sink.take(request)
        self.server.sink.stopping.wait(answer.delay)
        self.close_connection = True
        if answer.manner == "hang":
            self.server.sink.stopping.wait()
        elif answer.manner == "garbage":
            self.wfile.write(b"\x16\x03SSH-2.0-not http\r\n\r\n\xff\x00" * 20)
        elif answer.manner == "trickle":
            self._trickle()
        elif answer.manner in ("http", "endless"):
            self._answer(answer)

    def _trickle(self) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nx-slow: ")
        while not self.server.sink.stopping.wait(0.1):
            self.wfile.write(b"x")

    do_PUT = do_PATCH = do_GET = do_DELETE = do_HEAD = do_CONNECT = do_POST  # noqa: N815
    do_PROPFIND = do_POST  # noqa: N815

    def _answer(self, answer: Answer) -> None:
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if answer.manner == "http":
            self.send_header("content-length", str(len(answer.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)
        while answer.manner == "endless" and not self.server.sink.stopping.is_set():
            self.wfile.write(b"x" * 65536)


def _context(certificate: Path | None) -> ssl.SSLContext | None:
    if certificate is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


def self_signed(directory: Path, *addresses: str) -> Path:
    """A PEM file with a new key and its certificate, which is its own authority.

    Args:
        addresses: IP addresses it is valid for; 127.0.0.1 when there is none.
    """
    import ipaddress
    from datetime import datetime, timedelta, timezone

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "loopback")])
    now = datetime.now(timezone.utc)
    names = [x509.IPAddress(ipaddress.ip_address(one)) for one in addresses or ("127.0.0.1",)]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = directory / "loopback.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return path
