"""Transforms: what happens to the bytes on their way. One model per transform, then their union."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, Field, model_validator

from schemas.age_keys import validate_recipient
from schemas.base import ByteRate, Secret, Spec, Suffix


class ZstdTransform(Spec):
    """Zstandard: a new frame every 64 MiB, with checksums."""

    type: Literal["zstd"]
    level: int = Field(3, ge=1, le=19, description="1 is fast, 3 the usual choice, 19 small.")
    threads: int | None = Field(
        None, ge=0, le=64, description="Worker threads; default: none on two cores, else up to 4."
    )
    long: bool = Field(
        False, description="Look for repetitions in the last 64 MiB (uses that much memory more)."
    )


class GzipTransform(Spec):
    """Gzip that any gunzip reads, written in independent members by several threads."""

    type: Literal["gzip"]
    level: int = Field(6, ge=1, le=12, description="1 is fast, 6 the usual choice, 12 small.")


class XzTransform(Spec):
    """XZ: small and slow."""

    type: Literal["xz"]
    level: int = Field(6, ge=0, le=9, description="Preset of xz.")


class Lz4Transform(Spec):
    """LZ4 frames: very fast, modest ratio. Needs the package lz4."""

    type: Literal["lz4"]
    level: int = Field(0, ge=0, le=16, description="0 is fastest; 3 and more use the slow matcher.")


def _checked_recipient(text: str) -> str:
    problem = validate_recipient(text)
    if problem is not None:
        raise ValueError(problem)
    return text


class AgeTransform(Spec):
    """age (age-encryption.org/v1): to public keys, or with a passphrase."""

    type: Literal["age"]
    recipients: list[Annotated[str, AfterValidator(_checked_recipient)]] = Field(
        default_factory=list,
        description="Public keys (age1...); whoever has one of the private keys can decrypt.",
    )
    recipients_file: str | None = Field(
        None, description="File with one public key a line, read when the backup runs."
    )
    passphrase: Secret | None = Field(
        None, description="Encrypt with a passphrase; not together with recipients."
    )
    identity_file: str | None = Field(
        None,
        description="File with the private key, for restore and verify; a host that only writes "
        "backups needs none.",
    )

    @model_validator(mode="after")
    def _one_kind_of_key(self) -> AgeTransform:
        to_keys = bool(self.recipients or self.recipients_file)
        if to_keys and self.passphrase is not None:
            raise ValueError("give either recipients or a passphrase, not both")
        if not to_keys and self.passphrase is None:
            raise ValueError("needs recipients, recipients_file or a passphrase")
        return self


class ThrottleTransform(Spec):
    """A limit on the rate of the stream."""

    type: Literal["throttle"]
    rate: ByteRate = Field(description="Highest mean rate.", examples=["20MiB/s"])


class FilterTransform(Spec):
    """Any program that reads standard input and writes standard output."""

    type: Literal["filter"]
    command: list[str] = Field(
        min_length=1, description="Program and arguments; no shell is involved."
    )
    inverse: list[str] | None = Field(
        None, min_length=1, description="The program that undoes it; restore and verify need it."
    )
    suffix: Suffix = Field("", description="Suffix of the stored object.", examples=[".bz2"])
    env: dict[str, Secret] = Field(
        default_factory=dict, description="Environment variables added for the program."
    )


TransformSpec = Annotated[
    ZstdTransform
    | GzipTransform
    | XzTransform
    | Lz4Transform
    | AgeTransform
    | ThrottleTransform
    | FilterTransform,
    Field(discriminator="type"),
]


def bare_spec(type_name: str) -> Spec | None:
    """The settings that undo a stage whose settings are gone; None where that needs to be told how.

    What a compressor needs to decompress is in the stream; age gets its key from elsewhere.
    """
    models: tuple[type[Spec], ...] = get_args(get_args(TransformSpec)[0])
    for model in models:
        types = get_args(model.model_fields["type"].annotation)
        if model is not FilterTransform and type_name in types:
            return model.model_construct(None, **{"type": type_name})
    return None
