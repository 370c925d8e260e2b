"""What lies between an FTP client and its server.

Data connections have ports of their own, which the server names in its replies, perhaps encrypted.
So every port is forwarded from the same port of another loopback address; clients that believe the
address in the reply would pass by.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tests.servers.ftp import FAR_HOST
from tests.servers.proxy import Proxy, Route, reset


class FtpProxy(Proxy):
    """Listens on the server's ports of `FAR_HOST`; `sent` counts data connections only.

    Args:
        control: the server's port for commands.
        passive: its ports for data.
        rate: as for any proxy.
    """

    def __init__(self, control: int, passive: Iterable[int], rate: int | None = None) -> None:
        self._passive = list(passive)
        self.commands = bytearray()
        """What went over control connections to the server so far."""
        super().__init__(control, rate)

    def routes(self, target: int) -> Sequence[Route]:
        return [Route(FAR_HOST, port, port) for port in (target, *self._passive)]

    def count(self, route: Route, block: bytes) -> None:
        if route.port == self.port:
            self.commands += block
        else:
            super().count(route, block)

    def cut_only(self, control: bool) -> None:
        """Reset the control connections, or those for data."""
        with self._changed:
            chosen = [
                one for one, route in self._links.items() if (route.port == self.port) == control
            ]
            for one in chosen:
                del self._links[one]
        reset(chosen)
