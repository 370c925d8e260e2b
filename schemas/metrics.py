"""Metrics and traces: what a run tells monitoring systems when it has ended."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field, field_validator, model_validator

from schemas.base import AbsolutePath, Duration, Secret, Spec, Text
from schemas.telling import SecretUrl
from schemas.tls import Tls

_TAKEN = frozenset({"job", "instance", "project", "host", "backup", "storage"})
"""Labels that we set ourselves."""


def _prom_file(value: str) -> str:
    if not value.endswith(".prom"):
        raise ValueError("must end with .prom; node_exporter reads no other files")
    return value


def _label(name: str) -> str:
    if not re.fullmatch(r"(?!__)[A-Za-z_][A-Za-z0-9_]*", name):
        raise ValueError("must be a label; letters, digits and '_', the first no digit")
    if name in _TAKEN:
        raise ValueError("is a label that is set already; use another name")
    return name


LabelName = Annotated[str, AfterValidator(_label)]
"""The name of a label of Prometheus."""


def _header(value: Secret) -> Secret:
    if re.search(r"[\r\n\0]", value.get_secret_value()):
        raise ValueError("must be one line")
    return value


Header = Annotated[Secret, AfterValidator(_header)]
"""The value of an HTTP header, often a secret."""


class Service(Spec):
    """A monitoring system that is called over HTTP."""

    timeout: Duration = Field(
        "5s",
        validate_default=True,
        description="Give up after this time, retries included; a run waits no longer for it.",
    )
    tls: Tls | None = Field(
        None, description="Certificates of an https address; an http address has no TLS."
    )

    def _check_tls(self, address: Secret) -> None:
        if self.tls is None:
            return
        if not address.get_secret_value().startswith("https:"):
            raise ValueError("tls has no use with an http address; remove it, or use https")
        if self.tls.mode in ("off", "prefer"):
            raise ValueError("tls mode has no use with an https address; set verify or require")


class Pushgateway(Service):
    """A Pushgateway of Prometheus, which keeps the metrics of the last run until they are read."""

    url: SecretUrl = Field(
        description="Address of the gateway.", examples=["https://push.example.net:9091"]
    )
    job: Text = Field("nxs_backup", description="Label `job` of all metrics.")
    instance: Text | None = Field(
        None,
        description="Label `instance` of all metrics; default: `host` of the configuration.",
        examples=["web-1"],
    )
    labels: dict[LabelName, Text] = Field(
        default_factory=dict,
        description="More labels to group by.",
        examples=[{"team": "ops"}],
    )
    user: Text | None = Field(
        None, description="User, for basic authentication.", examples=["backup"]
    )
    password: Secret | None = Field(None, description="Password of the user.")
    token: Header | None = Field(None, description="Bearer token, instead of a user.")

    @model_validator(mode="after")
    def _keys_fit(self) -> Pushgateway:
        self._check_tls(self.url)
        if (self.user is None) != (self.password is None):
            raise ValueError("user and password go together; set both or none")
        if self.user is not None and self.token is not None:
            raise ValueError("user and token exclude each other; remove one of them")
        return self

    @field_validator("user")
    @classmethod
    def _has_no_colon(cls, value: str | None) -> str | None:
        if value is not None and ":" in value:
            raise ValueError("must not contain a colon")
        return value


class Metrics(Spec):
    """Metrics for Prometheus, written when a run has ended, well or not."""

    suggested: ClassVar[tuple[str, ...]] = ("file",)

    file: Annotated[AbsolutePath, AfterValidator(_prom_file)] | None = Field(
        None,
        description="File for the textfile collector of node_exporter, which reads `*.prom` of one "
        "directory. It is replaced as a whole, can be read by everybody, and keeps what other runs "
        "have told about other backups.",
        examples=["/var/lib/prometheus/node-exporter/nxs-backup.prom"],
    )
    pushgateway: Pushgateway | None = Field(None, description="A gateway to push them to.")

    @model_validator(mode="after")
    def _go_somewhere(self) -> Metrics:
        if self.file is None and self.pushgateway is None:
            raise ValueError("needs file or pushgateway; set one of them, or both")
        return self


class Traces(Service):
    """Traces for OpenTelemetry: a span for the run, each backup, artifact and stage."""

    endpoint: SecretUrl = Field(
        description="Address of a collector that takes OTLP over HTTP; `/v1/traces` is added.",
        examples=["http://127.0.0.1:4318"],
    )
    headers: dict[str, Header] = Field(
        default_factory=dict,
        description="HTTP headers to add, such as a key.",
        examples=[{"Authorization": "Bearer ${TRACES_TOKEN}"}],
    )
    attributes: dict[Text, Text] = Field(
        default_factory=dict,
        description="More attributes of the resource.",
        examples=[{"deployment.environment.name": "production"}],
    )

    @model_validator(mode="after")
    def _keys_fit(self) -> Traces:
        self._check_tls(self.endpoint)
        return self
