"""Mail, to a real SMTP server and through a program."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from schemas.notifiers import EmailNotifier
from stages.notifiers import _delivery
from stages.notifiers.email import Email
from tests.contracts.notifier import SECRET, no_reach, refusal, report, some_events
from tests.servers.base import free_port
from tests.servers.dead import DeadServer, Manner
from tests.servers.http import self_signed
from tests.servers.smtp import USER, Mailbox

pytestmark = pytest.mark.anyio

TO = ["ops@example.net", "boss@example.net"]


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_delivery, "FIRST_DELAY", 0.05)


def email(port: int | None = None, **more: Any) -> Email:
    where = {} if port is None else {"host": "127.0.0.1", "port": port, "security": "off"}
    fields = {"type": "email", "sender": "backup@example.net", "to": TO, **where, **more}
    return Email(EmailNotifier.model_validate(fields))


async def test_a_report_is_one_well_formed_mail() -> None:
    with Mailbox() as box:
        await email(box.port).send(report())
        (mail,), (raw,) = box.received, box.raw
        assert box.recipients == [TO]
    assert mail["Subject"].startswith("[partial] shop on web-1: partial")
    assert (mail["From"], mail["To"]) == ("backup@example.net", ", ".join(TO))
    assert mail["Date"].datetime is not None
    assert mail["Message-ID"].endswith("@example.net>")
    assert mail["Auto-Submitted"] == "auto-generated"
    assert mail.get_content_type() == "text/plain"
    text = report().summary().replace("\udcff", "?")
    assert mail.get_content().replace("\r\n", "\n") == text + "\n"
    assert max(map(len, raw.split(b"\r\n"))) <= 998


async def test_events_are_lines_and_the_worst_is_the_subject() -> None:
    with Mailbox() as box:
        await email(box.port).send_events(some_events())
        (mail,) = box.received
    assert mail["Subject"] == "[warning] 3 events"
    assert mail.get_content().splitlines()[1].startswith("info: artifact committed")


async def test_a_refusal_for_now_is_tried_again_with_the_same_id() -> None:
    with Mailbox("451 later", "250 OK") as box:
        await email(box.port).send(report())
        assert len(box.received) == 1


async def test_a_refusal_is_final() -> None:
    with Mailbox(f"554 {SECRET}") as box:
        error = await refusal(email(box.port))
    assert error.message == '"127.0.0.1" answered 554'


async def test_one_recipient_that_is_refused_is_told_and_the_other_gets_it() -> None:
    with Mailbox(bad=(TO[1],)) as box:
        error = await refusal(email(box.port))
        assert box.recipients == [[TO[0]]]
    assert "refused 1 of 2 recipients" in error.message


async def test_no_recipient_is_an_error() -> None:
    with Mailbox(bad=tuple(TO)) as box:
        assert "550" in (await refusal(email(box.port))).message


@pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")  # it is there already
@pytest.mark.parametrize("security", ["starttls", "tls"])
async def test_it_logs_in_over_tls(security: str, tmp_path: Path) -> None:
    pem = self_signed(tmp_path)
    login = {"security": security, "ca": str(pem), "user": USER, "password": SECRET}
    implicit = security == "tls"
    with Mailbox(certificate=pem, implicit=implicit, password=SECRET) as box:
        await email(box.port, **login).send(report())
        assert len(box.received) == 1
        assert box.logins == [True]


async def test_a_wrong_password_is_final(tmp_path: Path) -> None:
    pem = self_signed(tmp_path)
    login = {"security": "starttls", "ca": str(pem), "user": USER, "password": SECRET}
    with Mailbox(certificate=pem, password="another") as box:
        error = await refusal(email(box.port, **login))
        assert box.logins in ([False], [False, False])  # by one mechanism, then by another
    assert "does not accept user and password" in error.message


async def test_an_unknown_certificate_is_refused(tmp_path: Path) -> None:
    with Mailbox(certificate=self_signed(tmp_path)) as box:
        error = await refusal(email(box.port, security="starttls"))
        assert box.received == []
    assert "not trusted" in error.message


async def test_starttls_that_is_not_offered_is_not_done_without() -> None:
    with Mailbox() as box:
        error = await refusal(email(box.port, security="starttls"))
        assert box.received == []
    assert "does not offer" in error.message


@contextmanager
def talking(first: bytes, again: bytes = b"") -> Iterator[int]:
    """A server that says one thing, then another every 50 ms, for ever; its port."""
    stop = threading.Event()

    def serve(listener: socket.socket) -> None:
        while not stop.is_set():
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with client:
                try:
                    client.sendall(first)
                    while again and not stop.wait(0.05):
                        client.sendall(again)
                    if not first:
                        stop.wait()
                except OSError:
                    continue  # they have given up

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            stop.set()
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.parametrize(
    ("first", "again", "words"),
    [
        pytest.param(b"", b"", "did not answer", id="hang"),
        pytest.param(b"220", b"x", "did not answer", id="trickle"),
        pytest.param(b"HTTP/1.1 400 Bad\r\n\r\n", b"", "not SMTP", id="garbage"),
        pytest.param(b"421 busy\r\n", b"", "421", id="busy"),
    ],
)
async def test_a_server_that_misbehaves_is_given_up(first: bytes, again: bytes, words: str) -> None:
    with talking(first, again) as port:
        error = await refusal(email(port, timeout="400ms"))
    assert words in error.message
    assert "gave up after 0.4s" in error.message


async def test_nobody_there_is_an_error() -> None:
    error = await refusal(email(free_port(), timeout="300ms"))
    assert "cannot be reached" in error.message


def program(folder: Path, script: str) -> str:
    path = folder / "sendmail"
    path.write_text(f"#!/bin/sh\n{script}\n")
    os.chmod(path, 0o755)
    return str(path)


async def test_sendmail_gets_the_message_as_the_machine_writes_text(tmp_path: Path) -> None:
    script = f'echo "$@" > {tmp_path}/args; cat > {tmp_path}/mail'
    await email(sendmail=[program(tmp_path, script), "-oee"]).send(report())
    assert (tmp_path / "args").read_text() == "-oee -t -i\n"
    mail = (tmp_path / "mail").read_bytes()
    assert b"\r" not in mail
    assert b"To: ops@example.net, boss@example.net\n" in mail


@pytest.mark.parametrize(
    ("script", "words"),
    [
        pytest.param(f"cat > /dev/null; echo {SECRET} >&2; exit 67", "status 67", id="refuses"),
        pytest.param("cat > /dev/null; exit 75", "gave up", id="busy"),
        pytest.param("exec sleep 60", "did not answer", id="hangs"),
    ],
)
async def test_sendmail_that_fails_is_an_error(script: str, words: str, tmp_path: Path) -> None:
    error = await refusal(email(sendmail=[program(tmp_path, script)], timeout="500ms"))
    assert words in error.message


async def test_sendmail_that_is_missing_is_an_error(tmp_path: Path) -> None:
    error = await refusal(email(sendmail=[str(tmp_path / "none")]))
    assert error.hint == "no such file or directory"


@pytest.mark.parametrize("security", ["off", "starttls", "tls"])
async def test_a_greeting_shows_that_someone_is_there(security: str, tmp_path: Path) -> None:
    pem = None if security == "off" else self_signed(tmp_path)
    trust = {} if pem is None else {"ca": str(pem)}
    with Mailbox(certificate=pem, implicit=security == "tls") as box:
        await email(box.port, security=security, **trust).reach()
        assert box.received == []


@pytest.mark.parametrize("manner", ["refuses", "garbles"])
async def test_nobody_there_is_noticed(manner: Manner) -> None:
    with DeadServer(manner) as dead:
        await no_reach(email(dead.port))


@pytest.mark.parametrize("manner", ["hangs", "swallows"])
async def test_a_question_can_be_cancelled(manner: Manner) -> None:
    with DeadServer(manner) as dead:
        with anyio.move_on_after(0.2) as scope:
            await email(dead.port).reach()
    assert scope.cancelled_caught


async def test_a_program_of_this_machine_is_taken_to_be_there() -> None:
    await email(sendmail=["/nonexistent/sendmail"]).reach()
