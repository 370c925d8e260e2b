"""What notifiers have in common: when they tell, of what, and in which words."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from schemas import templates
from schemas.base import Duration, Secret, Spec, Text, in_schema
from schemas.templates import Template


def _http_url(value: Secret) -> Secret:
    if not re.match(r"https?://[^\s/]", value.get_secret_value()):
        raise ValueError("must be an HTTP URL; such as https://host/path")
    return value


SecretUrl = Annotated[Secret, AfterValidator(_http_url), in_schema("^https?://", is_secret=True)]
"""An address that is often a secret in itself."""


Level = Literal["debug", "info", "warning", "error"]

Result = Literal["success", "partial", "locked", "failure", "recovered"]
EVERY_RESULT: tuple[Result, ...] = ("success", "partial", "locked", "failure")
"""Whatever happens: a run that has recovered is a success."""

EventName = Literal[
    "run started",
    "backup started",
    "artifact started",
    "progressed",
    "items skipped",
    "source warned",
    "branch failed",
    "artifact committed",
    "artifact failed",
    "backup removed",
    "leftover removed",
    "sweep failed",
    "backup locked",
    "rotation failed",
    "backup failed",
    "backup recovered",
    "backup finished",
    "logging failed",
    "run finished",
]


class NotifierSpecBase(Spec):
    """What every notifier has."""

    level: Level = Field(
        "info",
        description="Say nothing about runs and events below this level (a success is info).",
    )
    send: Literal["summary", "events"] = Field(
        "summary",
        description="One message a run, which shows how it stands where the service can edit "
        "messages; or the log events as they come, in batches.",
    )
    on: list[Result] = Field(
        list(EVERY_RESULT),
        min_length=1,
        description="Tell only what ends so: runs, or for `events` those that have an outcome. "
        "`locked` is a run that another one kept from starting, `failure` is also one that was "
        "interrupted, `recovered` is the first success after a failure. For that, a run that "
        "fails leaves a note beside the backups on their storages.",
        examples=[["partial", "failure", "recovered"]],
    )
    backups: list[Text] = Field(
        ["*"],
        min_length=1,
        description="Of the backups that name this notifier, tell only of these; `*` and `?` "
        "stand for any characters.",
        examples=[["crm-*"]],
    )
    events: list[EventName] | None = Field(
        None,
        min_length=1,
        description="For `events`: only those with these names.",
        examples=[["backup failed", "artifact failed", "branch failed"]],
    )
    start: bool = Field(False, description="For `summary`: also tell when a run starts.")
    timeout: Duration = Field(
        "30s",
        validate_default=True,
        description="Give up on a message after this time, retries included. One who has not "
        "answered at all while the run went on gets less than a second after its end.",
    )

    @model_validator(mode="after")
    def _filters_have_a_use(self) -> NotifierSpecBase:
        if self.send == "events" and "start" in self.model_fields_set:
            raise ValueError("start has no use with send: events; use level, or remove it")
        if self.send == "summary" and self.events is not None:
            raise ValueError("events has no use with send: summary; remove it, or send: events")
        if "recovered" in self.on and self.level in ("warning", "error"):
            raise ValueError("a recovery is below this level; set level: info, as on decides")
        return self


class HttpNotifierSpec(NotifierSpecBase):
    """What every notifier that is called over HTTP has."""

    ca: Text | None = Field(
        None,
        description="File with the certificate authorities to trust, instead of the usual ones.",
        examples=["/etc/nxs-backup/ca.pem"],
    )


ABOUT_TEXT = (
    "The message, instead of the usual one; with "
    + ", ".join(f"{{{name}}}" for name in templates.MEANINGS)
    + " replaced. {{ and }} are braces. "
)


def check_text(text: str | None, send: str) -> None:
    """A batch of events has no outcome.

    Raises:
        ValueError: the template names one all the same.
    """
    useless = templates.names(text or "") & templates.ONLY_OF_RUNS
    if send == "events" and useless:
        raise ValueError(
            f"{{{min(useless)}}} has no use with send: events; use {{text}}, {{level}}"
        )


class ChatNotifierSpec(HttpNotifierSpec):
    """What every chat has."""

    text: Template | None = Field(
        None,
        min_length=1,
        description=ABOUT_TEXT
        + "What stands around them may use the markup of the service, and call "
        "people; values call nobody.",
        examples=["*{project}* on {host}: {result}\n```\n{text}\n```"],
    )

    @model_validator(mode="after")
    def _text_fits(self) -> ChatNotifierSpec:
        check_text(self.text, self.send)
        return self
