"""What each notifier sends for one and the same run, as fixtures that people can read, and the
messages of chats for `docs/messages.md`.

    python -m tests.recorded            # writes both anew; a test compares them with what is sent
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from email.message import EmailMessage
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any
from unittest import mock

import anyio
from pydantic import TypeAdapter
from ruamel.yaml import YAML
from ruamel.yaml.scalarstring import LiteralScalarString

from pipeline.events import (
    ArtifactFailed,
    ArtifactStarted,
    BackupFinished,
    BackupStarted,
    BranchFailed,
    Event,
    EventsOmitted,
    ItemsSkipped,
    Progressed,
    RunStarted,
    StageProgress,
)
from pipeline.registry import make_notifier
from pipeline.report import ArtifactReport, BackupReport, BranchReport, Outcome, RunReport
from pipeline.stage import Notifier
from pipeline.standing import Standing
from schemas.notifiers import NotifierSpec
from tests.everyone import NAMES, notifiers
from tests.servers.chats import ChatServices
from tests.servers.http import Received
from tests.servers.smtp import Mailbox

ROOT = Path(__file__).resolve().parents[1]
FIXTURES = ROOT / "tests" / "fixtures" / "notifiers"
PAGE = ROOT / "docs" / "messages.md"
STARTED = datetime(2026, 11, 23, 3, 15, tzinfo=timezone.utc)
RUN = RunStarted("1f0c5d0a9e3b7726", "shop", "web-1", ("crm-db", "sites"))
TEMPLATE = "*{project}* on {host}: {result}, after {duration}\n```\n{text}\n```"
REFUSED = '"offsite.example.net" did not answer; is the address right?'


def beginning() -> list[Event]:
    """How the run goes on, for the message that shows it."""
    read = (StageProgress("mysql", 734 << 20, None, "source"), StageProgress("zstd", 96 << 20))
    return [
        RUN,
        BackupStarted("crm-db"),
        ArtifactStarted("crm-db", "crm", ("nas", "offsite")),
        Progressed("crm-db", "crm", 48.0, read, "offsite"),
    ]


def later() -> list[Event]:
    read = (StageProgress("files", 12 << 30, None, "source"),)
    return [
        BranchFailed("crm-db", "crm", "offsite", False, REFUSED),
        BackupFinished("crm-db", "partial", 95.0),
        BackupStarted("sites"),
        ArtifactStarted("sites", "www", ("nas",)),
        Progressed("sites", "www", 320.0, read, "zstd"),
    ]


def batch() -> list[Event]:
    """A batch for `send: events`."""
    return [
        ItemsSkipped("sites", "www", 2, ("cache/a: permission denied", "cache/b: gone")),
        BranchFailed("crm-db", "crm", "offsite", False, REFUSED),
        ArtifactFailed("sites", "www", 'table "orders" is locked; try again later'),
        EventsOmitted("source warned", 9970, "too many", "warning", "sites"),
    ]


def result() -> RunReport:
    """A run that is partial."""
    crm = ArtifactReport("crm", Outcome.PARTIAL, plain_size=734 << 20, seconds=95.0)
    crm.branches = [
        BranchReport("nas", True, Outcome.OK, "crm-db/crm/crm_x.sql.zst", 96 << 20),
        BranchReport("offsite", False, Outcome.FAILED, error=REFUSED),
    ]
    www = ArtifactReport("www", Outcome.OK, plain_size=13 << 30, seconds=410.0)
    www.branches = [BranchReport("nas", True, Outcome.OK, "sites/www/www_x.tar.zst", 9 << 30)]
    database = BackupReport("crm-db", Outcome.PARTIAL, started=STARTED, artifacts=[crm])
    sites = BackupReport("sites", Outcome.OK, started=STARTED, artifacts=[www])
    sites.removed = ["nas:sites/www/www_2026-11-16T03-15-00Z.tar.zst"]
    report = RunReport(RUN.run, RUN.project, RUN.host, STARTED, 505.0)
    report.backups = [database, sites]
    return report


def recovered() -> RunReport:
    """The first success of a backup that had failed."""
    www = ArtifactReport("www", Outcome.OK, plain_size=13 << 30, seconds=402.0)
    www.branches = [BranchReport("nas", True, Outcome.OK, "sites/www/www_x.tar.zst", 9 << 30)]
    failed = STARTED.replace(day=22, minute=20)
    sites = BackupReport("sites", Outcome.OK, started=STARTED, artifacts=[www], recovered=failed)
    report = RunReport(RUN.run, RUN.project, RUN.host, STARTED, 402.0)
    report.backups = [sites]
    return report


def standing(*parts: Sequence[Event]) -> str:
    """How a run stands after some of its events."""
    shown = Standing(RUN.backups)
    for event in (event for part in parts for event in part):
        shown.take(event)
    text = shown.text()
    assert text is not None
    return text


async def tell(notifier: Notifier) -> None:
    """One run from its start to its end; then a batch of events; then a recovery."""
    notifier.about = RUN
    await notifier.reach()
    if notifier.edits:
        await notifier.show(standing(beginning()))
        await notifier.show(standing(beginning(), later()))
    else:
        await notifier.announce(RUN)
    await notifier.send(result())
    await notifier.send_events(batch())
    await notifier.send(recovered())


def made(name: str, web: int, smtp: int, **more: Any) -> Notifier:
    """A notifier of `tests.everyone`."""
    fields = {**notifiers(web, smtp)[name], **more}
    return make_notifier(TypeAdapter(NotifierSpec).validate_python(fields))


@cache
def requests(name: str, **more: Any) -> list[dict[str, Any]]:
    """What a notifier sends, in the order in which it does."""
    if name == "email":
        with warnings_off(), Mailbox(password="secret-of-email") as box:
            anyio.run(tell, made(name, 0, box.port, **more))
            return [_mail(one) for one in box.received]
    with ChatServices() as services, mock.patch.dict("os.environ", {"no_proxy": "*"}):
        anyio.run(tell, made(name, services.port, 0, **more))
        assert services.complaints == []
        return [_request(one) for one in (*services.asked, *services.received)]


@contextmanager
def warnings_off() -> Iterator[None]:
    """The SMTP server finds a password without encryption worth a warning; this is loopback."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Requiring AUTH while not requiring TLS")
        warnings.filterwarnings("ignore", "Session.login_data is deprecated")
        yield


