"""What notifiers send is what the fixtures and the page of messages show, and services take."""

from __future__ import annotations

import pytest

from schemas.templates import MEANINGS
from tests import recorded
from tests.everyone import NAMES
from tests.servers.chats import SERVICES

pytestmark = [
    # The mail server of the tests has no encryption, on loopback.
    pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS"),
    pytest.mark.filterwarnings("ignore:Session.login_data is deprecated"),
    pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning"),
]


@pytest.mark.parametrize("name", NAMES)
def test_a_notifier_sends_what_is_recorded(name: str) -> None:
    path = recorded.FIXTURES / f"{name}.yaml"
    assert recorded.fixture(name) == path.read_text(), "python -m tests.recorded"


def test_every_fixture_is_of_a_notifier() -> None:
    assert sorted(path.stem for path in recorded.FIXTURES.iterdir()) == sorted(NAMES)


def test_the_page_of_messages_is_true() -> None:
    text = recorded.PAGE.read_text()
    assert recorded.page(text) == text, "python -m tests.recorded"
    for name in recorded.blocks():
        assert f"<!-- message: {name} -->\n~~~~text\n" in text


def test_the_page_names_every_value_of_a_template() -> None:
    text = recorded.PAGE.read_text()
    assert [name for name in MEANINGS if f"`{{{name}}}`" not in text] == []


def test_every_service_is_called_by_someone() -> None:
    calls = "".join((recorded.FIXTURES / f"{name}.yaml").read_text() for name in NAMES)
    assert [one for one in SERVICES if f" /{one}/" not in calls] == []
