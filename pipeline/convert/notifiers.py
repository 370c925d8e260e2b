"""Notifications: mail and webhooks, one message a run instead of one a log line."""

from __future__ import annotations

import re
from email.utils import parseaddr
from typing import Any
from urllib.parse import urlsplit

from pydantic import SecretStr

from pipeline.convert.notes import Notes, free_name, plain_name
from schemas.base import hide_secrets
from schemas.problems import Path
from schemas.v3.model import ENV, Config, Mail, Webhook

Block = dict[str, Any]


def convert_notifiers(config: Config, notes: Notes) -> dict[str, Block]:
    """Our `notifiers`; what is turned off in v3 is left out."""
    blocks: dict[str, Block] = {}
    mail, path = config.notifications.mail, ("notifications", "mail")
    if mail is not None and not mail.enabled:
        notes.dropped((*path, "enabled"), "is turned off")
    elif mail is not None and not mail.recipients:
        notes.danger((*path, "recipients"), "there was nobody to send mail to")
    elif mail is not None:
        blocks["mail"] = _mail(mail, path, config.server_name, notes)
    for number, webhook in enumerate(config.notifications.webhooks):
        path = ("notifications", "webhooks", number)  # type: ignore[assignment]
        if webhook.enabled:
            name = free_name(_webhook_name(webhook), blocks)
            blocks[name] = _webhook(webhook, path, name, notes)
        else:
            notes.dropped((*path, "enabled"), "is turned off")
    if blocks:
        notes.danger(
            ("notifications",),
            "v3 sent one message for each line of its log at the level; here it is one a run",
        )
    return blocks


def _mail(mail: Mail, path: Path, server: str, notes: Notes) -> Block:
    block: Block = {"type": "email", "sender": _sender(mail, path, server, notes)}
    texts = [notes.text((*path, "recipients", n), to) for n, to in enumerate(mail.recipients)]
    block["to"] = [parseaddr(text)[1] or text for text in texts]
    block["level"] = mail.message_level
    if not mail.smtp_server:
        block["sendmail"] = ["/usr/sbin/sendmail"]
        return block
    block["host"] = notes.text((*path, "smtp_server"), mail.smtp_server)
    port = mail.smtp_port or ""
    if port:
        block["port"] = int(port) if port.isdigit() else notes.text((*path, "smtp_port"), port)
    if port == "465":
        block["security"] = "tls"
    else:
        message = "encryption is insisted on; v3 went on without it when the server had none"
        notes.changed((*path, "smtp_port"), message)
    if mail.smtp_user and mail.smtp_password:
        block["user"] = notes.text((*path, "smtp_user"), mail.smtp_user)
        block["password"] = notes.secret(
            (*path, "smtp_password"), mail.smtp_password, "mail", "password"
        )
    elif mail.smtp_user:
        notes.dropped((*path, "smtp_user"), "has no password beside it")
    return block


def _sender(mail: Mail, path: Path, server: str, notes: Notes) -> str:
    if mail.mail_from:
        text = notes.text((*path, "mail_from"), mail.mail_from)
        return parseaddr(text)[1] or text
    sender = f"nxs-backup@{plain_name(server, 'localhost')}"
    if "@" in mail.smtp_user:
        sender = notes.text((*path, "smtp_user"), mail.smtp_user)
    notes.danger((*path, "mail_from"), "is missing: v3 sent no mail at all")
    notes.decide((*path, "mail_from"), "who is mail from?", ("notifiers", "mail", "sender"))
    return sender


def _webhook_name(webhook: Webhook) -> str:
    host = "" if ENV.search(webhook.webhook_url) else urlsplit(webhook.webhook_url).hostname or ""
    return plain_name(host, "webhook")


def _webhook(webhook: Webhook, path: Path, name: str, notes: Notes) -> Block:
    url = notes.secret((*path, "webhook_url"), webhook.webhook_url, name, "url")
    block: Block = {"type": "webhook", "url": url, "level": webhook.message_level}
    if webhook.extra_headers:
        block["headers"] = {
            header: notes.secret((*path, "extra_headers", header), value, name, header)
            for header, value in webhook.extra_headers.items()
        }
    extra = _template(webhook.extra_payload, (*path, "extra_payload"), name, notes)
    block["payload"] = {webhook.payload_message_key: "{text}", **extra}
    if webhook.insecure_tls:
        notes.danger((*path, "insecure_tls"), "the certificate was not checked")
        notes.decide(
            (*path, "insecure_tls"),
            "the certificate is checked now; name its authority as ca",
            ("notifiers", name),
        )
    return block


def _template(payload: dict[str, Any], path: Path, name: str, notes: Notes) -> dict[str, Any]:
    """The same values; braces doubled, since ours are placeholders, and secrets as variables."""
    hidden = hide_secrets(payload)
    return {key: _value(value, (*path, key), name, notes) for key, value in hidden.items()}


def _value(value: Any, path: Path, name: str, notes: Notes) -> Any:
    if isinstance(value, dict):
        return {key: _value(each, (*path, key), name, notes) for key, each in value.items()}
    if isinstance(value, list):
        return [_value(each, (*path, n), name, notes) for n, each in enumerate(value)]
    if isinstance(value, SecretStr):
        return notes.secret(path, value.get_secret_value(), name, str(path[-1]))
    if isinstance(value, str):
        text = notes.text(path, value)
        return text if ENV.search(value) else re.sub(r"[{}]", lambda brace: brace[0] * 2, text)
    return value
