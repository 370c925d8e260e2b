"""TLS settings, the same for every source, storage and notifier that has them."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from schemas.base import Spec, Text

TlsMode = Literal["verify", "require", "prefer", "off"]


class Tls(Spec):
    """How a connection is encrypted, and whose certificates are trusted."""

    suggested: ClassVar[tuple[str, ...]] = ("ca",)

    mode: TlsMode | None = Field(
        None,
        description="`verify` checks the server's certificate, `require` encrypts without "
        "checking, `prefer` encrypts where the server can, `off` never does. Default: `verify`, "
        "and `prefer` on the loopback interface unless `ca` is set.",
    )
    ca: Text | None = Field(
        None,
        description="File with the certificates of the authorities to trust, instead of those of "
        "the system.",
        examples=["/etc/nxs-backup/ca.pem"],
    )
    cert: Text | None = Field(
        None,
        description="File with our own certificate, for the server.",
        examples=["/etc/nxs-backup/client.pem"],
    )
    key: Text | None = Field(
        None,
        description="File with its private key; default: in `cert`.",
        examples=["/etc/nxs-backup/client.key"],
    )

    @model_validator(mode="after")
    def _belong_together(self) -> Tls:
        if self.key is not None and self.cert is None:
            raise ValueError("key needs cert; name the file with the certificate too")
        if self.ca is not None and self.mode not in (None, "verify"):
            raise ValueError(f"ca has no use with mode {self.mode}; set mode to verify")
        return self
