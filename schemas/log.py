"""Where logs go besides stderr."""

from __future__ import annotations

import re
from typing import ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from schemas.base import AbsolutePath, Spec

Facility = Literal[
    "user", "daemon", "cron", "local0", "local1", "local2", "local3", "local4", "local5", "local6",
    "local7",
]  # fmt: skip
FACILITIES: dict[Facility, int] = {
    "user": 1,
    "daemon": 3,
    "cron": 9,
    "local0": 16,
    "local1": 17,
    "local2": 18,
    "local3": 19,
    "local4": 20,
    "local5": 21,
    "local6": 22,
    "local7": 23,
}
"""As RFC 5424 numbers them; without those of programs that are something else."""

_ADDRESS = re.compile(
    r"(?P<path>/.+)|(?P<scheme>udp|tcp)://(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]]+)(:(?P<port>\d{1,5}))?"
)


class SyslogSpec(Spec):
    """The system's log, or a server for logs."""

    suggested: ClassVar[tuple[str, ...]] = ("address",)

    address: str = Field(
        "/dev/log",
        description="The local socket; or a server, as udp://host or tcp://host, with :port when "
        "it is not 514. Messages are of RFC 5424 there, over TCP with their length before them.",
        examples=["/dev/log", "udp://logs.internal:514"],
    )
    facility: Facility = Field(
        "daemon", description="What kind of program it is for the log's own rules."
    )

    @field_validator("address")
    @classmethod
    def _is_address(cls, address: str) -> str:
        match = _ADDRESS.fullmatch(address)
        if match is None or not 0 < int(match["port"] or 1) < 1 << 16:
            raise ValueError(
                "must be a socket or a server; such as /dev/log, udp://host:514 or tcp://host:514"
            )
        return address

    @property
    def scheme(self) -> str:
        """`unix`, `udp` or `tcp`."""
        return self._parts["scheme"] or "unix"

    @property
    def path(self) -> str:
        """Of the local socket."""
        return self._parts["path"] or ""

    @property
    def host(self) -> str:
        return (self._parts["host"] or "").strip("[]")

    @property
    def port(self) -> int:
        return int(self._parts["port"] or 514)

    @property
    def _parts(self) -> re.Match[str]:
        match = _ADDRESS.fullmatch(self.address)
        assert match is not None
        return match


class LogSpec(Spec):
    """Where the events of a run are logged besides stderr, which has its own options."""

    suggested: ClassVar[tuple[str, ...]] = ("file",)

    file: AbsolutePath | None = Field(
        None,
        description="Append to this file. It is made with mode 0600, and followed when it is "
        "rotated: on SIGHUP, and when it was renamed or removed.",
        examples=["/var/log/nxs-backup.log"],
    )
    syslog: SyslogSpec | None = Field(
        None, description="Also tell the system's log; {} is the local one."
    )
    journald: bool = Field(
        False,
        description="Also tell the journal of systemd, with the fields of each event; what goes "
        "to stderr has priorities there anyway, when the journal reads it.",
    )
    level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Leave out what is below; debug has progress, from time to time."
    )
    format: Literal["text", "json"] = Field(
        "text", description="Of the lines in the file, and of the messages to syslog."
    )

    @model_validator(mode="after")
    def _goes_somewhere(self) -> LogSpec:
        if self.file is None and self.syslog is None and not self.journald:
            raise ValueError(
                "says how to log, but not where; add file, syslog or journald (stderr has the "
                "options --log-format, -v and -q)"
            )
        return self
