"""Notifiers: who is told. One model per notifier, then their union."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from schemas import templates
from schemas.base import Command, Secret, Text, hide_secrets, in_schema
from schemas.telling import (
    ABOUT_TEXT,
    ChatNotifierSpec,
    HttpNotifierSpec,
    NotifierSpecBase,
    SecretUrl,
    check_text,
)
from schemas.templates import Template


def _bearer(value: Secret | None) -> Secret | None:
    if value is not None and not re.fullmatch(r"[\x21-\x7e]+", value.get_secret_value()):
        raise ValueError("must be a token; letters, digits and signs, without blanks")
    return value


def _mail_address(value: str) -> str:
    if not re.fullmatch(r"[\x21-\x7e]+@[A-Za-z0-9.:\[\]-]+", value) or re.search(r"[<>,;]", value):
        raise ValueError("must be a mail address alone; such as ops@example.net")
    return value


Address = Annotated[str, AfterValidator(_mail_address), in_schema(r"^[^\s@<>,;]+@[^\s@<>,;]+$")]
"""Where mail goes."""


class WebhookNotifier(HttpNotifierSpec):
    """An HTTP request with a JSON body, to anything that takes one."""

    type: Literal["webhook"]
    url: SecretUrl = Field(
        description="Where to; often a secret in itself.",
        examples=["https://ops.example.net/backups"],
    )
    method: Literal["POST", "PUT", "PATCH", "GET"] = Field(
        "POST", description="HTTP method; GET has no body, and only says that a run has ended."
    )
    headers: dict[str, Secret] = Field(
        default_factory=dict,
        description="HTTP headers to add.",
        examples=[{"Authorization": "Bearer ${OPS_TOKEN}"}],
    )
    payload: dict[str, Any] | None = Field(
        None,
        description="JSON to send instead, with {text}, {title}, {project}, {host}, {run}, "
        "{level}, {backups}, {outcome}, {result} and {duration} replaced inside its texts; a text "
        "that is {report} or {events} alone becomes all there is to know. {{ and }} are braces. "
        "Text under names such as password, token or key is never shown.",
        examples=[{"message": "{text}", "channel": "#ops"}],
    )

    @field_validator("payload")
    @classmethod
    def _is_template(cls, payload: dict[str, Any] | None) -> dict[str, Any] | None:
        if payload is None:
            return None
        for text in templates.texts(payload):
            templates.check(text, *templates.DOCUMENTS)
        return hide_secrets(payload)

    @model_validator(mode="after")
    def _has_a_body(self) -> WebhookNotifier:
        if self.method == "GET" and self.payload is not None:
            raise ValueError("payload has no use with method GET; remove it, or use POST")
        return self


class SlackNotifier(ChatNotifierSpec):
    """Slack: an incoming webhook, or a bot, whose message shows how the run stands."""

    suggested: ClassVar[tuple[str, ...]] = ("url",)

    type: Literal["slack"]
    url: SecretUrl | None = Field(
        None,
        description="Address of an incoming webhook; a secret in itself.",
        examples=["https://hooks.slack.com/services/T00/B00/x"],
    )
    token: Secret | None = Field(
        None,
        description="Token of a bot (`xoxb-...`) with the scope chat:write, instead of `url`.",
    )
    channel: Text | None = Field(
        None, description="Id of the channel for the bot, which is in it.", examples=["C0123456789"]
    )
    api: SecretUrl = Field(
        "https://slack.com/api",
        validate_default=True,
        description="Where the bot calls; https://slack-gov.com/api for GovSlack.",
        examples=["https://slack-gov.com/api"],
    )

    @model_validator(mode="after")
    def _is_webhook_or_bot(self) -> SlackNotifier:
        if (self.url is None) == (self.token is None):
            raise ValueError("needs either url or token; set one of them")
        if (self.token is None) != (self.channel is None):
            raise ValueError("token and channel go together; set both or none")
        return self

    _token = field_validator("token")(_bearer)


class MattermostNotifier(ChatNotifierSpec):
    """Mattermost: an incoming webhook, or a bot, whose message shows how the run stands."""

    type: Literal["mattermost"]
    url: SecretUrl = Field(
        description="Address of an incoming webhook, a secret in itself; or of the server, for a "
        "bot.",
        examples=["https://chat.example.net/hooks/..."],
    )
    token: Secret | None = Field(None, description="Access token of a bot.")
    channel: Text | None = Field(
        None,
        description="Id of the channel for the bot, which is in it.",
        examples=["4xp9fdt77pncbef59f4k1qe83o"],
    )

    @model_validator(mode="after")
    def _is_webhook_or_bot(self) -> MattermostNotifier:
        if (self.token is None) != (self.channel is None):
            raise ValueError("token and channel go together; set both or none")
        return self

    _token = field_validator("token")(_bearer)


class TeamsNotifier(ChatNotifierSpec):
    """Microsoft Teams: a workflow that posts to a channel or chat when a webhook is called."""

    type: Literal["teams"]
    url: SecretUrl = Field(
        description="Address of the workflow's trigger; a secret in itself.",
        examples=["https://prod.example.net/workflows/0"],
    )


class TelegramNotifier(ChatNotifierSpec):
    """Telegram: a bot, whose message shows how the run stands."""

    type: Literal["telegram"]
    token: Secret = Field(
        description="Token of the bot, from @BotFather.", examples=["1234567890:x"]
    )
    chat: Text = Field(
        description="Id of the user, group or channel, or @name of a public channel.",
        examples=["-1001234567890"],
    )
    thread: int | None = Field(
        None, ge=1, description="Id of a topic in a group that has them.", examples=[42]
    )
    api: SecretUrl = Field(
        "https://api.telegram.org",
        validate_default=True,
        description="Where the bot calls: another one for a Bot API server of your own.",
        examples=["https://telegram.example.net"],
    )

    @field_validator("token")
    @classmethod
    def _is_token(cls, value: Secret) -> Secret:
        if not re.fullmatch(r"[0-9]+:[A-Za-z0-9_-]+", value.get_secret_value()):
            raise ValueError("must be the token of a bot; digits, a colon, letters and digits")
        return value


class DiscordNotifier(ChatNotifierSpec):
    """Discord: the webhook of a channel, whose message shows how the run stands."""

    type: Literal["discord"]
    url: SecretUrl = Field(
        description="Address of the webhook; a secret in itself.",
        examples=["https://discord.com/api/webhooks/0/x"],
    )
    thread: Text | None = Field(
        None, description="Id of a thread in the channel.", examples=["1234567890123456789"]
    )

    @field_validator("thread")
    @classmethod
    def _is_id(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[0-9]{1,20}", value):
            raise ValueError("must be the id of a thread; digits alone")
        return value


class HealthchecksNotifier(HttpNotifierSpec):
    """Healthchecks: a watchdog that raises the alarm when a run fails, or does not come."""

    type: Literal["healthchecks"]
    url: SecretUrl = Field(
        description="Ping address of the check, by its id or slug; a secret in itself.",
        examples=["https://hc-ping.com/00000000-0000-0000-0000-000000000000"],
    )
    start: bool = Field(True, description="Also ping when a run starts, so that it is timed.")
    partial: Literal["success", "failure"] = Field(
        "failure", description="What a run that is partial counts as."
    )

    @model_validator(mode="after")
    def _tells_every_run(self) -> HealthchecksNotifier:
        for key in ("level", "send", "on", "events"):
            if key in self.model_fields_set:
                raise ValueError(f"{key} has no use here: every run is told; remove it")
        return self


class EmailNotifier(NotifierSpecBase):
    """Mail in plain text, over SMTP or through the sendmail of this machine."""

    suggested: ClassVar[tuple[str, ...]] = ("host", "user", "password")

    type: Literal["email"]
    sender: Address = Field(description="Who it is from.", examples=["backup@example.net"])
    to: list[Address] = Field(
        min_length=1, description="Who gets it.", examples=[["ops@example.net"]]
    )
    host: Text | None = Field(
        None, description="Name or address of the SMTP server.", examples=["smtp.example.net"]
    )
    port: int | None = Field(
        None,
        ge=1,
        le=65535,
        description="TCP port of the server; default: 587, 465 or 25, by `security`.",
        examples=[587],
    )
    security: Literal["starttls", "tls", "off"] = Field(
        "starttls",
        description="`starttls` insists on encryption after the greeting, `tls` encrypts from the "
        "start, `off` never does.",
    )
    user: Text | None = Field(None, description="User at the SMTP server.", examples=["backup"])
    password: Secret | None = Field(None, description="Password of the user.")
    ca: Text | None = Field(
        None,
        description="File with the certificate authorities to trust, instead of the usual ones.",
        examples=["/etc/nxs-backup/ca.pem"],
    )
    sendmail: Command | None = Field(
        None,
        description="Program that takes the mail, with its arguments, instead of a server; -t and "
        "-i are added.",
        examples=[["/usr/sbin/sendmail"]],
    )
    subject: Template | None = Field(
        None,
        min_length=1,
        description="Subject, instead of the first line of the usual text; as in `text`.",
        examples=["{host}: {result}"],
    )
    text: Template | None = Field(
        None,
        min_length=1,
        description=ABOUT_TEXT.strip(),
        examples=["{result} on {host}\n\n{text}"],
    )

    @model_validator(mode="after")
    def _keys_fit(self) -> EmailNotifier:
        for text in (self.subject, self.text):
            check_text(text, self.send)
        if (self.host is None) == (self.sendmail is None):
            raise ValueError("needs either host or sendmail; set one of them")
        if (self.user is None) != (self.password is None):
            raise ValueError("user and password go together; set both or none")
        if self.sendmail is not None:
            for key in ("port", "security", "user", "ca"):
                if key in self.model_fields_set:
                    raise ValueError(f"{key} has no use with sendmail; remove it")
        if self.security == "off" and self.ca is not None:
            raise ValueError("ca has no use without encryption; set another security")
        if self.security == "off" and self.user and not _is_loopback(self.host or ""):
            raise ValueError("a password must not be sent in the clear; set another security")
        return self


def _is_loopback(host: str) -> bool:
    return host in ("localhost", "::1") or re.fullmatch(r"127(\.[0-9]{1,3}){3}", host) is not None


class AppriseNotifier(NotifierSpecBase):
    """Any of the services that Apprise knows, by its URLs: https://github.com/caronc/apprise/wiki"""

    type: Literal["apprise"]
    urls: list[Secret] = Field(
        min_length=1,
        description="Addresses of services, as Apprise has them; secrets in themselves.",
        examples=[["ntfys://ntfy.example.net/backups"]],
    )
    title: Template | None = Field(
        None,
        min_length=1,
        description="Title, instead of the first line of the usual text; as in `text`.",
        examples=["{project} on {host}: {result}"],
    )
    text: Template | None = Field(
        None,
        min_length=1,
        description=ABOUT_TEXT.strip(),
        examples=["{result} on {host}\n\n{text}"],
    )

    @model_validator(mode="after")
    def _text_fits(self) -> AppriseNotifier:
        for text in (self.title, self.text):
            check_text(text, self.send)
        return self


NotifierSpec = Annotated[
    WebhookNotifier
    | SlackNotifier
    | MattermostNotifier
    | TeamsNotifier
    | TelegramNotifier
    | DiscordNotifier
    | EmailNotifier
    | HealthchecksNotifier
    | AppriseNotifier,
    Field(discriminator="type"),
]
