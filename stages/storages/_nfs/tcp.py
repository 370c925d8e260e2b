"""RPC over TCP: records of a stream, and the ports that an NFS server wants its callers to have."""

from __future__ import annotations

import random
import socket

from stages.storages import _tcp
from stages.storages._nfs.rpc import LAST_FRAGMENT
from stages.storages._nfs.xdr import Buffer, Malformed, Unpacker

MAX_RECORD = 16 << 20
"""No reply is longer: what says so is not RPC."""
_PRIVILEGED = range(665, 1024)
"""Source ports that only root may have; the kernel's NFS client takes its from the same."""
_PORT_ATTEMPTS = 30


class Connection(_tcp.Stream):
    """A TCP connection that carries calls and replies, for one thread."""

    def receive(self) -> tuple[int, Unpacker]:
        """The next reply: its xid, and the rest, which is valid until the next call.

        Raises:
            OSError: the connection is lost.
            Malformed: this is not RPC.
        """
        mark = self._mark()
        body: Buffer = self._fragment(mark)
        if not mark & LAST_FRAGMENT:
            body = self._join(bytes(body))
        reply = Unpacker(body)
        return reply.uint(), reply

    def _join(self, first: bytes) -> bytes:
        fragments, mark = [first], 0
        while not mark & LAST_FRAGMENT:
            mark = self._mark()
            fragments.append(bytes(self._fragment(mark)))
            if sum(map(len, fragments)) > MAX_RECORD:
                raise Malformed("a reply is too long")
        return b"".join(fragments)

    def _mark(self) -> int:
        return int.from_bytes(self.take(4), "big")

    def _fragment(self, mark: int) -> memoryview:
        size = mark & ~LAST_FRAGMENT
        if size > MAX_RECORD:
            raise Malformed("a reply is too long")
        return self.take(size)


class Host(_tcp.Host):
    """A server, which is called from a privileged port when we may have one: many exports ask."""

    def call(self, port: int, timeout: float, interrupt: _tcp.Interrupt) -> socket.socket:
        """Connect to a port of the server; see `connect`."""
        sources = random.sample(_PRIVILEGED, _PORT_ATTEMPTS)
        return self.connect(port, timeout, interrupt, sources)
