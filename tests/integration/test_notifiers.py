"""Whole runs that tell everyone: each service checks what it is sent, and counts it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import anyio
import pytest

from pipeline import notify
from pipeline.events import EventBus, SourceWarned
from pipeline.report import Outcome, RunReport
from pipeline.runner import Runner
from schemas.load import load
from tests.everyone import configuration, notifiers
from tests.servers.chats import ChatServices
from tests.servers.dead import MANNERS, DeadServer, Manner
from tests.servers.http import Answer, HttpSink
from tests.servers.smtp import Mailbox

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS"),
    pytest.mark.filterwarnings("ignore:Session.login_data is deprecated"),
    pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning"),
]

EDITED = ("slack-api", "mattermost", "telegram", "discord")
ONCE = ("webhook", "slack", "hooks", "teams", "apprise")
PASSWORD = "secret-of-email"
SLOW = Answer(delay=1.5)


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")


def run(
    folder: Path, told: dict[str, Any], program: list[str], bus: EventBus | None = None
) -> RunReport:
    path = folder / "pipeline.yaml"
    source = {"type": "command", "command": program}
    path.write_text(configuration(told, source, str(folder / "backups")))
    path.chmod(0o600)
    return anyio.run(Runner(load(path, {}).pipeline, bus or EventBus()).run)


def lasting(seconds: float) -> list[str]:
    return ["sh", "-c", f"echo hi; sleep {seconds:g}"]


async def interrupted_soon(runner: Runner) -> RunReport:
    """A run that is stopped from outside."""
    async with anyio.create_task_group() as group:

        async def interrupt() -> None:
            await anyio.sleep(0.5)
            runner.interrupt()

        group.start_soon(interrupt)
        return await runner.run()


def command(name: str, config: Path, *options: str) -> tuple[int, str]:
    """Run the program: its exit code and what it printed."""
    line = [sys.executable, "-m", "pipeline", name, str(config), *options]
    done = subprocess.run(line, capture_output=True, text=True, cwd=ROOT, timeout=90, check=False)
    return done.returncode, done.stdout


def titled(texts: list[str]) -> list[str]:
    """Which of the texts are a result."""
    return [text for text in texts if "shop on web-1: ok" in text]


def test_everyone_is_told_once_even_when_all_ask_for_patience(tmp_path: Path) -> None:
    with (
        ChatServices(busy=True) as services,
        Mailbox("451 later", "250 OK", password=PASSWORD) as box,
    ):
        report = run(tmp_path, notifiers(services.port, box.port), ["echo", "hi"])
        assert report.notifications == []
        assert services.complaints == []
        for service in (*EDITED, *ONCE):
            texts = services.of(service)
            assert len(titled(texts)) == 1, (service, texts)
            assert len(texts) <= 1 + (service in EDITED), texts
        start, end = services.of("ping")
        assert start.startswith("/start\n")
        assert end.startswith("\n[ok] shop on web-1")
        assert [mail["Subject"].partition(",")[0] for mail in box.received] == [
            "[ok] shop on web-1: ok"
        ]


def test_where_a_service_can_edit_a_run_is_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify, "BATCH_SECONDS", 0.2)
    with ChatServices() as services:
        told = notifiers(services.port, 0)
        names = ("slack-bot", "mattermost-bot", "telegram", "discord")
        report = run(tmp_path, {name: told[name] for name in names}, lasting(2))
        assert report.notifications == []
        assert services.complaints == []
        for service in EDITED:
            assert services.of(service) == titled(services.of(service))
            assert len(services.of(service)) == 1
            assert services.edits[service] >= 1


def test_ten_thousand_warnings_are_few_messages_and_none_is_lost(tmp_path: Path) -> None:
    bus = EventBus()

    def warn() -> None:
        for number in range(10_000):
            bus.emit(SourceWarned("db", "db", f"row {number} of a long table: {'x' * 90}"))
            time.sleep(0.0002)
        (tmp_path / "warned").touch()

    with ChatServices() as services, Mailbox(password=PASSWORD) as box:
        told = notifiers(services.port, box.port)
        del told["healthchecks"]  # is not told of events
        for spec in told.values():
            spec |= {"send": "events", "level": "warning"}
        warner = threading.Thread(target=warn)
        bus.subscribe(lambda event: warner.start() if event.name == "artifact started" else None)
        until_warned = f"echo hi; until [ -e {tmp_path}/warned ]; do sleep 0.1; done"
        report = run(tmp_path, told, ["sh", "-c", until_warned], bus)
        warner.join()
        assert report.notifications == []
        assert services.complaints == []
        texts = {service: services.of(service) for service in (*EDITED, *ONCE)}
        mails = [mail["Subject"] + "\n" + mail.get_content() for mail in box.received]
    for service, found in {**texts, "email": mails}.items():
        titles = [match for text in found if (match := TITLE.search(text))]
        assert sum(int(title[1].replace(",", "")) for title in titles) == 10_000, service
        assert len(titles) <= 6, service
        assert len(found) <= 5 * len(titles), service
    for text in texts["webhook"]:
        assert sum(map(number_of, text.splitlines()[1:])) == number_of_title(text)


TITLE = re.compile(r"\[warning\] shop on web-1: ([\d,]+) events")


def number_of_title(text: str) -> int:
    found = TITLE.search(text)
    assert found is not None, text[:200]
    return int(found[1].replace(",", ""))


def number_of(line: str) -> int:
    """How many events a line stands for."""
    more = re.match(r"\w+: ([\d,]+) more: ", line)
    return int(more[1].replace(",", "")) if more else 1


@pytest.mark.parametrize("manner", MANNERS)
def test_everyone_dead_changes_nothing_and_is_not_waited_for(
    tmp_path: Path, manner: Manner
) -> None:
    with DeadServer(manner) as dead:
        told = notifiers(dead.port, dead.port)
        for spec in told.values():
            spec["timeout"] = "10m"  # waiting for that long would end the test
        report = run(tmp_path, told, lasting(1))
    assert report.outcome is Outcome.OK
    assert {line.partition(":")[0] for line in report.notifications} == set(told)
    assert report.summary().count("not told: ") == len(report.notifications)


def test_a_slow_service_has_the_message_of_a_run_that_is_over_at_once(tmp_path: Path) -> None:
    """Nobody can tell it from a dead one by then: the message is sent all the same, and the report
    does not claim that it arrived.
    """
    with HttpSink(SLOW) as sink:
        hook = {"type": "webhook", "url": sink.url("/hook")}
        report = run(tmp_path, {"hook": hook}, ["echo", "hi"])
        assert [request.path for request in sink.received] == ["/hook"]
    assert ["may not have arrived" in line for line in report.notifications] in ([], [True])


def test_a_slow_service_is_waited_for_when_it_has_answered(tmp_path: Path) -> None:
    with HttpSink(SLOW) as sink:
        hook = {"type": "webhook", "url": sink.url("/hook")}
        report = run(tmp_path, {"hook": hook}, lasting(3))
        assert len(sink.received) == 1
    assert report.notifications == []


def test_a_recovery_is_told_once(tmp_path: Path) -> None:
    source = {"type": "command", "command": ["sh", "-c", f"echo hi; test ! -e {tmp_path}/broken"]}
    config = tmp_path / "pipeline.yaml"
    with HttpSink() as sink:
        hook = {"type": "webhook", "url": sink.url("/hook"), "on": ["failure", "recovered"]}
        config.write_text(configuration({"ops": hook}, source, str(tmp_path / "backups")))
        config.chmod(0o600)
        codes = []
        for broken in (True, True, False, False):
            (tmp_path / "broken").touch() if broken else (tmp_path / "broken").unlink(
                missing_ok=True
            )
            codes.append(
                anyio.run(Runner(load(config, {}).pipeline, EventBus()).run).outcome.exit_code
            )
        told = [json.loads(request.body) for request in sink.received]
    assert codes == [1, 1, 0, 0]
    heads = [body["text"].partition("]")[0] + "]" for body in told]
    assert heads == ["[FAILED]", "[FAILED]", "[recovered]"]
    assert [bool(body["report"]["backups"][0]["recovered"]) for body in told][:3] == [
        False,
        False,
        True,
    ]
    code, listed = command("list", config, "--json")
    assert (code, len(json.loads(listed)["backups"])) == (0, 2)
    assert list((tmp_path / "backups").rglob("failed@*")) == []


def test_a_run_that_was_interrupted_is_recovered_from(tmp_path: Path) -> None:
    config = tmp_path / "pipeline.yaml"
    source = {"type": "command", "command": lasting(1)}
    with HttpSink() as sink:
        hook = {"type": "webhook", "url": sink.url("/hook"), "on": ["failure", "recovered"]}
        config.write_text(configuration({"ops": hook}, source, str(tmp_path / "backups")))
        config.chmod(0o600)
        pipeline = load(config, {}).pipeline
        first = anyio.run(interrupted_soon, Runner(pipeline, EventBus()))
        left = [path.name for path in (tmp_path / "backups").rglob("*") if path.is_file()]
        second = anyio.run(Runner(pipeline, EventBus()).run)
        told = [json.loads(request.body)["text"] for request in sink.received]
    assert (first.outcome, second.outcome) == (Outcome.INTERRUPTED, Outcome.OK)
    assert [name.partition("@")[0] for name in left] == ["failed"]
    assert [text.partition("]")[0] for text in told] == ["[interrupted", "[recovered"]


def test_without_a_wish_for_recoveries_a_failed_run_leaves_nothing(tmp_path: Path) -> None:
    report = run(tmp_path, {}, ["false"])
    assert report.outcome is Outcome.FAILED
    assert [path for path in (tmp_path / "backups").rglob("*") if path.is_file()] == []
