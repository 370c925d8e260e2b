"""Unfinished uploads: how a run claims a name, and how others find what it left behind.

S3 has no unfinished objects with names of their own. It has *uploads*: pending, invisible, under
the final key, without a word on who started them. So each writer first starts a second, empty
upload under the key `dir/.<basename>.<token>.part`, the *claim*: it names the run like a `.part`
file does elsewhere, is seen by nobody but `list_multipart_uploads`, leaves no version and no lock
behind, costs nothing, and goes where the bucket's own rule for incomplete uploads removes them.

A claim is there before the upload of its data is, and goes after it. So uploads under a key
without any claim of a run that may be alive are dead.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import unquote_plus

from pipeline.errors import StorageError
from pipeline.naming import parse_part
from stages.storages._s3.service import Service

Upload = tuple[str, str]
"""Key and ID."""

_ESCAPES = {0xDC00 + byte: 0x10F000 + byte for byte in range(0x80, 0x100)}
_UNESCAPES = {there: here for here, there in _ESCAPES.items()}


class Keys:
    """Names of objects as keys of a bucket, and back.

    Keys are text; bytes of a name that are none become characters for private use.
    """

    def __init__(self, path: str) -> None:
        self._root = f"{path}/" if path else ""

    def key(self, name: str) -> str:
        return self._root + name.translate(_ESCAPES)

    def below(self, prefix: str) -> str:
        """What the keys of all objects below a directory start with."""
        return self.key(f"{prefix}/") if prefix else self._root

    def name(self, key: str) -> str:
        return key[len(self._root) :].translate(_UNESCAPES)


async def list_uploads(service: Service, prefix: str) -> list[Upload]:
    """All pending uploads whose keys start with `prefix`, which may be a whole key."""
    found = list(await _pages(service, prefix))
    if not found and service.is_minio and prefix:
        found = list(await _pages(service, ""))
    return [upload for upload in found if upload[0].startswith(prefix)]


async def _pages(service: Service, prefix: str) -> list[Upload]:
    found: list[Upload] = []
    marker: dict[str, Any] = {}
    while True:
        answer = await service.ask(
            "list_multipart_uploads",
            "list unfinished uploads",
            Prefix=prefix,
            EncodingType="url",
            **marker,
        )
        found += _uploads_in(answer)
        if not answer.get("IsTruncated"):
            return found
        marker = {
            "KeyMarker": _decoded(answer, answer.get("NextKeyMarker", "")),
            "UploadIdMarker": answer.get("NextUploadIdMarker", ""),
        }


def _uploads_in(answer: dict[str, Any]) -> Iterator[Upload]:
    for upload in answer.get("Uploads", ()):
        yield _decoded(answer, upload["Key"]), upload["UploadId"]


def _decoded(answer: dict[str, Any], key: str) -> str:
    return unquote_plus(key) if answer.get("EncodingType") == "url" else key


async def list_exactly(service: Service, key: str) -> list[Upload]:
    """All pending uploads under one key."""
    return [upload for upload in await list_uploads(service, key) if upload[0] == key]


async def abort_upload(service: Service, upload: Upload) -> None:
    """End an upload and remove its parts; one that is gone is fine."""
    key, upload_id = upload
    await service.ask_if_there(
        "abort_multipart_upload", "remove an unfinished upload", Key=key, UploadId=upload_id
    )


async def abort_all(service: Service, uploads: Sequence[Upload]) -> None:
    """End several uploads at once.

    Raises:
        StorageError: at least one is still there; the others are gone.
    """
    ends = await asyncio.gather(
        *(abort_upload(service, upload) for upload in uploads), return_exceptions=True
    )
    for end in ends:
        if isinstance(end, BaseException):
            raise end


async def sweep(service: Service, keys: Keys, names: Sequence[str]) -> None:
    """Remove the claims with these names, and the uploads they were made for.

    An upload does not say whose it is: while another run claims the same object, both stay.
    """
    errors: list[StorageError] = []
    for name in names:
        try:
            await _sweep_one(service, keys, name, frozenset(names))
        except StorageError as error:
            errors.append(error)
    if errors:
        raise errors[0]


async def _sweep_one(service: Service, keys: Keys, name: str, dead: frozenset[str]) -> None:
    parsed = parse_part(name)
    assert parsed is not None
    final = parsed[0]
    # In this order: a claim that we do not see was made after all uploads that we see.
    uploads = await list_exactly(service, keys.key(final))
    directory, _, base = final.rpartition("/")
    start = f"{directory}/.{base}." if directory else f".{base}."
    claims = await list_uploads(service, keys.key(start))
    claimed = [upload for upload in claims if _claims(keys.name(upload[0]), final)]
    if any(keys.name(key) not in dead for key, _ in claimed):
        return
    await abort_all(service, uploads)
    await abort_all(service, [upload for upload in claimed if keys.name(upload[0]) == name])


def _claims(part: str, final: str) -> bool:
    parsed = parse_part(part)
    return parsed is not None and parsed[0] == final
