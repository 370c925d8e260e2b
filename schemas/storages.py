"""Storages: where backups are kept. One model per storage, then their union."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from schemas.base import Duration, Secret, Spec, Text


class LocalStorage(Spec):
    """A directory of this machine, or of anything mounted on it."""

    type: Literal["local"]
    path: Text = Field(description="Directory; made when it is missing.", examples=["/srv/backups"])
    fsync: bool = Field(True, description="Commit only when the data has reached the disk.")


class SftpStorage(Spec):
    """A directory on an SSH server, over SFTP."""

    type: Literal["sftp"]
    host: Text = Field(description="Name or address of the server.")
    port: int = Field(22, ge=1, le=65535, description="TCP port of the server.")
    user: Text = Field(description="User on the server.")
    path: Text = Field(description="Directory on the server; made when it is missing.")
    password: Secret | None = Field(None, description="Password; a key is better.")
    key_file: str | None = Field(None, description="Private key file.")
    key_passphrase: Secret | None = Field(None, description="Passphrase of the private key.")
    agent: bool = Field(False, description="Also offer the keys of a running SSH agent.")
    known_hosts: str | None = Field(
        None,
        description="File the host key is checked against; default: ~/.ssh/known_hosts and "
        "/etc/ssh/ssh_known_hosts.",
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


class MemoryStorage(Spec):
    """Memory of this process, for tests: gone when the process ends."""

    type: Literal["memory"]
    path: str = Field("", description="Name of the shared space inside the process.")


StorageSpec = Annotated[
    LocalStorage | SftpStorage | MemoryStorage,
    Field(discriminator="type"),
]