def fixture(name: str) -> str:
    """The text of the fixture of a notifier."""
    yaml = YAML()
    yaml.width = 10_000
    yaml.indent(mapping=2, sequence=4, offset=2)
    out = StringIO()
    yaml.dump(_readable(requests(name)), out)
    return out.getvalue()


_HEADERS = ("authorization", "content-type", "x-token")


def _request(request: Received) -> dict[str, Any]:
    headers = {name: request.headers[name] for name in _HEADERS if name in request.headers}
    found: dict[str, Any] = {"request": f"{request.method} {request.path}", **headers}
    if request.body:
        is_json = "json" in headers.get("content-type", "")
        found["body"] = json.loads(request.body) if is_json else request.body.decode()
    return found


def _mail(mail: EmailMessage) -> dict[str, Any]:
    names = ("From", "To", "Subject", "Auto-Submitted", "Content-Type")
    text = mail.get_content().replace("\r\n", "\n")
    return {**{name: str(mail[name]).strip() for name in names}, "body": text}


def _readable(value: Any) -> Any:
    """Text of several lines stays that, instead of one line with marks for their ends."""
    if isinstance(value, Mapping):
        return {name: _readable(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_readable(each) for each in value]
    return LiteralScalarString(value) if isinstance(value, str) and "\n" in value else value


# -- docs/messages.md ------------------------------------------------------------------------------


def _bodies(name: str, **more: Any) -> list[dict[str, Any]]:
    return [one["body"] for one in requests(name, **more) if "body" in one]


def _unfenced(text: str) -> str:
    return re.sub(r"^```\w*\n|\n```$", "", text)


def _slack() -> dict[str, str]:
    start, standing_later, end, events, again = (
        _unfenced(body["text"]).replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
        for body in _bodies("slack-bot")
    )
    return {
        "running": start,
        "running-later": standing_later,
        "result": end,
        "events": events,
        "recovered": again,
    }


def _card() -> str:
    lines = _bodies("teams")[1]["attachments"][0]["content"]["body"]
    return "\n".join(block["inlines"][0]["text"] for block in lines).replace("\xa0", " ")


def blocks() -> dict[str, str]:
    """The text of each block of the page, by its name."""
    (mail,) = [one for one in requests("email") if one["Subject"].startswith("[partial]")]
    made: dict[str, Callable[[], str]] = {
        "teams": _card,
        "telegram": lambda: str(_bodies("telegram")[2]["text"]),
        "email": lambda: f"Subject: {mail['Subject']}\n\n{mail['body'].rstrip()}",
        "template": lambda: str(_bodies("slack", text=TEMPLATE)[1]["text"]),
    }
    return {**_slack(), **{name: make() for name, make in made.items()}}


_BLOCK = re.compile(r"(<!-- message: ([a-z-]+) -->\n)(?:~~~~text\n.*?\n~~~~\n)?", re.DOTALL)


def page(text: str) -> str:
    """The page, with each block below its mark."""
    found = blocks()
    return _BLOCK.sub(lambda mark: f"{mark[1]}~~~~text\n{found[mark[2]]}\n~~~~\n", text)


def main() -> None:
    """Write the fixtures and the page."""
    FIXTURES.mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        (FIXTURES / f"{name}.yaml").write_text(fixture(name), encoding="utf-8")
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
