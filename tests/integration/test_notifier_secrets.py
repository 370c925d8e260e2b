"""Secrets, planted wherever they may be, are in nothing that a notifier sends, logs or reports."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.everyone import NAMES, configuration, notifiers
from tests.servers.chats import ChatServices
from tests.servers.http import Answer, HttpSink, Received
from tests.servers.smtp import Mailbox

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS"),
    pytest.mark.filterwarnings("ignore:Session.login_data is deprecated"),
]

PLANTED = {name: f"c4n4ry-of-{name}-7Fq" for name in NAMES}
OF_SOURCE = "c4n4ry/of+the%source 7Fq"
OF_ENVIRONMENT = "c4n4ry-of-the-environment-7Fq"
EVERY = {*PLANTED.values(), OF_SOURCE, OF_ENVIRONMENT}
TALKS = (
    'echo data; echo "cannot log in with $(cat "$1") or $PASSWORD, $TOKEN" >&2; sleep 0.5; exit 3'
)


@contextmanager
def services(manner: str) -> Iterator[tuple[HttpSink, Mailbox]]:
    """All of them; those that refuse say all the secrets in doing so."""
    everything = " ".join(sorted(EVERY))
    password = PLANTED["email"]
    if manner == "take it":
        with ChatServices() as sink, Mailbox(password=password) as box:
            yield sink, box
            assert sink.complaints == []
    else:
        refusal = Answer(403, body=everything.encode())
        with (
            HttpSink(refusal) as refusing,
            Mailbox(f"554 {everything}", password=password) as box,
        ):
            yield refusing, box


def run(folder: Path, told: dict[str, Any], *options: str) -> subprocess.CompletedProcess[str]:
    """A run that fails, whose program says all that it knows."""
    known = folder / "known"  # to a program, and not from us
    bot = f"12345:{PLANTED['telegram']}"  # a token as a whole
    known.write_text(" ".join(sorted({*EVERY, bot} - {PLANTED["telegram"]})))
    source = {
        "type": "command",
        "command": ["sh", "-c", TALKS, "sh", str(known)],
        "env": {"PASSWORD": OF_SOURCE, "TOKEN": "${TOKEN}"},
    }
    config = folder / "pipeline.yaml"
    config.write_text(configuration(told, source, str(folder / "backups")))
    config.chmod(0o600)
    return subprocess.run(
        [sys.executable, "-m", "pipeline", "run", str(config), "-v", *options],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "no_proxy": "*", "TOKEN": OF_ENVIRONMENT},
        timeout=90,
        check=False,
    )


def strangers(request: Received) -> set[str]:
    """The secrets in the address and the headers of a request that are not its own."""
    head = f"{request.path} {json.dumps(dict(request.headers))}"
    found = {secret for secret in EVERY if secret in head}
    return found if len(found) > 1 else set()


@pytest.mark.parametrize(
    ("send", "manner", "log_format"),
    [
        ("summary", "take it", "text"),
        ("summary", "refuse it", "json"),
        ("events", "take it", "json"),
        ("events", "refuse it", "text"),
    ],
)
def test_no_secret_is_told(tmp_path: Path, send: str, manner: str, log_format: str) -> None:
    with services(manner) as (sink, box):
        told = notifiers(sink.port, box.port, PLANTED.__getitem__)
        for name, spec in told.items():
            if name != "healthchecks":
                spec |= {"send": send, "level": "debug"}
            if name in ("slack", "email"):
                spec["text"] = "{text}\n{title}"
        options = ["--log-format", log_format, *(["--json"] if log_format == "json" else [])]
        done = run(tmp_path, told, *options)
        received, mails = list(sink.received), list(box.raw)
    assert done.returncode == 1
    bodies = [request.body.decode() for request in received]
    bodies += [raw.decode() for raw in mails]
    files = [one.read_text() for one in (tmp_path / "backups").rglob("*") if one.is_file()]
    for text in (done.stdout, done.stderr, *bodies, *files):
        assert [secret for secret in EVERY if secret in text] == []
    assert [found for request in received if (found := strangers(request))] == []
    called = {request.path.split("/")[1] for request in received}
    assert len(called) == len(NAMES) - 1  # all but mail
    # What was said is there, with the secrets cut out.
    assert "cannot log in with [secret]" in done.stderr
    if manner == "take it":
        assert len(mails) >= 1
        said = [body for body in bodies if "cannot log in with [secret]" in body]
        assert len(said) >= len(NAMES) - 1
    else:
        assert "answered 403" in done.stderr
        assert "answered 554" in done.stderr
