"""Transforms: what happens to the bytes on their way. One model per transform, then their union."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal, get_args

from pydantic import AfterValidator, Field, model_validator

from schemas.age_keys import validate_recipient
from schemas.base import ByteRate, Command, Secret, Spec, Suffix, Text
from schemas.programs import Directory, Environment, ExitCodes, Timeout, User


class ZstdTransform(Spec):
    """Zstandard: a new frame every 64 MiB, with checksums."""

    type: Literal["zstd"]
    level: int = Field(
        3, ge=1, le=19, description="How hard to try: 1 is fast, 3 the usual choice, 19 small."
    )
    threads: int | None = Field(
        None,
        ge=0,
        le=64,
        description="Worker threads; default: none on one or two cores, else up to 4.",
        examples=[2],
    )
    long: bool = Field(
        False, description="Look for repetitions in the last 64 MiB (uses that much memory more)."
    )


class GzipTransform(Spec):
    """Gzip that any gunzip reads, written in independent members by several threads."""

    type: Literal["gzip"]
    level: int = Field(
        6, ge=1, le=12, description="How hard to try: 1 is fast, 6 the usual choice, 12 small."
    )


class XzTransform(Spec):
    """XZ: small and slow."""

    type: Literal["xz"]
    level: int = Field(
        6, ge=0, le=9, description="Preset of xz: 0 is fast, 6 the usual choice, 9 small."
    )


class Lz4Transform(Spec):
    """LZ4 frames: very fast, modest ratio. Needs the package lz4."""

    type: Literal["lz4"]
    level: int = Field(
        0,
        ge=0,
        le=16,
        description="How hard to try: 0 is fastest, 3 and more use the slow matcher.",
    )


def _checked_recipient(text: str) -> str:
    problem = validate_recipient(text)
    if problem is not None:
        raise ValueError(problem)
    return text


class AgeTransform(Spec):
    """Encryption with age (age-encryption.org/v1): to public keys, or with a passphrase."""

    suggested: ClassVar[tuple[str, ...]] = ("recipients_file",)

    type: Literal["age"]
    recipients: list[Annotated[str, AfterValidator(_checked_recipient)]] = Field(
        default_factory=list,
        description="Public keys (age1...); whoever has one of the private keys can decrypt.",
        examples=[["age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"]],
    )
    recipients_file: str | None = Field(
        None,
        description="File with one public key a line, read when the backup runs; such as "
        "`nxs-backup keygen KEY_FILE` prints.",
        examples=["/etc/nxs-backup/recipients.txt"],
    )
    passphrase: Secret | None = Field(
        None, description="Encrypt with a passphrase; not together with recipients."
    )
    identity_file: str | None = Field(
        None,
        description="File with the private key, for restore and verify; a host that only writes "
        "backups needs none.",
        examples=["/etc/nxs-backup/key.txt"],
    )

    @model_validator(mode="after")
    def _one_kind_of_key(self) -> AgeTransform:
        to_keys = bool(self.recipients or self.recipients_file)
        if to_keys and self.passphrase is not None:
            raise ValueError("give either recipients or a passphrase, not both")
        if not to_keys and self.passphrase is None:
            raise ValueError("needs recipients, recipients_file or a passphrase")
        return self


def _fingerprint(text: str) -> str:
    digits = "".join(text.split()).upper()
    if not re.fullmatch(r"[0-9A-F]{40}|[0-9A-F]{64}", digits):
        raise ValueError(
            "must be the fingerprint of a key; 40 digits, as `gpg --fingerprint NAME` shows them"
        )
    return digits


def _one_line(value: Secret) -> Secret:
    text = value.get_secret_value()
    if not text or "\n" in text or "\0" in text:
        raise ValueError("must be one line that is not empty")
    return value


Passphrase = Annotated[Secret, AfterValidator(_one_line)]


class GpgTransform(Spec):
    """Encryption with the program gpg (OpenPGP): to public keys, or with a passphrase."""

    suggested: ClassVar[tuple[str, ...]] = ("recipient_files",)

    type: Literal["gpg"]
    recipients: list[Annotated[str, AfterValidator(_fingerprint)]] = Field(
        default_factory=list,
        description="Fingerprints of public keys in the keyring. Nothing less is taken: anybody "
        "can make a key with the name or address of someone else.",
        examples=[["4E084573E31A5711F20C371C3E152409DD6DF216"]],
    )
    recipient_files: list[Text] = Field(
        default_factory=list,
        description="Files with one public key each, as `gpg --export` writes them; they need no "
        "keyring.",
        examples=[["/etc/nxs-backup/backup.asc"]],
    )
    passphrase: Passphrase | None = Field(
        None, description="Encrypt with a passphrase; not together with recipients."
    )
    home: Text | None = Field(
        None,
        description="Directory with the keyring, and for restore and verify the private key; "
        "default: GNUPGHOME, or ~/.gnupg.",
        examples=["/etc/nxs-backup/gnupg"],
    )
    key_passphrase: Passphrase | None = Field(
        None, description="Passphrase of the private key, for restore and verify."
    )

    @model_validator(mode="after")
    def _one_kind_of_key(self) -> GpgTransform:
        to_keys = bool(self.recipients or self.recipient_files)
        if to_keys and self.passphrase is not None:
            raise ValueError("give either recipients or a passphrase, not both")
        if not to_keys and self.passphrase is None:
            raise ValueError("needs recipients, recipient_files or a passphrase")
        if self.passphrase is not None and self.key_passphrase is not None:
            raise ValueError("key_passphrase has no use with a passphrase; there is no private key")
        return self


class ThrottleTransform(Spec):
    """A limit on the rate of the stream."""

    type: Literal["throttle"]
    rate: ByteRate = Field(description="Highest mean rate.", examples=["20MiB/s"])


class FilterTransform(Spec):
    """Any program that reads standard input and writes standard output."""

    suggested: ClassVar[tuple[str, ...]] = ("inverse", "suffix")

    type: Literal["filter"]
    command: Command = Field(
        description="Program and arguments; no shell is involved. It has to read all of its input.",
        examples=[["bzip2", "-9"]],
    )
    inverse: Command | None = Field(
        None,
        description="The program that undoes it; restore and verify need it. It gets the same "
        "environment, directory, user and time, and has to exit with 0.",
        examples=[["bzip2", "-d"]],
    )
    suffix: Suffix = Field("", description="Suffix of the stored object.", examples=[".bz2"])
    env: Environment = Field(default_factory=dict)
    cwd: Directory = None
    user: User = None
    ok_exit_codes: ExitCodes = Field(default_factory=lambda: [0])
    timeout: Timeout = None


TransformSpec = Annotated[
    ZstdTransform
    | GzipTransform
    | XzTransform
    | Lz4Transform
    | AgeTransform
    | GpgTransform
    | ThrottleTransform
    | FilterTransform,
    Field(discriminator="type"),
]


def bare_spec(type_name: str) -> Spec | None:
    """The settings that undo a stage whose settings are gone; None where that needs to be told how.

    What a compressor needs to decompress is in the stream; age and gpg get their keys from
    elsewhere.
    """
    models: tuple[type[Spec], ...] = get_args(get_args(TransformSpec)[0])
    for model in models:
        types = get_args(model.model_fields["type"].annotation)
        if model is not FilterTransform and type_name in types:
            return model.model_construct(None, **{"type": type_name})
    return None
