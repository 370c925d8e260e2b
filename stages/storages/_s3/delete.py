"""Deleting from S3: a thousand keys in one request, where the service takes that."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from botocore.exceptions import ClientError  # type: ignore[import-untyped]

from pipeline.errors import StorageError, StorageRefused
from stages.storages._s3.errors import MISSING, code_of, is_unsupported, translate
from stages.storages._s3.service import Service
from stages.storages._s3.uploads import Keys

_BATCH = 1000
_AT_ONCE = 16
_NO_BATCHES = frozenset(
    {"InvalidRequest", "InvalidArgument", "InvalidDigest", "BadRequest", "InvalidHeader", "400"}
)
"""What services say, besides that they do not know it, that dislike its checksums or its body."""


class Deleter:
    """Remembers whether the service knows requests for many keys."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self.in_batches = True

    async def delete(self, service: Service, names: Sequence[str]) -> None:
        """Remove objects; one that does not exist is fine.

        Raises:
            StorageError: at least one is still there; as many as possible are gone.
        """
        errors: list[StorageError] = []
        for start in range(0, len(names), _BATCH):
            batch = names[start : start + _BATCH]
            if self.in_batches:
                errors += await self._together(service, batch)
            if not self.in_batches:  # Also when that has just turned out.
                errors += await self._one_by_one(service, batch)
        if errors:
            raise errors[0]

    async def _together(self, service: Service, names: Sequence[str]) -> list[StorageError]:
        objects = [{"Key": self._keys.key(name)} for name in names]
        try:
            answer = await service.ask(
                "delete_objects", "delete objects", Delete={"Objects": objects, "Quiet": True}
            )
        except StorageRefused as refused:
            if not _is_about_batches(refused.__cause__):
                raise
            self.in_batches = False
            return []
        return [
            self._error(service, error)
            for error in answer.get("Errors", ())
            if error.get("Code") not in MISSING
        ]

    def _error(self, service: Service, error: dict[str, Any]) -> StorageError:
        name = self._keys.name(error.get("Key", ""))
        answer = ClientError({"Error": error}, "DeleteObjects")
        return translate(answer, service.server, service.bucket, f'delete "{name}"')

    async def _one_by_one(self, service: Service, names: Sequence[str]) -> list[StorageError]:
        gate = asyncio.Semaphore(_AT_ONCE)

        async def delete(name: str) -> StorageError | None:
            async with gate:
                try:
                    await service.ask_if_there(
                        "delete_object", f'delete "{name}"', Key=self._keys.key(name)
                    )
                except StorageError as error:
                    return error
                return None

        ends = await asyncio.gather(*(delete(name) for name in names))
        return [end for end in ends if end is not None]


def _is_about_batches(cause: BaseException | None) -> bool:
    """Whether a service may well delete the same objects when it is asked one by one."""
    return cause is not None and (is_unsupported(cause) or code_of(cause) in _NO_BATCHES)
