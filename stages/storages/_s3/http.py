"""Requests whose progress can be seen, so that only one that stands still is given up.

The client library sends a body in one piece: until all of it has gone, nobody can tell a slow
connection from a dead one, and the piece is copied once more on its way. Here it goes in slices.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import ssl
from collections.abc import Coroutine
from contextvars import ContextVar
from typing import Any, TypeVar

from aiobotocore.httpsession import AIOHTTPSession  # type: ignore[import-untyped]
from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import Payload

from stages.storages._sockets import unacknowledged

T = TypeVar("T")

_SLICE = 256 << 10
_LOOKS = 8
"""How often we look, in the time that something may stand still."""


class Stalled(Exception):
    """Nothing moved for the time that is allowed for that."""


class Progress:
    """When something moved last, in the loop's time."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.lasts = False
        """Whether something of it need not be done again, though it failed."""
        self._waiting = 0
        self._began = self.last = asyncio.get_running_loop().time()

    @property
    def seconds(self) -> float:
        """How long it moved."""
        return self.last - self._began

    def touch(self) -> None:
        self.last = asyncio.get_running_loop().time()

    def look(self) -> None:
        """See whether what was handed to the system gets less: it may hold megabytes."""
        waiting = _unacknowledged(self.transport)
        if waiting != self._waiting:
            self._waiting = waiting
            self.touch()


def _unacknowledged(transport: asyncio.Transport | None) -> int:
    """Bytes of a connection that the other side has not acknowledged."""
    socket = transport.get_extra_info("socket") if transport else None
    if socket is None or socket.fileno() < 0:
        return 0
    return unacknowledged(socket)


_progress: ContextVar[Progress | None] = ContextVar("s3_progress", default=None)


def touch() -> None:
    """Note that the request that is under way in this context has moved."""
    progress = _progress.get()
    if progress is not None:
        progress.touch()


async def while_it_moves(
    work: Coroutine[Any, Any, T], seconds: float, progress: Progress | None = None
) -> T:
    """The result of `work`, which is cancelled when it does not move for so long.

    Args:
        work: what may be given up.
        seconds: how long it may stand still.
        progress: tells afterwards how it went.

    Raises:
        Stalled: it did not.
    """
    progress = progress or Progress()
    before = _progress.set(progress)
    task = asyncio.ensure_future(work)  # It inherits the context.
    _progress.reset(before)
    try:
        while not task.done():
            left = progress.last + seconds - asyncio.get_running_loop().time()
            if left <= 0:
                raise Stalled
            await asyncio.wait({task}, timeout=min(left, seconds / _LOOKS))
            progress.look()
        return task.result()
    finally:
        if not task.done():
            if progress.transport is not None:
                progress.transport.abort()  # Closing it would wait until all is sent.
            task.cancel()
            await asyncio.wait({task})
            if not task.cancelled():
                task.exception()  # Nobody wants to know it any more.


class _Slices(Payload):
    """A body that is written in slices, each when there is room for it."""

    _autoclose = True

    def __init__(self, data: bytes | bytearray) -> None:
        super().__init__(data)
        self._size = len(data)

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return str(bytes(self._value), encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        await self.write_with_length(writer, None)

    async def write_with_length(
        self, writer: AbstractStreamWriter, content_length: int | None
    ) -> None:
        size = self._size or 0
        end = size if content_length is None else min(size, content_length)
        progress = _progress.get()
        if progress is not None:
            progress.transport = getattr(writer, "transport", None)
        with memoryview(self._value) as view:
            for start in range(0, end, _SLICE):
                await writer.write(bytes(view[start : min(start + _SLICE, end)]))
                touch()


class Session(AIOHTTPSession):  # type: ignore[misc]
    """The library's own way to send requests, with bodies in slices and our idea of trust."""

    context: ssl.SSLContext | None = None

    def _build_verify_context(self) -> ssl.SSLContext:
        if self.context is not None:
            return self.context
        context: ssl.SSLContext = super()._build_verify_context()
        return context

    async def send(self, request: Any) -> Any:
        body = request.body
        # The library below would wait for the answer without end, and not all services give one.
        request.headers.pop("Expect", None)
        if isinstance(body, (bytes, bytearray)) and body:
            request.body = _Slices(body)
        try:
            answer = await super().send(request)
        finally:
            request.body = body
        touch()
        return answer


def add_md5(params: dict[str, Any], **_: object) -> None:
    """Before a call: the checksum that older services demand; the library has only newer ones."""
    digest = hashlib.md5(params["body"], usedforsecurity=False).digest()
    params["headers"]["Content-MD5"] = base64.b64encode(digest).decode()


def session_class(context: ssl.SSLContext | None) -> type[Session]:
    """The class that the client makes its session of, which takes no arguments of ours."""
    return type("Session", (Session,), {"context": context})
