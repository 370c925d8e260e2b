"""The moment an object of S3 becomes visible: once, whole, and never over another one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from pipeline.errors import StorageDenied, StorageError, StorageRefused
from stages.storages._names import exists_already, was_removed
from stages.storages._s3.errors import is_conflict, is_missing, is_unsupported
from stages.storages._s3.service import Service
from stages.storages._s3.uploads import Upload, abort_all, abort_upload, list_exactly

_ANSWER_SECONDS = 1.5
RUN = "nxs-run"
"""Metadata of each object: the token of the run that wrote it."""


@dataclass(frozen=True)
class Place:
    """Where an object goes."""

    name: str
    token: str
    key: str
    claim: Upload
    parameters: dict[str, Any] = field(default_factory=dict)
    """What the object is stored with: class, encryption, tags, lock."""


async def _let_end(request: asyncio.Task[Any]) -> None:
    """Give a request the time to be answered: one that was cut off may still be carried out."""
    await asyncio.wait({request}, timeout=_ANSWER_SECONDS)
    request.cancel()
    await asyncio.wait({request})
    if not request.cancelled():
        request.exception()  # Whoever withdraws knows why.


class Publisher:
    """Makes one object visible, and takes back what did not come so far; on the loop."""

    def __init__(self, service: Service, place: Place) -> None:
        self._service = service
        self._place = place
        self._doing = f'write "{place.name}"'
        self._size: int | None = None
        """Bytes of the object, once it may be visible."""
        self._request: asyncio.Task[Any] | None = None
        """What makes it visible."""

    async def put(self, size: int, **parameters: Any) -> None:
        """Store an object of one part.

        Raises:
            StorageError: it is not visible.
        """
        await self._publish("put_object", size, parameters)

    async def complete(self, size: int, upload_id: str, parts: Sequence[dict[str, Any]]) -> None:
        """Make one object of the parts of an upload.

        Raises:
            StorageError: it is not visible.
        """
        parameters = {"UploadId": upload_id, "MultipartUpload": {"Parts": list(parts)}}
        await self._publish("complete_multipart_upload", size, parameters)

    async def withdraw(self, upload_id: str | None) -> None:
        """Remove the upload and the claim, and the object if it became visible after all."""
        if self._request is not None:
            await _let_end(self._request)
        # In this order: a request of ours that is still under way may make an object of it.
        if upload_id is not None:
            await abort_upload(self._service, (self._place.key, upload_id))
        if self._size is not None and self._is_ours(await self._look()):
            await self._service.ask("delete_object", self._doing, Key=self._place.key)
        await abort_all(self._service, await self._claims())

    async def _publish(self, operation: str, size: int, parameters: dict[str, Any]) -> None:
        name = self._place.name
        found, claims = await asyncio.gather(self._look(), self._claims())
        if found:
            raise exists_already(name)
        if not claims:
            raise was_removed(name)
        self._size = size
        try:
            await self._ask(operation, parameters)
        except StorageRefused as refused:
            cause = refused.__cause__ or refused
            if not (is_conflict(cause) or is_missing(cause)):
                raise
            # Perhaps it was done the first time, and only the answer was lost.
            if not self._is_ours(await self._look()):
                raise (exists_already if is_conflict(cause) else was_removed)(name) from cause
        await self._verify()
        with suppress(StorageError):  # The object is there; `sweep` finds the claim.
            await abort_all(self._service, claims)

    async def _ask(self, operation: str, parameters: dict[str, Any]) -> None:
        """Make it visible unless there is one already, where the service can be told so."""
        request = {"Key": self._place.key, **parameters}
        try:
            await self._decide(operation, IfNoneMatch="*", **request)
        except StorageRefused as refused:
            if refused.__cause__ is None or not is_unsupported(refused.__cause__):
                raise
            await self._decide(operation, **request)

    async def _decide(self, operation: str, **request: Any) -> None:
        """Ask for what cannot be taken back: it goes on when who waits for it is cancelled."""

        async def ask() -> None:
            await self._service.ask(operation, self._doing, self._service.patience, **request)

        self._request = self._service.start(ask)
        await asyncio.shield(self._request)

    async def _verify(self) -> None:
        """See that what is there now is what we wrote.

        Some services call an upload completed that was gone, because another object is there.
        """
        try:
            found = await self._service.ask_if_there(
                "head_object", self._doing, Key=self._place.key
            )
        except StorageDenied:
            return  # Whoever may only write cannot look.
        if found is None:
            raise was_removed(self._place.name)
        if not self._is_ours(found):
            raise exists_already(self._place.name)

    async def _look(self) -> dict[str, Any] | None:
        """What is there under the final key; nothing, when we may not look."""
        try:
            found: dict[str, Any] | None = await self._service.ask_if_there(
                "head_object", self._doing, Key=self._place.key
            )
        except StorageDenied:
            return None
        return found

    def _is_ours(self, found: dict[str, Any] | None) -> bool:
        if found is None:
            return False
        ours: bool = found.get("Metadata", {}).get(RUN) == self._place.token
        return ours and found.get("ContentLength") == self._size

    async def _claims(self) -> list[Upload]:
        try:
            return await list_exactly(self._service, self._place.claim[0])
        except StorageDenied:
            return [self._place.claim]
