"""A real rsyslogd: a local socket, UDP and TCP, and what it understood of each message."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.servers.base import HOST, Server, find_program

_PROPERTIES = {
    "priority": "pri",
    "time": "timereported",
    "host": "hostname",
    "app": "app-name",
    "pid": "procid",
    "kind": "msgid",
    "protocol": "protocol-version",
    "input": "inputname",
    "text": "msg",
}


class Rsyslog(Server):
    """Writes a line of JSON for each message."""

    name = "rsyslog"

    @property
    def socket(self) -> Path:
        """What /dev/log is elsewhere."""
        return self.dir / "log"

    def configure(self) -> None:
        properties = "\n".join(
            f'property(outname="{ours}" name="{theirs}" format="jsonf") constant(value=",")'
            for ours, theirs in _PROPERTIES.items()
        )
        properties = properties.removesuffix(' constant(value=",")')
        listen = f'address="{HOST}" port="{self.port}" ruleset="all"'
        (self.dir / "rsyslog.conf").write_text(f"""\
global(workDirectory="{self.data}")
module(load="imudp")
module(load="imtcp")
module(load="imuxsock" SysSock.Use="off")
template(name="line" type="list") {{
constant(value="{{")
{properties}
constant(value="}}\\n")
}}
ruleset(name="all") {{ action(type="omfile" file="{self.data}/messages" template="line") }}
input(type="imudp" {listen})
input(type="imtcp" {listen})
input(type="imuxsock" Socket="{self.socket}" ruleset="all")
""")

    def command(self) -> list[str]:
        config, pid = self.dir / "rsyslog.conf", self.data / "pid"
        return [find_program("rsyslogd"), "-n", "-f", str(config), "-i", str(pid)]

    def is_ready(self) -> bool:
        return super().is_ready() and self.socket.exists()

    def messages(self) -> list[dict[str, Any]]:
        """What it has received so far."""
        path = self.data / "messages"
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]
