"""Events: what every one of them promises, and how they are handed round."""

from __future__ import annotations

import re
from dataclasses import fields

import pytest

from pipeline.events import FIELDS, ArtifactFailed, BackupFinished, Event, EventBus
from pipeline.redact import Redactor

KINDS = Event.__subclasses__()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_an_event_is_named_by_its_class_and_documented(kind: type[Event]) -> None:
    words = re.findall("[A-Z][a-z]+", kind.__name__)
    assert kind.name == " ".join(words).lower()
    assert (kind.__doc__ or "").endswith(".")
    assert {field.name for field in fields(kind)} <= set(FIELDS)


def test_every_documented_field_is_one_of_an_event() -> None:
    assert set(FIELDS) == {field.name for kind in KINDS for field in fields(kind)}


@pytest.mark.parametrize(
    ("outcome", "level"),
    [
        ("ok", "info"),
        ("partial", "warning"),
        ("locked", "warning"),
        ("failed", "error"),
        ("interrupted", "error"),
    ],
)
def test_how_it_ended_decides_the_level(outcome: str, level: str) -> None:
    assert BackupFinished("db", outcome, 1.0).severity == level


def test_the_bus_cuts_out_secrets_in_every_form() -> None:
    seen: list[Event] = []
    bus = EventBus(seen.append, redactor=Redactor(["s3/cr+et"]))
    bus.emit(ArtifactFailed("s3/cr+et", "crm", "at s3/cr+et and s3%2Fcr%2Bet"))
    (event,) = seen
    assert isinstance(event, ArtifactFailed)
    assert event.error == "at [secret] and [secret]"
    assert event.backup == "s3/cr+et", "a name stays a name, or nobody would know what failed"


def test_a_subscriber_that_fails_does_not_keep_others_from_hearing() -> None:
    seen: list[Event] = []

    def broken(_: Event) -> None:
        raise BrokenPipeError

    bus = EventBus(broken, seen.append)
    bus.emit(BackupFinished("db", "ok", 1.0))
    bus.emit(BackupFinished("db", "ok", 1.0))
    assert len(seen) == 2
