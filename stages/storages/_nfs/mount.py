"""How to find NFS on a server: the portmapper (RFC 1833) and the mount protocol (RFC 1813, I)."""

from __future__ import annotations

from stages.storages._nfs.rpc import AUTH_SYS, Service, call_message, check_reply, next_xid
from stages.storages._nfs.tcp import Connection
from stages.storages._nfs.xdr import Unpacker, pack_opaque, pack_uint

MOUNT = Service(100005, 3)
PORTMAPPER_PORT = 111
_PORTMAPPER = Service(100000, 2)
_GETPORT = 3
_MNT = 1
_TCP = 6


class MountError(Exception):
    """The server does not let us have an export.

    Args:
        status: `mountstat3`; None when it wants another way of authentication.
    """

    def __init__(self, status: int | None) -> None:
        super().__init__(f"mount status {status}")
        self.status = status


def get_port(connection: Connection, service: Service) -> int:
    """Ask a portmapper for the TCP port of a service; 0 when it has none.

    Raises:
        OSError, RpcRejected, Malformed: it did not say.
    """
    what = pack_uint(service.program, service.version, _TCP, 0)
    return _ask(connection, _PORTMAPPER, _GETPORT, pack_uint(0, 0, 0, 0), what).uint()


def mount(connection: Connection, export: str, credentials: bytes) -> bytes:
    """The handle of an exported directory.

    Raises:
        MountError: we may not have it.
        OSError, RpcRejected, Malformed: the server did not say.
    """
    path = pack_opaque(export.encode("utf-8", "surrogateescape"))
    reply = _ask(connection, MOUNT, _MNT, credentials, path)
    status = reply.uint()
    if status:
        raise MountError(status)
    handle = reply.opaque()
    flavors = [reply.uint() for _ in range(reply.uint())]
    # Some servers name none; then what we use shows whether it will do.
    if flavors and AUTH_SYS not in flavors:
        raise MountError(None)
    return handle


def _ask(
    connection: Connection, service: Service, procedure: int, credentials: bytes, arguments: bytes
) -> Unpacker:
    xid = next_xid()
    connection.send(call_message(xid, service, procedure, credentials, arguments, b""))
    answered, reply = connection.receive()
    while answered != xid:
        answered, reply = connection.receive()
    check_reply(reply)
    return reply
