"""SSH connections: how to log in, whom to trust, and what the errors mean."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

from pipeline.errors import StorageError, StorageRefused, StorageUnavailable
from schemas.storages import SftpStorage
from stages.storages._sftp.errors import reason_of
from stages.storages._sftp.lean import lighten
from stages.storages._sftp.quiet_asyncssh import asyncssh, name_the_nameless

# AES-GCM first: the library's first choice, ChaCha20, takes twice the CPU where AES is in hardware.
_CIPHERS = (
    "aes128-gcm@openssh.com",
    "aes256-gcm@openssh.com",
    "chacha20-poly1305@openssh.com",
    "aes256-ctr",
    "aes192-ctr",
    "aes128-ctr",
)
_SILENCE, _KEEPALIVES = 0.4, 3
"""A connection is dropped when nothing comes for so much of `timeout`, though we asked as often."""
_DEFAULT_KNOWN_HOSTS = ("~/.ssh/known_hosts", "/etc/ssh/ssh_known_hosts")

LOST_BY = "lost_by"
"""Extra info of a connection that was lost: the exception, or None when it was closed."""


def server_name(spec: SftpStorage) -> str:
    """What the server is called in messages: `host:port`."""
    return f"{spec.host}:{spec.port}"


def trusted_hosts(spec: SftpStorage) -> Any:
    """What asyncssh checks the host key against; None accepts any.

    Raises:
        StorageRefused: the configured file or key cannot be read.
    """
    if not spec.host_key_check:
        return None
    if spec.host_key is not None:
        try:
            return [asyncssh.import_public_key(spec.host_key)], [], []
        except asyncssh.KeyImportError:
            hint = "give type and key, such as: ssh-ed25519 AAAAC3..."
            raise StorageRefused("host_key is not an SSH public key", hint) from None
    if spec.known_hosts is not None:
        return _parse_known_hosts(_read_file(spec.known_hosts, "known_hosts"))
    files = [Path(name).expanduser() for name in _DEFAULT_KNOWN_HOSTS]
    return _parse_known_hosts("".join(_read_if_there(path) for path in files))


def _parse_known_hosts(text: str) -> Any:
    known = asyncssh.SSHKnownHosts()
    for line in text.splitlines():
        try:
            known.load(line)
        except ValueError:
            continue  # As OpenSSH does: one bad line does not take the others away.
    return known


def _read_if_there(path: Path) -> str:
    try:
        return path.read_text(errors="replace") + "\n"
    except OSError:
        return ""  # No trust comes from a file that cannot be read.


def _read_file(path: str, what: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError as error:
        hint = '"~" is not expanded here' if path.startswith("~") else None
        reason = (error.strerror or "unreadable").lower()
        raise StorageRefused(f'{what} "{path}" cannot be read: {reason}', hint) from None


def load_key(spec: SftpStorage) -> list[Any]:
    """The private key of `key_file`, if there is one.

    Raises:
        StorageRefused: it cannot be read, or the passphrase does not fit.
    """
    if spec.key_file is None:
        return []
    data = _read_file(spec.key_file, "key file")
    passphrase = spec.key_passphrase.get_secret_value() if spec.key_passphrase else None
    try:
        return [asyncssh.import_private_key(data, passphrase)]
    except asyncssh.KeyEncryptionError as error:
        if "bcrypt" in str(error):
            raise StorageRefused(
                f'key file "{spec.key_file}" is encrypted in a way that needs the package bcrypt',
                "install it, or convert the key to PKCS8 with openssl",
            ) from None
        raise StorageRefused(
            f'key file "{spec.key_file}" cannot be decrypted', "check key_passphrase"
        ) from None
    except asyncssh.KeyImportError as error:
        if passphrase is None and "passphrase" in str(error).lower():
            raise StorageRefused(
                f'key file "{spec.key_file}" is encrypted', "set key_passphrase"
            ) from None
        hint = "check key_passphrase" if passphrase else None
        raise StorageRefused(f'key file "{spec.key_file}" is not a private key', hint) from None


class Client(asyncssh.SSHClient):
    """Remembers what asyncssh does not tell: a refused host key, and why a connection was lost."""

    def __init__(self, trusted: Any) -> None:
        self._trusted = trusted
        self.shown: str | None = None
        """Fingerprint of a host key that is not trusted."""
        self.expected_another = False
        """Whether another key is known for this host."""

    def connection_made(self, conn: asyncssh.SSHClientConnection) -> None:
        self._connection = conn
        lighten(conn)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connection.set_extra_info(**{LOST_BY: exc})

    def validate_host_public_key(self, host: str, addr: str, port: int, key: Any) -> bool:
        self.shown = key.get_fingerprint()
        if isinstance(self._trusted, asyncssh.SSHKnownHosts):
            matches = self._trusted.match(host, addr, port if port != 22 else None)
            self.expected_another = bool(matches[0])
        else:
            self.expected_another = True
        return False


class Connector:
    """Opens connections to one server."""

    def __init__(self, spec: SftpStorage) -> None:
        self.spec = spec

    async def connect(self) -> asyncssh.SSHClientConnection:
        """Connect and log in.

        Raises:
            StorageRefused: the host key is not trusted, or the login was refused.
            StorageUnavailable: the server did not answer.
        """
        trusted = trusted_hosts(self.spec)
        client = Client(trusted)
        keys = load_key(self.spec)
        agent = await self._agent() if self.spec.agent else None
        try:
            if agent:
                keys += await agent.get_keys()
            return await asyncssh.connect(
                self.spec.host,
                self.spec.port,
                config=None,
                options=self._options(client, trusted, keys),
            )
        except (asyncssh.Error, OSError, ValueError, asyncio.TimeoutError) as error:
            raise self._connect_error(error, client) from error
        finally:
            if agent:
                agent.close()
                await agent.wait_closed()

    async def _agent(self) -> asyncssh.SSHAgentClient:
        path = os.environ.get("SSH_AUTH_SOCK", "")
        try:
            if path:
                return await asyncssh.connect_agent(path)
        except OSError:
            pass  # Told below, as when there is no agent.
        raise StorageRefused("no SSH agent answers", "is SSH_AUTH_SOCK set and the agent running?")

    def _options(self, client: Client, trusted: Any, keys: list[Any]) -> Any:
        spec = self.spec
        name_the_nameless()
        return asyncssh.SSHClientConnectionOptions(
            client_factory=lambda: client,
            config=None,
            known_hosts=trusted,
            x509_trusted_certs=None,
            x509_trusted_cert_paths=[],
            username=spec.user,
            client_username=spec.user,
            password=spec.password.get_secret_value() if spec.password else None,
            client_keys=keys or None,
            agent_path=None,
            gss_host=None,
            encryption_algs=list(_CIPHERS),
            compression_algs=["none"],
            connect_timeout=spec.connect_timeout,
            login_timeout=spec.connect_timeout,
            keepalive_interval=spec.timeout * _SILENCE / (_KEEPALIVES + 1),
            keepalive_count_max=_KEEPALIVES,
        )

    def _connect_error(self, error: Exception, client: Client) -> StorageError:
        name = server_name(self.spec)
        if isinstance(error, asyncssh.HostKeyNotVerifiable):
            return self._host_key_error(error, client)
        if isinstance(error, asyncssh.PermissionDenied):
            return StorageRefused(
                f'"{name}" refused the login of "{self.spec.user}"', self._login_hint()
            )
        if isinstance(error, asyncssh.KeyExchangeFailed):
            return StorageRefused(
                f'no common way to talk to "{name}": {reason_of(error)}',
                "if it names host keys: known_hosts holds no key of a type the server has",
            )
        if isinstance(error, (asyncssh.ProtocolError, asyncssh.ProtocolNotSupported)):
            return StorageRefused(f'"{name}" does not speak SSH: {reason_of(error)}')
        if isinstance(error, asyncio.TimeoutError):
            seconds = f"{self.spec.connect_timeout:g} s"
            return StorageUnavailable(f'"{name}" did not answer within {seconds}')
        return StorageUnavailable(f'"{name}" cannot be reached: {reason_of(error)}')

    def _host_key_error(self, error: Exception, client: Client) -> StorageError:
        name, spec = server_name(self.spec), self.spec
        if client.shown is None:
            return StorageRefused(f'host key of "{name}" is not accepted: {reason_of(error)}')
        if client.expected_another:
            return StorageRefused(
                f'host key of "{name}" has changed; it shows {client.shown} now',
                "somebody may be in between; if the server was reinstalled, replace the known key",
            )
        return StorageRefused(
            f'host key of "{name}" is not known; it shows {client.shown}',
            f"compare that on the server, then: ssh-keyscan -p {spec.port} {spec.host} "
            f">> {spec.known_hosts or _DEFAULT_KNOWN_HOSTS[0]}",
        )

    def _login_hint(self) -> str:
        tried = [
            name
            for name, given in (
                ("key_file", self.spec.key_file),
                ("the keys of the agent", self.spec.agent),
                ("password", self.spec.password),
            )
            if given
        ]
        if not tried:
            return "give a key_file or a password, or set agent"
        return f"it did not accept {' or '.join(tried)}"
