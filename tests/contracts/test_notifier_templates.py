"""Messages in a user's own words: what is replaced, what is escaped, and that nobody is called."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pipeline.events import RunStarted, SourceWarned
from pipeline.report import BackupReport, Outcome, RunReport
from stages.notifiers._chat import rejoined
from tests import recorded
from tests.contracts.notifier import report
from tests.servers.chats import ChatServices, units
from tests.servers.smtp import Mailbox

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS"),
    pytest.mark.filterwarnings("ignore:Session.login_data is deprecated"),
    pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning"),
]

CHATS = {
    "slack": "slack",
    "slack-bot": "slack-api",
    "mattermost": "hooks",
    "mattermost-bot": "mattermost",
    "teams": "teams",
    "telegram": "telegram",
    "discord": "discord",
}
ALL = "{{{project}}} {host} {run} {backups}: {outcome} {result} {level}, {duration}\n{title}"
FILLED = "{shop} web-1 r1 etc: partial partial warning, 0.0 s\n[partial] shop on web-1: partial"


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")


@pytest.mark.parametrize("name", CHATS)
async def test_names_of_values_are_replaced(name: str) -> None:
    with ChatServices() as services:
        await recorded.made(name, services.port, 0, text=ALL).send(report())
        assert services.complaints == []
        (text,) = services.of(CHATS[name])
    assert text.startswith(FILLED)


@pytest.mark.parametrize("name", CHATS)
async def test_a_batch_of_events_has_values_too(name: str) -> None:
    with ChatServices() as services:
        template = "{project}/{host}/{run}/{backups}/{level}\n{title}"
        notifier = recorded.made(name, services.port, 0, text=template, send="events")
        notifier.about = RunStarted("r1", "shop", "web-1", ("db",))
        await notifier.send_events([SourceWarned("db", "crm", "one"), SourceWarned("db", "x", "2")])
        (text,) = services.of(CHATS[name])
    assert text == "shop/web-1/r1/db/warning\n[warning] shop on web-1: 2 events"


@pytest.mark.parametrize("name", CHATS)
async def test_values_call_nobody_and_end_no_block(name: str) -> None:
    event = SourceWarned("db", "crm", "<!channel> <@U1> @everyone ``` end")
    with ChatServices() as services:
        await recorded.made(name, services.port, 0, text="```\n{text}\n```").send_events([event])
        (text,) = services.of(CHATS[name])
        (request,) = services.requests(CHATS[name])
    if name == "teams":
        return  # its cards have no markup at all
    assert text.count("```") == 2
    if name.startswith("slack"):
        assert "&lt;!channel&gt; &lt;@U1&gt;" in text
    else:
        assert "@everyone" not in text
        assert "<@U1>" not in text
    if name == "discord":
        called = json.loads(request.body)["allowed_mentions"]
        assert called == {"parse": ["everyone", "roles", "users"]}


async def test_what_stands_around_values_may_call_people() -> None:
    with ChatServices() as services:
        template = "<!channel> *{project}* & more"
        await recorded.made("slack", services.port, 0, text=template).send(report())
        assert services.of("slack") == ["<!channel> *shop* & more"]


async def test_a_template_is_also_what_an_edited_message_becomes() -> None:
    with ChatServices() as services:
        notifier = recorded.made("slack-bot", services.port, 0, text="{host}: {result}")
        await notifier.show("[running]")
        await notifier.send(report())
        assert services.of("slack-api") == ["web-1: partial"]


@pytest.mark.parametrize("name", ["slack", "mattermost", "discord", "telegram"])
async def test_a_long_text_is_split_within_the_limit_and_blocks_stay_blocks(name: str) -> None:
    run = RunReport("r1", "shop", "web-1", report().started)
    run.backups = [BackupReport(f"backup-{n} \N{ELEPHANT}", Outcome.OK) for n in range(300)]
    with ChatServices() as services:
        await recorded.made(name, services.port, 0, text="now:\n```\n{text}\n```").send(run)
        assert services.complaints == []
        texts = services.of(CHATS[name])
    assert len(texts) > 1 or name == "mattermost"
    assert all(text.count("```") % 2 == 0 for text in texts)
    assert max(map(units, texts)) <= {"discord": 2000, "telegram": 4096}.get(name, 40_000)


async def test_a_mail_has_a_subject_and_a_text_of_its_own() -> None:
    words = {"subject": "{host}: {result}", "text": "{{{outcome}}}\n{text}"}
    with Mailbox(password="secret-of-email") as box:
        await recorded.made("email", 0, box.port, **words).send(report())
        (mail,) = box.received
    assert mail["Subject"] == "web-1: partial"
    assert mail.get_content().startswith("{partial}\r\n[partial] shop on web-1")


async def test_apprise_has_a_title_and_a_text_of_its_own() -> None:
    words = {"title": "{host}: {result}", "text": "{outcome}: {backups}"}
    with ChatServices() as services:
        await recorded.made("apprise", services.port, 0, **words).send(report())
        assert services.of("apprise") == ["web-1: partial\npartial: etc"]


@pytest.mark.parametrize(
    ("template", "sent"),
    [
        ("{text}", report().summary().replace("\udcff", "?")),
        ("{report}", "a document"),
        ("{events}", []),
        ("{result} of {backups}", "partial of etc"),
    ],
)
async def test_a_payload_has_documents_where_a_text_is_one_alone(template: str, sent: Any) -> None:
    with ChatServices() as services:
        payload = {"text": "x", "value": [template]}
        await recorded.made("webhook", services.port, 0, payload=payload).send(report())
        (request,) = services.requests("webhook")
    (value,) = json.loads(request.body)["value"]
    if template == "{report}":
        assert value["outcome"] == "partial"
    else:
        assert value == sent


def test_a_block_of_code_that_is_cut_is_closed_and_opened_again() -> None:
    assert rejoined(["a\n```\nb", "c", "d\n```\ne", "f"]) == [
        "a\n```\nb\n```",
        "```\nc\n```",
        "```\nd\n```\ne",
        "f",
    ]
