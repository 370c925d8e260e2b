"""Notifiers: who is told. One model per notifier, then their union."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from schemas.base import Duration, Secret, Spec


def _http_url(value: Secret) -> Secret:
    if not re.match(r"https?://[^\s/]", value.get_secret_value()):
        raise ValueError("must be an HTTP URL; such as https://host/path")
    return value


SecretUrl = Annotated[Secret, AfterValidator(_http_url)]
"""An address that is often a secret in itself."""

Level = Literal["debug", "info", "warning", "error"]


class NotifierSpecBase(Spec):
    """What every notifier has."""

    level: Level = Field(
        "info",
        description="Say nothing about runs and events below this level (a success is info).",
    )
    send: Literal["summary", "events"] = Field(
        "summary", description="One message a run, or the log events as they come, in batches."
    )
    timeout: Duration = Field(
        "30s",
        validate_default=True,
        description="Give up on a message after this time, retries included.",
    )


class WebhookNotifier(NotifierSpecBase):
    """An HTTP request with a JSON body, to anything that takes one."""

    type: Literal["webhook"]
    url: SecretUrl = Field(description="Where to; often a secret in itself.")
    method: Literal["POST", "PUT"] = Field("POST", description="HTTP method.")
    headers: dict[str, Secret] = Field(default_factory=dict, description="HTTP headers to add.")
    ca: str | None = Field(None, description="File with the certificate authorities to trust.")


NotifierSpec = WebhookNotifier
"""Becomes a union discriminated by ``type`` with the second notifier."""
