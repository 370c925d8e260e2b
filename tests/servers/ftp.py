"""A real FTP server (ProFTPD): explicit TLS on one port, implicit TLS on another.

Its user exists only in its own files; it believes to be root (uid_wrapper), which it insists on.
After the end of a session it takes no connection for 0.2 to 0.4 s, as it pauses when a signal has
interrupted it: tests are quick that end few.
"""

from __future__ import annotations

import random
import shutil
import subprocess
from pathlib import Path
from tempfile import mkdtemp

from tests.servers.base import GID, HOST, UID, Server, find_program, free_port

USER = "nxs"
PASSWORD = "Pa55 word"
FAR_HOST = "127.0.0.2"
"""Another address of the loopback interface, for what stands between client and server."""
OUR_NAMES = f"DNS:localhost,IP:{HOST},IP:{FAR_HOST}"
_WRAPPERS = "libnss_wrapper.so:libuid_wrapper.so"
_LISTEN = "0A"
"""The state of a listening socket in /proc/net/tcp."""
_PASSIVE = 48
"""Ports for data connections."""
_PASSIVE_RANGE = range(20000, 32000, _PASSIVE)  # Below what systems give out by themselves.


def make_certificate(directory: Path, names: str = OUR_NAMES) -> tuple[Path, Path]:
    """A self-signed certificate for these names, and its key: tls.crt and tls.key."""
    cert, key = directory / "tls.crt", directory / "tls.key"
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    make += ["-nodes", "-days", "30", "-subj", "/CN=test", "-addext", f"subjectAltName={names}"]
    make += ["-keyout", str(key), "-out", str(cert)]
    subprocess.run(make, check=True, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return cert, key


class Ftpd(Server):
    """ProFTPD with one user, whose home is `data`.

    Args:
        tls: whether it knows TLS at all.
        names: whom its certificate names.
        more: lines for its configuration.
        fsize: no file may grow beyond this, in bytes.
    """

    name = "proftpd"

    def __init__(
        self,
        tls: bool = True,
        names: str = OUR_NAMES,
        more: str = "",
        fsize: int | None = None,
    ) -> None:
        super().__init__()
        self.tls = tls
        self.more = more
        self.fsize = fsize
        self.implicit_port = 0
        self.passive_ports = range(0)
        # The client's own files stay when the server's change hands.
        self.client_dir = Path(mkdtemp(prefix="nxs-ftp-client-"))
        self.certificate, self._key = make_certificate(self.dir, names)
        self.ca = Path(shutil.copy(self.certificate, self.client_dir))
        self._write_users()

    def _write_users(self) -> None:
        hashed = subprocess.run(
            ["openssl", "passwd", "-6", "-stdin"], input=PASSWORD.encode(), stdout=-1, check=True
        ).stdout.decode()
        user = f"{USER}:{hashed.strip()}:{UID}:{GID}::{self.data}:/bin/sh\n"
        (self.dir / "passwd").write_text(user)
        (self.dir / "group").write_text(f"{USER}:x:{GID}:\n")
        for name in ("passwd", "group"):
            (self.dir / name).chmod(0o600)

    def configure(self) -> None:
        self.implicit_port = self.implicit_port or free_port()
        if not self.passive_ports:
            first = random.choice(_PASSIVE_RANGE)
            self.passive_ports = range(first, first + _PASSIVE)
        (self.dir / "proftpd.conf").write_text(
            "ServerName nxs\n"
            "ServerType standalone\n"
            "ModulePath /usr/lib/proftpd\n"
            + "LoadModule mod_tls.c\n"
            * self.tls
            + "ControlsEngine off\n"
            f"DefaultAddress {HOST}\n"
            "SocketBindTight on\n"
            "UseIPv6 off\n"
            "UseReverseDNS off\n"
            "WtmpLog off\n"
            "TransferLog none\n"
            f"SystemLog {self.dir}/proftpd.log\n"
            f"PidFile {self.dir}/proftpd.pid\n"
            f"ScoreboardFile {self.dir}/scoreboard\n"
            "AuthOrder mod_auth_file.c\n"
            "DelayEngine off\n"
            f"Port {self.port}\n" + self._site("") + f"<VirtualHost {HOST}>\n"
            f"Port {self.implicit_port}\n"
            + self._site("TLSOptions UseImplicitSSL\n")
            + "</VirtualHost>\n"
        )

    def _site(self, tls_options: str) -> str:
        return (
            f"PassivePorts {self.passive_ports[0]} {self.passive_ports[-1]}\n"
            f"AuthUserFile {self.dir}/passwd\n"
            f"AuthGroupFile {self.dir}/group\n"
            "AuthPAM off\n"
            "RequireValidShell off\n"
            # As a system has it by default, whatever this one is tuned to (doubled by the kernel).
            f"SocketOptions rcvbuf {3 << 20}\n"
            "AllowOverwrite on\n"
            "AllowRetrieveRestart on\n"
            + ("" if "AllowStoreRestart" in self.more else "AllowStoreRestart on\n")
            + (
                "TLSEngine on\n"
                f"TLSECCertificateFile {self.certificate}\n"
                f"TLSECCertificateKeyFile {self._key}\n"
                "TLSVerifyClient off\n" + tls_options
            )
            * self.tls
            + self.more
        )

    def command(self) -> list[str]:
        # Not in the environment of what starts it: that has to change its user in earnest.
        wrapped = [
            f"LD_PRELOAD={_WRAPPERS}",
            f"NSS_WRAPPER_PASSWD={self.dir}/passwd",
            f"NSS_WRAPPER_GROUP={self.dir}/group",
            "UID_WRAPPER=1",
            "UID_WRAPPER_ROOT=1",
        ]
        server = [find_program("proftpd"), "-n", "-q", "-c", str(self.dir / "proftpd.conf")]
        return [find_program("env"), *wrapped, *server]

    def is_ready(self) -> bool:
        # Looked up, not tried: a session that ends makes the next one wait.
        with open("/proc/net/tcp") as table:
            sockets = [line.split()[1:4] for line in table]
        listening = {local for local, _, state in sockets if state == _LISTEN}
        return all(f"0100007F:{port:04X}" in listening for port in (self.port, self.implicit_port))

    def log(self) -> str:
        path = self.dir / "proftpd.log"
        return super().log() + (path.read_text(errors="replace")[-2000:] if path.exists() else "")

    def stop(self) -> None:
        self.kill()  # Asked to end, it takes its time.
        super().stop()
        shutil.rmtree(self.client_dir, ignore_errors=True)

    def __enter__(self) -> Ftpd:
        self.start()
        return self
