"""Notifiers: who is told. One model per notifier, then their union."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from schemas.base import Command, Duration, Secret, Spec, Text, hide_secrets


def _http_url(value: Secret) -> Secret:
    if not re.match(r"https?://[^\s/]", value.get_secret_value()):
        raise ValueError("must be an HTTP URL; such as https://host/path")
    return value


SecretUrl = Annotated[Secret, AfterValidator(_http_url)]
"""An address that is often a secret in itself."""


def _bearer(value: Secret | None) -> Secret | None:
    if value is not None and not re.fullmatch(r"[\x21-\x7e]+", value.get_secret_value()):
        raise ValueError("must be a token; letters, digits and signs, without blanks")
    return value


def _mail_address(value: str) -> str:
    if not re.fullmatch(r"[\x21-\x7e]+@[A-Za-z0-9.:\[\]-]+", value) or re.search(r"[<>,;]", value):
        raise ValueError("must be a mail address alone; such as ops@example.net")
    return value


Address = Annotated[str, AfterValidator(_mail_address)]
"""Where mail goes."""

Level = Literal["debug", "info", "warning", "error"]


Result = Literal["success", "partial", "locked", "failure"]


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
        ["success", "partial", "locked", "failure"],
        min_length=1,
        description="For `summary`: tell only runs that end so. `locked` is a run that another "
        "one kept from starting, `failure` is also one that was interrupted.",
        examples=[["partial", "failure"]],
    )
    start: bool = Field(False, description="For `summary`: also tell when a run starts.")
    timeout: Duration = Field(
        "30s",
        validate_default=True,
        description="Give up on a message after this time, retries included.",
    )

    @model_validator(mode="after")
    def _has_a_summary(self) -> NotifierSpecBase:
        if self.send == "events":
            for key in ("on", "start"):
                if key in self.model_fields_set:
                    raise ValueError(f"{key} has no use with send: events; use level, or remove it")
        return self


class HttpNotifierSpec(NotifierSpecBase):
    """What every notifier that is called over HTTP has."""

    ca: Text | None = Field(
        None,
        description="File with the certificate authorities to trust, instead of the usual ones.",
    )


class WebhookNotifier(HttpNotifierSpec):
    """An HTTP request with a JSON body, to anything that takes one."""

    type: Literal["webhook"]
    url: SecretUrl = Field(description="Where to; often a secret in itself.")
    method: Literal["POST", "PUT", "PATCH", "GET"] = Field(
        "POST", description="HTTP method; GET has no body, and only says that a run has ended."
    )
    headers: dict[str, Secret] = Field(default_factory=dict, description="HTTP headers to add.")
    payload: dict[str, Any] | None = Field(
        None,
        description="JSON to send instead, with {text}, {project}, {host}, {run}, {outcome} and "
        "{level} replaced inside its texts; a text that is {report} or {events} alone becomes all "
        "there is to know. {{ and }} are braces. Text under names such as password, token or key "
        "is never shown.",
        examples=[{"message": "{text}", "channel": "#ops"}],
    )

    @field_validator("payload")
    @classmethod
    def _is_template(cls, payload: dict[str, Any] | None) -> dict[str, Any] | None:
        if payload is None:
            return None
        for text in _texts(payload):
            if re.search(r"[{}]", PLACEHOLDER.sub("", text)):
                known = ", ".join(f"{{{name}}}" for name in _PLACEHOLDERS)
                raise ValueError(f"has a brace without a known name; known are {known}, {{{{, }}}}")
        return hide_secrets(payload)

    @model_validator(mode="after")
    def _has_a_body(self) -> WebhookNotifier:
        if self.method == "GET" and self.payload is not None:
            raise ValueError("payload has no use with method GET; remove it, or use POST")
        return self


_PLACEHOLDERS = ("text", "project", "host", "run", "outcome", "level", "report", "events")
PLACEHOLDER = re.compile(r"\{\{|\}\}|\{(" + "|".join(_PLACEHOLDERS) + r")\}")
"""In a payload: a doubled brace, or the name of a value in braces."""


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from _texts(each)
    elif isinstance(value, str):
        yield value


class SlackNotifier(HttpNotifierSpec):
    """Slack: an incoming webhook, or a bot, whose message shows how the run stands."""

    type: Literal["slack"]
    url: SecretUrl | None = Field(
        None, description="Address of an incoming webhook; a secret in itself."
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
    )

    @model_validator(mode="after")
    def _is_webhook_or_bot(self) -> SlackNotifier:
        if (self.url is None) == (self.token is None):
            raise ValueError("needs either url or token; set one of them")
        if (self.token is None) != (self.channel is None):
            raise ValueError("token and channel go together; set both or none")
        return self

    _token = field_validator("token")(_bearer)


class MattermostNotifier(HttpNotifierSpec):
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


class TeamsNotifier(HttpNotifierSpec):
    """Microsoft Teams: a workflow that posts to a channel or chat when a webhook is called."""

    type: Literal["teams"]
    url: SecretUrl = Field(description="Address of the workflow's trigger; a secret in itself.")


class TelegramNotifier(HttpNotifierSpec):
    """Telegram: a bot, whose message shows how the run stands."""

    type: Literal["telegram"]
    token: Secret = Field(description="Token of the bot, from @BotFather.")
    chat: Text = Field(
        description="Id of the user, group or channel, or @name of a public channel.",
        examples=["-1001234567890"],
    )
    thread: int | None = Field(None, ge=1, description="Id of a topic in a group that has them.")
    api: SecretUrl = Field(
        "https://api.telegram.org",
        validate_default=True,
        description="Where the bot calls: another one for a Bot API server of your own.",
    )

    @field_validator("token")
    @classmethod
    def _is_token(cls, value: Secret) -> Secret:
        if not re.fullmatch(r"[0-9]+:[A-Za-z0-9_-]+", value.get_secret_value()):
            raise ValueError("must be the token of a bot; digits, a colon, letters and digits")
        return value


class DiscordNotifier(HttpNotifierSpec):
    """Discord: the webhook of a channel, whose message shows how the run stands."""

    type: Literal["discord"]
    url: SecretUrl = Field(description="Address of the webhook; a secret in itself.")
    thread: Text | None = Field(None, description="Id of a thread in the channel.")

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
        for key in ("level", "send", "on"):
            if key in self.model_fields_set:
                raise ValueError(f"{key} has no use here: every run is told; remove it")
        return self


class EmailNotifier(NotifierSpecBase):
    """Mail in plain text, over SMTP or through the sendmail of this machine."""

    type: Literal["email"]
    sender: Address = Field(description="Who it is from.", examples=["backup@example.net"])
    to: list[Address] = Field(
        min_length=1, description="Who gets it.", examples=[["ops@example.net"]]
    )
    host: Text | None = Field(None, description="Name or address of the SMTP server.")
    port: int | None = Field(
        None,
        ge=1,
        le=65535,
        description="TCP port of the server; default: 587, 465 or 25, by `security`.",
    )
    security: Literal["starttls", "tls", "off"] = Field(
        "starttls",
        description="`starttls` insists on encryption after the greeting, `tls` encrypts from the "
        "start, `off` never does.",
    )
    user: Text | None = Field(None, description="User at the SMTP server.")
    password: Secret | None = Field(None, description="Password of the user.")
    ca: Text | None = Field(
        None,
        description="File with the certificate authorities to trust, instead of the usual ones.",
    )
    sendmail: Command | None = Field(
        None,
        description="Program that takes the mail, with its arguments, instead of a server; -t and "
        "-i are added.",
        examples=[["/usr/sbin/sendmail"]],
    )

    @model_validator(mode="after")
    def _keys_fit(self) -> EmailNotifier:
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
