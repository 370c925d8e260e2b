"""A real SMB server (Samba's smbd), versions 2 and 3.

Its user exists only in its own files (nss_wrapper); it believes to be root (uid_wrapper), which it
insists on.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.servers.base import GID, HOST, UID, Server, find_program

USER = "nxs"
PASSWORD = "Pa55 word"
SHARE = "backup"
_WRAPPERS = "libnss_wrapper.so:libuid_wrapper.so"
_PRIVATE = ("state", "cache", "lock", "private", "pid", "ncalrpc", "log")
_GLOBAL = """\
[global]
server role = standalone server
netbios name = NXSTEST
smb ports = {port}
interfaces = lo {host}
bind interfaces only = yes
disable netbios = yes
passdb backend = tdbsam:{dir}/private/passdb.tdb
private dir = {dir}/private
state directory = {dir}/state
cache directory = {dir}/cache
lock directory = {dir}/lock
pid directory = {dir}/pid
ncalrpc dir = {dir}/ncalrpc
log file = {dir}/log/smbd.log
load printers = no
printcap name = /dev/null
disable spoolss = yes
rpc start on demand helpers = no
server min protocol = SMB2_02
{options}
[{share}]
path = {data}
read only = no
force user = {user}
{share_options}
"""


class Smbd(Server):
    """smbd with one user, and one share, which is `data`.

    Args:
        options: lines for the server, such as `server smb encrypt = required`.
        share_options: lines for the share.
        fsize: no file may grow beyond this, in bytes.
    """

    name = "smbd"

    def __init__(
        self, options: str = "", share_options: str = "", fsize: int | None = None
    ) -> None:
        super().__init__()
        self.options = options
        self.share_options = share_options
        self.fsize = fsize
        for name in _PRIVATE:
            (self.dir / name).mkdir()
        passwd, group = Path("/etc/passwd").read_text(), Path("/etc/group").read_text()
        user = f"{USER}:x:{UID}:{GID}::{self.data}:/bin/sh\n"
        (self.dir / "passwd").write_text(passwd + user)
        (self.dir / "group").write_text(f"{group}{USER}:x:{GID}:\n")

    @property
    def _wrapped(self) -> dict[str, str]:
        return {
            "LD_PRELOAD": _WRAPPERS,
            "NSS_WRAPPER_PASSWD": f"{self.dir}/passwd",
            "NSS_WRAPPER_GROUP": f"{self.dir}/group",
            "UID_WRAPPER": "1",
            "UID_WRAPPER_ROOT": "1",
        }

    def configure(self) -> None:
        values = {
            "dir": self.dir,
            "data": self.data,
            "host": HOST,
            "port": self.port,
            "share": SHARE,
            "user": USER,
            "options": self.options,
            "share_options": self.share_options,
        }
        (self.dir / "smb.conf").write_text(_GLOBAL.format(**values))
        if not (self.dir / "private" / "passdb.tdb").exists():
            self.add_user(USER, PASSWORD)

    def add_user(self, user: str, password: str, flag: str = "-a") -> None:
        """Let somebody log in, or change his password; flag `-d` disables him."""
        subprocess.run(
            [find_program("smbpasswd"), "-c", str(self.dir / "smb.conf"), "-s", flag, user],
            input=f"{password}\n{password}\n".encode(),
            env={**os.environ, **self._wrapped},
            check=True,
            stdout=subprocess.DEVNULL,
        )

    def command(self) -> list[str]:
        # Not in the environment of what starts it: that has to change its user in earnest.
        wrapped = [f"{name}={value}" for name, value in self._wrapped.items()]
        server = [find_program("smbd"), "-F", "--no-process-group", "--debug-stdout"]
        return [find_program("env"), *wrapped, *server, "-s", str(self.dir / "smb.conf")]

    def client(self, commands: str, *options: str) -> str:
        """Run commands of smbclient, as our user: what it printed."""
        login = ["-U", f"{USER}%{PASSWORD}", "-p", str(self.port), "-s", "/dev/null"]
        done = subprocess.run(
            [find_program("smbclient"), f"//{HOST}/{SHARE}", *login, *options, "-c", commands],
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )
        return done.stdout.decode()

    def log(self) -> str:
        path = self.dir / "log" / "smbd.log"
        return super().log() + (path.read_text(errors="replace")[-2000:] if path.exists() else "")

    def __enter__(self) -> Smbd:
        self.start()
        return self
