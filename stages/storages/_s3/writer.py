"""Writing to S3: parts of an upload, several at once, each tried again from memory."""

from __future__ import annotations

import asyncio
import base64
import concurrent.futures
import hashlib
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from pipeline.errors import Aborted, StorageError, StorageRefused, StorageUnavailable
from pipeline.stage import Writer
from stages.storages._names import was_removed
from stages.storages._s3.errors import is_missing
from stages.storages._s3.parts import PartPlan, in_flight, part_size
from stages.storages._s3.publish import RUN, Place, Publisher
from stages.storages._s3.service import Service

T = TypeVar("T")

ABORT_SECONDS = 3.0
"""How long `abort` may try to remove what it leaves behind."""


class S3Writer(Writer):
    """A claim on the service, an upload as soon as there is more than one part, and the parts.

    What fits into one part is kept until `commit`, and put there in one request.
    """

    def __init__(self, service: Service, place: Place, plan: PartPlan) -> None:
        self._service = service
        self._place = place
        self._plan = plan
        self._largest = plan.largest
        self._doing = f'write "{place.name}"'
        self._publisher = Publisher(service, place)
        self._number = 1
        self._buffer = bytearray(part_size(1, plan.first, self._largest))
        self._filled = 0
        self._size = 0
        self._tail_sent: int | None = None
        # Everything below is shared with the loop's thread, and guarded by _changed.
        self._changed = threading.Condition()
        self._upload_id: str | None = None
        self._tags: dict[int, str] = {}
        self._in_flight = 0
        self._error: StorageError | None = None
        self._call: concurrent.futures.Future[Any] | None = None
        self._beginning: asyncio.Task[Any] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._aborted = False
        self._committed = False

    @property
    def has_ended(self) -> bool:
        return self._aborted or self._committed

    def write(self, chunk: bytes) -> None:
        self._check()
        if self._size + len(chunk) > self._plan.max_size:
            raise StorageRefused(
                f'object "{self._place.name}" grew beyond {self._plan.max_size} bytes',
                "raise max_size, or split the stream",
            )
        with memoryview(chunk) as view:
            at = 0
            while at < len(chunk):
                if self._filled == len(self._buffer):
                    self._send_full()
                end = min(len(chunk), at + len(self._buffer) - self._filled)
                self._buffer[self._filled : self._filled + end - at] = view[at:end]
                self._filled += end - at
                at = end
        self._size += len(chunk)

    def flush(self) -> None:
        self._check()
        if self._upload_id is None:
            return
        if self._tail_sent != self._filled:
            # As the last part, for now; when more is written it is sent again with that.
            self._send(bytes(self._buffer[: self._filled]))
            self._tail_sent = self._filled
        with self._changed:
            self._changed.wait_for(lambda: not self._in_flight or self._is_over())
            self._check()

    def commit(self) -> None:
        self.flush()
        self._wait_for(self._publish)
        with self._changed:
            self._check()  # An `abort` that came meanwhile takes the object back.
            self._committed = True

    def abort(self) -> None:
        with self._changed:
            if self.has_ended:
                return
            self._aborted = True
            self._changed.notify_all()
            call = self._call
        if call:
            call.cancel()
        # Never raises, by contract: `sweep` finds what a dead connection keeps.
        with suppress(Exception):
            cleanup = self._service.submit(self._clean_up)
            try:
                cleanup.result(ABORT_SECONDS)
            finally:
                cleanup.cancel()

    # In the writer's thread

    def _is_over(self) -> bool:
        return self._aborted or self._error is not None

    def _check(self) -> None:
        if self.has_ended:
            raise Aborted
        if self._error:
            raise self._error

    def _send_full(self) -> None:
        self._send(self._buffer)
        self._number += 1
        self._tail_sent = None
        self._buffer = bytearray(part_size(self._number, self._plan.first, self._largest))
        self._filled = 0

    def _send(self, body: bytes | bytearray) -> None:
        """Send a part as soon as it may be on its way beside the others."""
        self._begin_upload()
        digest = self._digest(body)
        room = in_flight(len(self._buffer), self._plan.first, self._plan.parallel)
        with self._changed:
            self._changed.wait_for(lambda: self._in_flight < room or self._is_over())
            self._check()
            self._in_flight += 1
        self._on_loop(self._start_part, self._number, body, digest)

    def _digest(self, body: bytes | bytearray) -> dict[str, str]:
        """What lets the service check a body; without TLS its digest is part of the signature."""
        if not self._service.is_encrypted and "ObjectLockMode" not in self._place.parameters:
            return {}
        digest = hashlib.md5(body, usedforsecurity=False).digest()
        return {"ContentMD5": base64.b64encode(digest).decode()}

    def _begin_upload(self) -> None:
        if self._upload_id is None:
            self._on_loop(self._start_upload)
            with self._changed:
                self._changed.wait_for(lambda: self._upload_id is not None or self._is_over())
                self._check()

    def _on_loop(self, function: Callable[..., None], *arguments: Any) -> None:
        if not self._service.loop.call_soon(function, *arguments):
            self._fail(StorageUnavailable("the connection was closed"))

    def _wait_for(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine function on the loop; `abort` ends the wait."""
        try:
            with self._changed:
                self._check()
                self._call = call = self._service.submit(work)
            return self._service.wait(call)
        except StorageError as error:
            self._fail(error)
            if self._aborted:
                raise Aborted from None
            raise
        finally:
            with self._changed:
                self._call = None

    def _fail(self, error: StorageError) -> None:
        """Note the first error, for whoever waits or writes next."""
        with self._changed:
            self._error = self._error or error
            self._changed.notify_all()

    # On the loop

    def _start_upload(self) -> None:
        if not self._is_over():
            self._beginning = self._service.start(self._noting_errors, self._create_upload)

    def _start_part(self, number: int, body: bytes | bytearray, digest: dict[str, str]) -> None:
        if not self._is_over():
            task = self._service.start(self._noting_errors, self._upload_part, number, body, digest)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _noting_errors(
        self, work: Callable[..., Coroutine[Any, Any, None]], *arguments: Any
    ) -> None:
        try:
            await work(*arguments)
        except StorageError as error:
            gone = error.__cause__ is not None and is_missing(error.__cause__)
            self._fail(was_removed(self._place.name) if gone else error)
        except asyncio.CancelledError:
            self._fail(StorageUnavailable("the connection was closed"))
            raise

    async def _create_upload(self) -> None:
        answer = await self._service.ask(
            "create_multipart_upload",
            self._doing,
            self._service.patience,
            Key=self._place.key,
            **self._described(),
        )
        upload_id = self._service.told(answer, "UploadId", self._doing)
        with self._changed:
            self._upload_id = upload_id
            self._changed.notify_all()

    def _described(self) -> dict[str, Any]:
        return {"Metadata": {RUN: self._place.token}, **self._place.parameters}

    async def _upload_part(
        self, number: int, body: bytes | bytearray, digest: dict[str, str]
    ) -> None:
        answer = await self._service.ask(
            "upload_part",
            self._doing,
            self._service.patience,
            Key=self._place.key,
            UploadId=self._upload_id,
            PartNumber=number,
            Body=body,
            **digest,
        )
        tag = self._service.told(answer, "ETag", self._doing)
        with self._changed:
            self._tags[number] = tag
            self._in_flight -= 1
            self._changed.notify_all()

    async def _publish(self) -> None:
        if self._upload_id is None:
            body = bytes(self._buffer[: self._filled])
            await self._publisher.put(
                self._size, Body=body, **self._digest(body), **self._described()
            )
        else:
            # The last part may have been sent before it turned out to be empty.
            last = self._number if self._filled else self._number - 1
            parts = [
                {"PartNumber": number, "ETag": self._tags[number]} for number in range(1, last + 1)
            ]
            await self._publisher.complete(self._size, self._upload_id, parts)

    async def _clean_up(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        if self._beginning:
            await asyncio.wait({self._beginning})
        await self._publisher.withdraw(self._upload_id)
