"""Reading from S3: ranges of an object, several at once, each taken up again where it broke off."""

from __future__ import annotations

from typing import Any

from pipeline.errors import StorageRefused
from stages.storages._names import is_missing as missing_object
from stages.storages._s3.errors import is_conflict, is_missing
from stages.storages._s3.http import touch
from stages.storages._s3.service import Service

_PIECE = 256 << 10


async def head(service: Service, name: str, key: str) -> dict[str, Any]:
    """Size, tag and metadata of an object.

    Raises:
        ObjectMissing: there is none.
    """
    found: dict[str, Any] | None
    found = await service.ask_if_there("head_object", f'read "{name}"', Key=key)
    if found is None:
        raise missing_object(name)
    return found


async def read_range(
    service: Service, name: str, key: str, tag: str, start: int, end: int
) -> bytearray:
    """The bytes of an object from `start` to before `end`, if it still has this tag.

    Raises:
        ObjectMissing: it is gone.
        StorageRefused: it is another one now.
    """
    data = bytearray()

    async def attempt() -> None:
        client = await service.client()
        answer = await client.get_object(
            Bucket=service.bucket,
            Key=key,
            Range=f"bytes={start + len(data)}-{end - 1}",
            IfMatch=tag,
        )
        body = answer["Body"]
        try:
            while piece := await body.read(_PIECE):
                data.extend(piece)
                touch()
        finally:
            body.close()
        if len(data) < end - start:
            raise EOFError("the answer ended early")

    try:
        await service.persist(attempt, f'read "{name}"', service.patience)
    except StorageRefused as refused:
        cause = refused.__cause__ or refused
        if is_missing(cause):
            raise missing_object(name) from cause
        if is_conflict(cause):
            raise StorageRefused(f'object "{name}" was replaced while it was read') from cause
        raise
    return data
