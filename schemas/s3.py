"""The storage `s3`."""

from __future__ import annotations

import re
from typing import ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from schemas.base import ByteSize, Duration, Secret, Spec, Text
from schemas.tls import Tls


class S3ObjectLock(Spec):
    """How long the service refuses to delete or replace what was written."""

    mode: Literal["governance", "compliance"] = Field(
        description="`governance` lets privileged users lift it, `compliance` nobody at all.",
    )
    keep: Duration = Field(
        description="Counted from the start of the upload; rotation cannot remove it earlier.",
        examples=["30d"],
    )


class S3Storage(Spec):
    """A bucket of Amazon S3, or of a service that speaks its protocol."""

    suggested: ClassVar[tuple[str, ...]] = ("endpoint", "access_key", "secret_key")

    type: Literal["s3"]
    bucket: Text = Field(description="Name of the bucket; it must exist.", examples=["my-backups"])
    path: str = Field(
        "",
        description="Directory inside the bucket: what all keys start with, without the slash.",
        examples=["web-1"],
    )
    endpoint: Text | None = Field(
        None,
        description="Address of the service; default: Amazon's for the region.",
        examples=["https://s3.example.net"],
    )
    region: Text | None = Field(
        None,
        description="Region; default: that of the environment or profile, or us-east-1.",
        examples=["eu-central-1"],
    )
    addressing: Literal["auto", "path", "virtual"] = Field(
        "auto",
        description="Where the bucket stands: in the path or in the host name. `auto` is `path` "
        "with an endpoint, and `virtual` without.",
    )
    access_key: Text | None = Field(
        None,
        description="Access key ID. Without it credentials come from `profile`, the environment, "
        "`~/.aws`, or the role of the instance or container.",
        examples=["${ACCESS_KEY}"],
    )
    secret_key: Secret | None = Field(None, description="Secret access key.")
    session_token: Secret | None = Field(None, description="Token of temporary credentials.")
    profile: Text | None = Field(
        None, description="Profile of `~/.aws` to take credentials from.", examples=["backup"]
    )
    storage_class: Text | None = Field(
        None, description="Storage class of the objects.", examples=["STANDARD_IA"]
    )
    encryption: Literal["s3", "kms"] | None = Field(
        None,
        description="Encryption by the service: `s3` with keys of its own, `kms` with a key of "
        "its key management. Default: what the bucket is set to.",
    )
    kms_key: Text | None = Field(
        None, description="Which key, for `kms`.", examples=["alias/backup"]
    )
    tags: dict[str, str] = Field(
        {}, max_length=10, description="Tags of the objects.", examples=[{"made-by": "nxs-backup"}]
    )
    object_lock: S3ObjectLock | None = Field(
        None, description="Keep objects from being deleted; the bucket must allow object lock."
    )
    part_size: ByteSize = Field(
        "8MiB",
        validate_default=True,
        ge=5 << 20,
        le=1 << 30,
        description="Size of the first parts of an upload; later ones grow, since an upload has "
        "10,000 parts at most.",
    )
    parallel: int = Field(
        4, ge=1, le=32, description="Parts that are uploaded at once; each needs its own memory."
    )
    max_size: ByteSize = Field(
        "5TiB",
        validate_default=True,
        ge=1 << 20,
        le=5 << 40,
        description="The largest object there may be. It decides how far parts may grow, and so "
        "how much memory the largest object takes: 3 GiB for 5TiB, 48 MiB for 100GiB.",
    )
    timeout: Duration = Field(
        "60s",
        validate_default=True,
        description="Give the service up after so long without progress; requests that fail are "
        "made again until then.",
    )
    tls: Tls | None = Field(
        None, description="Certificates of an https endpoint; an http endpoint has no TLS."
    )

    @field_validator("endpoint")
    @classmethod
    def _is_address(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"https?://[^/?#@\s]+/?", value):
            raise ValueError(
                "must be the address of a service; https:// or http://, a host, perhaps a port"
            )
        return value

    @field_validator("path")
    @classmethod
    def _is_directory(cls, value: str) -> str:
        if value and not all(value.split("/")):
            raise ValueError("must be a directory; no slash at its ends, and no empty part")
        return value

    @model_validator(mode="after")
    def _keys_fit(self) -> S3Storage:
        if (self.access_key is None) != (self.secret_key is None):
            raise ValueError("access_key and secret_key go together; set both or none")
        if self.session_token is not None and self.access_key is None:
            raise ValueError("session_token needs access_key and secret_key; set them too")
        if self.profile is not None and self.access_key is not None:
            raise ValueError("profile and access_key exclude each other; remove one of them")
        if self.kms_key is not None and self.encryption != "kms":
            raise ValueError("kms_key has no use here; set encryption to kms")
        return self
