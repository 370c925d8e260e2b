"""`check --notify`: a test message through each notifier, to a real server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.cli.main import main
from tests.servers.http import Answer, HttpSink

CONFIGURATION = """\
name: shop
host: web
storages:
  nas: {{type: memory, path: check-notify}}
notifiers:
  hook: {{type: webhook, url: "{hook}"}}
  pings: {{type: healthchecks, url: "{pings}"}}
backups:
  db:
    source: {{type: stdin}}
    fan_out: [{{storage: nas}}]
    notify: [hook, pings]
"""


def check(folder: Path, hook: str, pings: str, *options: str) -> int:
    path = folder / "pipeline.yaml"
    path.write_text(CONFIGURATION.format(hook=hook, pings=pings))
    path.chmod(0o600)
    return main(["check", str(path), *options])


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")


def test_each_notifier_sends_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with HttpSink() as hook, HttpSink() as pings:
        assert check(tmp_path, hook.url("/x"), pings.url("/id"), "--notify") == 0
        (message,), (ping,) = hook.received, pings.received
    (event,) = json.loads(message.body)["events"]
    assert event == {
        "event": "notification tested",
        "level": "info",
        "project": "shop",
        "host": "web",
    }
    assert ping.path == "/id/log"  # neither a success nor a failure
    assert "ok      notifier hook\n          a test message was sent" in capsys.readouterr().out


def test_one_that_fails_is_named_without_its_address(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with HttpSink(Answer(403)) as hook, HttpSink() as pings:
        assert check(tmp_path, hook.url("/s3cr3t"), pings.url("/id"), "--notify") == 3
        assert len(pings.received) == 1
    out, err = capsys.readouterr()
    assert 'failed  notifier hook: "127.0.0.1" answered 403' in out
    assert "s3cr3t" not in out + err


def test_without_the_option_nobody_is_told(tmp_path: Path) -> None:
    with HttpSink() as sink:
        assert check(tmp_path, sink.url("/x"), sink.url("/id")) == 0
        assert sink.received == []
