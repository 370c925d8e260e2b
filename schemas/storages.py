"""Storages: where backups are kept. One model per storage, then their union."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from schemas.base import AbsolutePath, ByteSize, Duration, Secret, Spec, Text, hide_secrets
from schemas.s3 import S3Storage
from schemas.tls import Tls


class LocalStorage(Spec):
    """A directory of this machine, or of anything mounted on it."""

    type: Literal["local"]
    path: Text = Field(description="Directory; made when it is missing.", examples=["/mnt/backups"])
    fsync: bool = Field(True, description="Commit only when the data has reached the disk.")


class SftpStorage(Spec):
    """A directory on an SSH server, over SFTP."""

    suggested: ClassVar[tuple[str, ...]] = ("key_file",)

    type: Literal["sftp"]
    host: Text = Field(description="Name or address of the server.", examples=["nas.internal"])
    port: int = Field(22, ge=1, le=65535, description="TCP port of the server.")
    user: Text = Field(description="User on the server.", examples=["backup"])
    path: Text = Field(
        description="Directory on the server; made when it is missing.", examples=["/srv/backups"]
    )
    password: Secret | None = Field(None, description="Password; a key is better.")
    key_file: str | None = Field(
        None, description="Private key file.", examples=["/etc/nxs-backup/id_ed25519"]
    )
    key_passphrase: Secret | None = Field(None, description="Passphrase of the private key.")
    agent: bool = Field(False, description="Also offer the keys of a running SSH agent.")
    known_hosts: str | None = Field(
        None,
        description="File the host key is checked against; default: ~/.ssh/known_hosts and "
        "/etc/ssh/ssh_known_hosts.",
        examples=["/etc/nxs-backup/known_hosts"],
    )
    host_key: str | None = Field(
        None,
        description="The server's public key itself, instead of a known_hosts file.",
        examples=["ssh-ed25519 AAAAC3..."],
    )
    host_key_check: bool = Field(
        True, description="Turning this off lets anyone on the way read and change backups."
    )
    connect_timeout: Duration = Field("10s", validate_default=True, description="For each attempt.")
    timeout: Duration = Field(
        "60s",
        validate_default=True,
        description="Give the server up after so long without progress; dropped connections are "
        "made again until then.",
    )


class FtpStorage(Spec):
    """A directory on an FTP server; encrypted with TLS unless that is turned off."""

    suggested: ClassVar[tuple[str, ...]] = ("password",)

    type: Literal["ftp"]
    host: Text = Field(description="Name or address of the server.", examples=["ftp.example.net"])
    port: int | None = Field(
        None,
        ge=1,
        le=65535,
        description="TCP port of the server; default: 21, implicit TLS 990.",
        examples=[21],
    )
    user: Text = Field(description="User on the server.", examples=["backup"])
    password: Secret | None = Field(None, description="Password of the user.")
    path: Text = Field(
        description="Directory on the server, made when it is missing; without a leading / it "
        "lies below the directory the user starts in.",
        examples=["backups"],
    )
    tls: Tls | None = Field(
        None,
        description="Encryption of commands and data. With `prefer` and `off`, passwords and "
        "backups may travel in the clear.",
    )
    implicit_tls: bool = Field(
        False, description="Speak TLS from the first byte on, as servers on port 990 expect it."
    )
    connect_timeout: Duration = Field("10s", validate_default=True, description="For each attempt.")
    timeout: Duration = Field(
        "60s",
        validate_default=True,
        description="Give the server up after so long without progress; dropped connections are "
        "made again until then.",
    )

    @model_validator(mode="after")
    def _implicit_tls_is_tls(self) -> FtpStorage:
        if self.implicit_tls and self.tls is not None and self.tls.mode == "off":
            raise ValueError("implicit_tls needs TLS; set another tls.mode, or none")
        return self


UserId = Annotated[int, Field(ge=0, le=(1 << 32) - 2)]
"""A user or group, as a number."""


class NfsStorage(Spec):
    """A directory on an NFS server, version 3. Nothing is mounted, and no root is needed.

    The protocol neither encrypts nor proves who is who: use it in a network you trust, and encrypt
    backups with `age`.
    """

    type: Literal["nfs"]
    host: Text = Field(description="Name or address of the server.", examples=["nas.internal"])
    export: AbsolutePath = Field(
        description="Directory that the server exports, as it names it.", examples=["/srv/backups"]
    )
    path: str = Field(
        "", description="Directory below the export; made when it is missing.", examples=["web-1"]
    )
    uid: UserId | None = Field(
        None, description="User to act as; default: the one of this process.", examples=[1000]
    )
    gid: UserId | None = Field(
        None, description="Group to act as; default: the one of this process.", examples=[1000]
    )
    gids: list[UserId] | None = Field(
        None,
        max_length=16,
        description="More groups; default: those of this process, none when uid is set.",
        examples=[[1000, 1001]],
    )
    nfs_port: int | None = Field(
        None,
        ge=1,
        le=65535,
        description="TCP port of NFS; default: the portmapper is asked.",
        examples=[2049],
    )
    mount_port: int | None = Field(
        None,
        ge=1,
        le=65535,
        description="TCP port of the mount service; default: the portmapper is asked.",
        examples=[20048],
    )
    portmapper_port: int = Field(
        111, ge=1, le=65535, description="TCP port of the portmapper (rpcbind)."
    )
    connect_timeout: Duration = Field("10s", validate_default=True, description="For each attempt.")
    timeout: Duration = Field(
        "60s",
        validate_default=True,
        description="Give the server up after so long without progress; dropped connections are "
        "made again until then.",
    )

    @field_validator("path")
    @classmethod
    def _inside(cls, path: str) -> str:
        if any(part in (".", "..") for part in path.split("/")):
            raise ValueError("must not contain . or ..; name the directory below the export")
        return path


class SmbStorage(Spec):
    """A directory of a share on an SMB server (Windows, Samba, NAS), version 2 or 3."""

    suggested: ClassVar[tuple[str, ...]] = ("password",)

    type: Literal["smb"]
    host: Text = Field(description="Name or address of the server.", examples=["nas.internal"])
    port: int = Field(445, ge=1, le=65535, description="TCP port of the server.")
    share: Text = Field(description="Name of the share.", examples=["backup"])
    path: str = Field(
        "", description="Directory on the share; made when it is missing.", examples=["web-1"]
    )
    user: Text = Field(
        description="User; `DOMAIN\\user` and `user@domain` name a domain too.", examples=["backup"]
    )
    password: Secret | None = Field(None, description="Password of the user.")
    encrypt: bool = Field(
        False,
        description="Insist on encryption (SMB 3), also where the server does not ask for it.",
    )
    signing: bool = Field(
        True,
        description="Have every message signed, so that nobody on the way can change any; guests "
        "cannot have that. Off, it is done where the server insists.",
    )
    connect_timeout: Duration = Field("10s", validate_default=True, description="For each attempt.")
    timeout: Duration = Field(
        "60s",
        validate_default=True,
        description="Give the server up after so long without progress; dropped connections are "
        "made again until then.",
    )

    @field_validator("path")
    @classmethod
    def _inside(cls, path: str) -> str:
        if "\\" in path or any(part in (".", "..") for part in path.split("/")):
            raise ValueError("must be a directory below the share; with / between its parts")
        return path

    @field_validator("share")
    @classmethod
    def _one_name(cls, share: str) -> str:
        if "/" in share or "\\" in share:
            raise ValueError("must be the name of a share alone; the rest goes into path")
        return share


class WebdavStorage(Spec):
    """A collection on a WebDAV server. An upload that breaks cannot go on: it fails."""

    suggested: ClassVar[tuple[str, ...]] = ("user", "password")

    type: Literal["webdav"]
    url: Text = Field(
        description="Address of the collection; what is missing below the server's root is made.",
        examples=["https://dav.example.net/backups"],
    )
    user: Text | None = Field(
        None, description="User, for basic and digest authentication.", examples=["backup"]
    )
    password: Secret | None = Field(None, description="Password of the user.")
    token: Secret | None = Field(None, description="Bearer token, instead of user and password.")
    auth: Literal["auto", "basic", "digest"] = Field(
        "auto", description="How user and password are sent; `auto` is what the server asks for."
    )
    tls: Tls | None = Field(
        None, description="Certificates of an https address; an http address has no TLS."
    )
    connect_timeout: Duration = Field("10s", validate_default=True, description="For each attempt.")
    timeout: Duration = Field(
        "60s",
        validate_default=True,
        description="Give the server up after so long without progress.",
    )

    @field_validator("url")
    @classmethod
    def _is_address(cls, value: str) -> str:
        try:
            parts = urlsplit(value)
            (parts.hostname or "").encode("idna")
            usable = parts.port != 0
        except ValueError:
            usable = False
        if not usable or not re.fullmatch(r"https?://[^/?#@\s]+(/[^?#\x00-\x1f]*)?", value):
            raise ValueError(
                "must be the address of a collection; https:// or http://, a host, perhaps a port "
                "and a path, but no user"
            )
        return value

    @field_validator("token")
    @classmethod
    def _is_token(cls, value: Secret | None) -> Secret | None:
        if value is not None and not re.fullmatch(r"[\x21-\x7e]+", value.get_secret_value()):
            raise ValueError("must be a bearer token; letters, digits and signs, without blanks")
        return value

    @model_validator(mode="after")
    def _keys_fit(self) -> WebdavStorage:
        if self.token is not None and self.user is not None:
            raise ValueError("token and user exclude each other; remove one of them")
        if self.password is not None and self.user is None:
            raise ValueError("password needs user; set it too")
        if self.auth != "auto" and self.user is None:
            raise ValueError("auth has no use here; set user and password, or remove it")
        if self.tls is not None and self.tls.mode == "off" and self.url.startswith("https:"):
            raise ValueError("an https address needs TLS; set another tls.mode, or none")
        return self


class FsspecStorage(Spec):
    """Any file system with a driver for fsspec. An upload that breaks cannot go on: it fails."""

    type: Literal["fsspec"]
    url: Text = Field(
        description="Address of the directory, as the driver wants it.",
        examples=["gs://my-bucket/backups"],
    )
    storage_options: dict[str, Any] = Field(
        {},
        description="What the driver is told, such as user, key or endpoint; its documentation has "
        "them. Text under names such as password, secret, token or key is never shown.",
        examples=[{"token": "/etc/nxs-backup/google.json"}],
    )
    drivers: AbsolutePath | None = Field(
        None,
        description="Directory with the driver, made by `pip install --target DIRECTORY gcsfs`. "
        "Those for S3, SFTP and SMB come with this program.",
        examples=["/opt/nxs-backup/drivers"],
    )
    block_size: ByteSize = Field(
        "8MiB",
        validate_default=True,
        ge=5 << 20,
        le=1 << 30,
        multiple_of=256 << 10,
        description="What is sent in one piece, where the driver lets one choose; it takes four "
        "times that in memory. S3 takes 10,000 blocks an object, Azure 50,000.",
    )
    timeout: Duration = Field(
        "60s",
        validate_default=True,
        description="Give up when a single call of the driver, such as sending a block, takes so "
        "long.",
    )

    @field_validator("url")
    @classmethod
    def _has_protocol(cls, value: str) -> str:
        if not re.match(r"[A-Za-z][A-Za-z0-9+._-]*:(//|:)", value):
            raise ValueError("must be an address; a protocol and ://, such as gs://bucket/path")
        return value

    @field_validator("storage_options")
    @classmethod
    def _hide_secrets(cls, options: dict[str, Any]) -> dict[str, Any]:
        return hide_secrets(options)


class MemoryStorage(Spec):
    """Memory of this process, for tests: gone when the process ends."""

    type: Literal["memory"]
    path: str = Field(
        "", description="Name of the shared space inside the process.", examples=["tests"]
    )


StorageSpec = Annotated[
    LocalStorage
    | SftpStorage
    | FtpStorage
    | S3Storage
    | NfsStorage
    | SmbStorage
    | WebdavStorage
    | FsspecStorage
    | MemoryStorage,
    Field(discriminator="type"),
]
