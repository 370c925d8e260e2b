"""Reading from S3: ranges of an object, several at once, each taken up again where it broke off."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any
from urllib.parse import SplitResult, urlsplit

from pipeline.errors import StorageRefused
from pipeline.stage import CHUNK
from stages.storages._names import is_missing as missing_object
from stages.storages._s3.errors import is_conflict, is_missing
from stages.storages._s3.fetch import Unexpected, Wanted
from stages.storages._s3.http import Progress, touch, while_it_moves
from stages.storages._s3.service import Service

_PIECE = 256 << 10
_RENEW_SECONDS = 600.0
"""How long a signed address is used: well below its validity, and that of temporary credentials."""


class Reader:
    """Reads one object, as it is at the first look; on the loop."""

    def __init__(self, service: Service, name: str, key: str) -> None:
        self._service = service
        self._name = name
        self._key = key
        self._doing = f'read "{name}"'
        self._tag: str | None = None
        self._address: SplitResult | None = None
        self._renew_at = 0.0
        self._plainly = True

    async def size(self) -> int:
        """Look the object up; to be called first.

        Raises:
            ObjectMissing: there is none.
        """
        found = await self._service.ask_if_there("head_object", self._doing, Key=self._key)
        if found is None:
            raise missing_object(self._name)
        self._tag = found.get("ETag")  # Gateways have none for files that others put there.
        return int(self._service.told(found, "ContentLength", self._doing))

    async def range(self, start: int, end: int) -> list[bytes]:
        """The bytes from `start` to before `end`, in chunks.

        Raises:
            ObjectMissing: the object is gone.
            StorageRefused: it is another one now.
        """
        chunks: list[bytes] = []

        async def attempt(progress: Progress) -> None:
            before = len(chunks)
            try:
                await self._go_on(start + sum(map(len, chunks)), end, chunks)
            finally:
                progress.lasts = len(chunks) > before

        try:
            await self._service.persist(attempt, self._doing, self._service.patience)
        except StorageRefused as refused:
            cause = refused.__cause__ or refused
            if is_missing(cause):
                raise missing_object(self._name) from cause
            if is_conflict(cause):
                what = f'object "{self._name}" was replaced while it was read'
                raise StorageRefused(what) from cause
            raise
        return chunks

    async def _go_on(self, start: int, end: int, chunks: list[bytes]) -> None:
        """Add what is missing, in the quick way unless the service has refused it before."""
        address = await self._signed() if self._plainly else None
        if address is not None:
            try:
                wanted = Wanted(address, self._tag, start, end)
                await self._service.fetcher.fetch(wanted, chunks.append)
                return
            except Unexpected:
                self._plainly = False
        await while_it_moves(self._by_library(start, end, chunks), self._service.spec.timeout)

    async def _signed(self) -> SplitResult | None:
        """An address that needs no more than its range; None where GETs go through a proxy."""
        now = asyncio.get_running_loop().time()
        if self._address is None or now >= self._renew_at:
            self._renew_at = now + _RENEW_SECONDS
            self._address = urlsplit(await self._service.signed_address(self._key))
        return None if self._service.has_proxy(self._address) else self._address

    async def _by_library(self, start: int, end: int, chunks: list[bytes]) -> None:
        client = await self._service.client()
        condition = {} if self._tag is None else {"IfMatch": self._tag}
        answer = await client.get_object(
            Bucket=self._service.bucket,
            Key=self._key,
            Range=f"bytes={start}-{end - 1}",
            **condition,
        )
        body, data = answer["Body"], bytearray()
        try:
            self._check_range(answer, start, end)
            while piece := await body.read(_PIECE):
                data += piece
                touch()
        finally:
            body.close()
            chunks += _cut(data)
        if len(data) < end - start:
            raise EOFError("the answer ended early")

    def _check_range(self, answer: dict[str, Any], start: int, end: int) -> None:
        place, size = answer.get("ContentRange") or "bytes 0-", end - start
        if not place.startswith(f"bytes {start}-") or answer.get("ContentLength", size) != size:
            server = self._service.server
            raise StorageRefused(
                f'"{server}" sent another part of "{self._name}" than it was asked for'
            )


def _cut(data: bytearray) -> Iterator[bytes]:
    with memoryview(data) as view:
        for start in range(0, len(data), CHUNK):
            yield bytes(view[start : start + CHUNK])
