"""A real NFS server (NFS-Ganesha) that speaks version 3, with its own portmapper (rpcbind).

It opens files by handle, which takes root: without it the tests that need it are skipped. Both
programs live in a mount namespace of their own, and leave the machine's portmapper alone.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

from tests.servers import base
from tests.servers.base import HOST, IS_ROOT, Server, find_program, free_port

REASON = "an NFS server can only be run by root, who may mount"
_SETUP = """\
mount -t tmpfs tmpfs /run || exit 1
unshare -m sh -c '
    mount --bind netconfig /etc/netconfig && mount --bind services /etc/services || exit 1
    exec {rpcbind} -f' &
while [ ! -S /run/rpcbind.sock ]; do sleep 0.01; done
exec {ganesha} -F -f {dir}/ganesha.conf -L {dir}/ganesha.log -p {dir}/ganesha.pid
"""
_CONFIG = """\
NFS_CORE_PARAM {{
    Protocols = 3; NFS_Port = {port}; MNT_Port = {mount_port};
    Rquota_Port = {rquota_port}; NLM_Port = {nlm_port};
    Enable_NLM = false; Enable_RQUOTA = false; Enable_UDP = false;
    Bind_addr = {host}; mount_path_pseudo = false;
}}
NFSV4 {{ Graceless = {graceless}; Grace_Period = {grace}; RecoveryRoot = {dir}/recovery; }}
EXPORT {{
    Export_Id = {export_id}; Path = {data}; Pseudo = /data; Protocols = 3; Transports = TCP;
    Access_Type = {access}; Squash = {squash}; SecType = sys; PrivilegedPort = {privileged};
    FSAL {{ Name = VFS; }}
}}
"""


@cache
def can_run() -> bool:
    """Whether an NFS server can be run here."""
    try_mount = ["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", "/run"]
    return IS_ROOT and not subprocess.run(try_mount, stderr=subprocess.DEVNULL).returncode


class Ganesha(Server):
    """Exports `data`, which belongs to an unprivileged user.

    Args:
        squash: whether root is mapped to nobody.
        privileged: whether clients need a source port below 1024.
        writable: whether clients may write.
        grace: seconds after its start in which it puts clients off that change the size of a file.
        portmapper: whether clients can ask where it listens; the portmapper then listens on
            `portmapper_port` of all interfaces, for it cannot be told otherwise.
        fsize: no file may grow beyond this, in bytes.
    """

    name = "ganesha"

    def __init__(
        self,
        squash: bool = False,
        privileged: bool = False,
        writable: bool = True,
        grace: int = 0,
        portmapper: bool = False,
        fsize: int | None = None,
    ) -> None:
        super().__init__()
        self.squash = squash
        self.privileged = privileged
        self.writable = writable
        self.grace = grace
        self.portmapper = portmapper
        self.fsize = fsize
        self.export_id = 1
        """Part of every file handle."""
        self.mount_port = 0
        self.portmapper_port = 0
        self._started_at = 0

    @property
    def export(self) -> str:
        return str(self.data)

    def configure(self) -> None:
        self.mount_port = self.mount_port or free_port()
        self.portmapper_port = self.portmapper_port or free_port()
        client = "::ffff:192.0.2.1-(6:client)" if self.grace else ""  # It waits for its return.
        (self.dir / "recovery" / "v4recov" / "node0" / client).mkdir(parents=True, exist_ok=True)
        tcp = "tcp tpi_cots_ord v inet tcp - -\n" * self.portmapper
        (self.dir / "netconfig").write_text(f"local tpi_cots_ord - loopback - - -\n{tcp}")
        (self.dir / "services").write_text(f"sunrpc {self.portmapper_port}/tcp portmapper\n")
        values = {
            "dir": self.dir,
            "data": self.data,
            "host": HOST,
            "export_id": self.export_id,
            "port": self.port,
            "mount_port": self.mount_port,
            "rquota_port": free_port(),
            "nlm_port": free_port(),
            "graceless": str(not self.grace).lower(),
            "grace": self.grace,
            "access": "RW" if self.writable else "RO",
            "squash": "Root_Squash" if self.squash else "No_Root_Squash",
            "privileged": str(self.privileged).lower(),
        }
        (self.dir / "ganesha.conf").write_text(_CONFIG.format(**values))
        programs = {"rpcbind": find_program("rpcbind"), "ganesha": find_program("ganesha.nfsd")}
        (self.dir / "start.sh").write_text(_SETUP.format(**programs, dir=self.dir))

    def start(self) -> None:
        # Its write verifier is the second of its start; one that really crashed takes longer.
        while int(time.time()) == self._started_at:
            time.sleep(0.01)
        self._started_at = int(time.time())
        super().start()

    def command(self) -> list[str]:
        return [find_program("unshare"), "-m", find_program("sh"), "start.sh"]

    def _spawn(self) -> None:
        # As root, unlike other servers.
        options = {"parent": os.getpid(), "uid": None, "gid": None, "fsize": self.fsize}
        launcher = [sys.executable, "-I", "-S", str(Path(base.__file__).with_name("_launch.py"))]
        with open(self.dir / "server.log", "ab") as log:
            self._process = subprocess.Popen(
                [*launcher, json.dumps({**options, "patience": 0}), *self.command()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.dir,
                start_new_session=True,
            )

    def log(self) -> str:
        path = self.dir / "ganesha.log"
        return super().log() + (path.read_text(errors="replace")[-2000:] if path.exists() else "")

    def __enter__(self) -> Ganesha:
        self.start()
        return self
