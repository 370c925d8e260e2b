"""ONC RPC version 2 (RFC 5531): calls, replies, and AUTH_SYS."""

from __future__ import annotations

import itertools
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass

from stages.storages._nfs.xdr import Buffer, Malformed, Unpacker, pack_opaque, pack_uint, padding

LAST_FRAGMENT = 1 << 31
"""Set in a record mark, beside the length of what follows."""
MAX_GROUPS = 16
PROC_UNAVAIL = 3
_CALL, _REPLY = 0, 1
_RPC_VERSION = 2
_AUTH_NONE, AUTH_SYS = 0, 1
_AUTH_TOO_WEAK = 5

_REASONS = {
    1: "it does not offer this service",
    2: "it does not offer this version of the service",
    PROC_UNAVAIL: "it does not know this procedure",
    4: "it could not read the request",
    5: "it has an internal error",
}

_xids = itertools.count(int.from_bytes(os.urandom(4), "big"))


class RpcRejected(Exception):
    """The server read a call and did not carry it out.

    Args:
        reason: for people.
        status: `accept_stat` of the RFC; None when not even the caller was accepted.
        hint: what may help.
    """

    def __init__(self, reason: str, status: int | None = None, hint: str | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.hint = hint


@dataclass(frozen=True)
class Service:
    """A program of a server, such as NFS version 3."""

    program: int
    version: int


def auth_sys(uid: int, gid: int, gids: Sequence[int]) -> bytes:
    """Credentials that merely name a user, and the empty verifier that goes with them."""
    machine = platform.node().encode()[:255]
    body = pack_uint(0) + pack_opaque(machine) + pack_uint(uid, gid, len(gids), *gids)
    return pack_uint(AUTH_SYS) + pack_opaque(body) + pack_uint(_AUTH_NONE, 0)


def next_xid() -> int:
    """Names a call. One that is sent again over a new connection keeps its number: by that a server
    can know that it has carried it out already.
    """
    return next(_xids) & 0xFFFFFFFF


def call_message(
    xid: int, service: Service, procedure: int, credentials: bytes, arguments: bytes, data: Buffer
) -> list[Buffer]:
    """The parts of a message, in order.

    Args:
        xid: as made by `next_xid`.
        service: whom it is for.
        procedure: what is to be done.
        credentials: as made by `auth_sys`.
        arguments: all of them but `data`.
        data: the last argument, not copied; its length ends `arguments`.
    """
    header = pack_uint(xid, _CALL, _RPC_VERSION, service.program, service.version, procedure)
    end = padding(len(data))
    size = len(header) + len(credentials) + len(arguments) + len(data) + len(end)
    head = b"".join((pack_uint(LAST_FRAGMENT | size), header, credentials, arguments))
    return [part for part in (head, data, end) if len(part)]


def check_reply(reply: Unpacker) -> None:
    """Take the header of a reply, after its xid, off it.

    Raises:
        RpcRejected: the call was not carried out.
        Malformed: it is not a reply.
    """
    if reply.uint() != _REPLY:
        raise Malformed("a message is not a reply")
    if reply.uint():
        raise _denial(reply)
    reply.uint()
    reply.opaque()
    status = reply.uint()
    if status:
        raise RpcRejected(_REASONS.get(status, f"it answered with code {status}"), status)


def _denial(reply: Unpacker) -> RpcRejected:
    if reply.uint() == 0:
        return RpcRejected("it speaks another version of RPC")
    if reply.uint() == _AUTH_TOO_WEAK:
        hint = "it may want a source port below 1024, which only root can have"
    else:
        hint = "check the options of the export, such as sec and secure"
    return RpcRejected("it does not accept our credentials", hint=hint)
