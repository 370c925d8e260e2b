"""A real OpenSSH server with SFTP; the user exists only in its own passwd file (nss_wrapper)."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path
from tempfile import mkdtemp

from tests.servers.base import GID, HOST, IS_ROOT, UID, Server, find_program

USER = "nxs"
PASSWORD = "Pa55 word"
PASSPHRASE = "Pa55 phrase"
_WRAPPER = "libnss_wrapper.so"
_SFTP_SERVERS = ("/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server")


def make_key(path: Path, passphrase: str = "", kind: str = "ed25519") -> Path:
    """Make a key pair: `path` and `path`.pub."""
    make = ["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-f", str(path)]
    subprocess.run(make, check=True, stdin=subprocess.DEVNULL)
    return path


class Sshd(Server):
    """sshd with one user, who may log in with a password or with `key`.

    Args:
        max_sessions: how many sessions one connection may have.
        fsize: no file may grow beyond this, in bytes.
        subsystem: whether it offers SFTP.
        more: lines of its configuration.
    """

    name = "sshd"

    def __init__(
        self,
        max_sessions: int = 50,
        fsize: int | None = None,
        subsystem: bool = True,
        more: str = "",
    ) -> None:
        super().__init__()
        self.more = more
        self.fsize = fsize
        self.subsystem = subsystem
        self.max_sessions = max_sessions
        # The client's own files: private keys must belong to who reads them.
        self.client_dir = Path(mkdtemp(prefix="nxs-ssh-client-"))
        self.key = make_key(self.client_dir / "key")
        self.host_key_file = make_key(self.dir / "hostkey")
        self._write_users()

    def _write_users(self) -> None:
        hashed = subprocess.run(
            ["openssl", "passwd", "-6", "-stdin"], input=PASSWORD.encode(), stdout=-1, check=True
        ).stdout.decode()
        passwd, group = Path("/etc/passwd").read_text(), Path("/etc/group").read_text()
        user = f"{USER}:x:{UID}:{GID}::{self.data}:/bin/sh\n"
        (self.dir / "passwd").write_text(passwd + user)
        (self.dir / "group").write_text(f"{group}{USER}:x:{GID}:\n")
        (self.dir / "shadow").write_text(f"{USER}:{hashed.strip()}:19000:0:99999:7:::\n")
        self.authorize(self.key)

    def authorize(self, key: Path) -> None:
        """Let the owner of this private key log in."""
        with open(self.dir / "authorized_keys", "a") as authorized:
            authorized.write(key.with_name(key.name + ".pub").read_text())

    @property
    def host_key(self) -> str:
        """The server's public key: type and base64."""
        kind, key = self.host_key_file.with_name("hostkey.pub").read_text().split()[:2]
        return f"{kind} {key}"

    def replace_host_key(self) -> None:
        """Get a new host key, as a reinstalled server or an impostor has; needs a new start."""
        self.host_key_file.unlink()
        make_key(self.host_key_file)

    def known_hosts(self, pattern: str | None = None) -> Path:
        """A known_hosts file of the client that holds the server's present key.

        Args:
            pattern: of the hosts that have this key; by default, it is only this one.
        """
        path = self.client_dir / ("known_hosts" if pattern is None else "known_hosts_by_pattern")
        path.write_text(f"{pattern or f'[{HOST}]:{self.port}'} {self.host_key}\n")
        return path

    def configure(self) -> None:
        if IS_ROOT:
            os.makedirs("/run/sshd", exist_ok=True)
        users = f"NSS_WRAPPER_PASSWD={self.dir}/passwd NSS_WRAPPER_GROUP={self.dir}/group"
        (self.dir / "sshd_config").write_text(
            f"Port {self.port}\n"
            f"ListenAddress {HOST}\n"
            f"HostKey {self.host_key_file}\n"
            "PidFile none\n"
            f"AuthorizedKeysFile {self.dir}/authorized_keys\n"
            "StrictModes no\n"
            "UsePAM no\n"
            "PasswordAuthentication yes\n"
            "KbdInteractiveAuthentication no\n"
            "UseDNS no\n"
            "MaxStartups 100\n"
            f"MaxSessions {self.max_sessions}\n"
            f"SetEnv LD_PRELOAD={_WRAPPER} {users}\n"
            # Not internal-sftp: under nss_wrapper its first listing comes back doubled.
            + f"Subsystem sftp {find_program(*_SFTP_SERVERS)}\n" * self.subsystem
            + self.more
        )

    def command(self) -> list[str]:
        return [find_program("sshd"), "-D", "-e", "-r", "-f", str(self.dir / "sshd_config")]

    def environment(self) -> dict[str, str]:
        return {
            "LD_PRELOAD": _WRAPPER,
            "NSS_WRAPPER_PASSWD": f"{self.dir}/passwd",
            "NSS_WRAPPER_GROUP": f"{self.dir}/group",
            "NSS_WRAPPER_SHADOW": f"{self.dir}/shadow",
        }

    def is_ready(self) -> bool:
        with socket.create_connection((HOST, self.port), 1) as connection:
            connection.settimeout(5)
            return connection.recv(64).startswith(b"SSH-2")

    def stop(self) -> None:
        super().stop()
        shutil.rmtree(self.client_dir, ignore_errors=True)

    def __enter__(self) -> Sshd:
        self.start()
        return self
