"""A bucket of an S3 service. See `_s3/uploads.py` for how unfinished objects are told apart."""

from __future__ import annotations

import concurrent.futures
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from typing import Any
from urllib.parse import quote, urlencode, urlsplit
from weakref import WeakValueDictionary

from pipeline.errors import StorageDenied
from pipeline.naming import parse_part, part_name
from pipeline.stage import CHUNK, ObjectInfo, Storage, Writer
from schemas.base import format_duration
from schemas.s3 import S3Storage
from stages._tls import is_loopback, tls_mode
from stages.storages._names import (
    check_name,
    check_part,
    check_prefix,
    ended_early,
    exists_already,
    in_progress,
)
from stages.storages._s3.delete import Deleter
from stages.storages._s3.parts import PartPlan
from stages.storages._s3.publish import Place
from stages.storages._s3.read import Reader
from stages.storages._s3.service import Patience, Service
from stages.storages._s3.uploads import Keys, list_uploads, sweep
from stages.storages._s3.writer import S3Writer

_RANGE = 8 * CHUNK
"""Bytes that are asked for in one request while reading."""
_READ_AHEAD = 4
"""Requests on their way while reading."""


class S3(Storage):
    """Objects are objects, below `path` in the bucket.

    An object that exists is not overwritten: the service is told so in the request that makes the
    object visible (`If-None-Match: *`). Services that do not know this, or ignore it, leave a
    moment between our look and that request in which another writer can come first and be replaced.
    """

    def __init__(self, spec: S3Storage, _patience: Patience | None = None) -> None:
        self._spec = spec
        self._patience = _patience or Patience(seconds=spec.timeout)
        self._keys = Keys(spec.path)
        self._plan = PartPlan(spec.part_size, spec.parallel, spec.max_size)
        self._deleter = Deleter(self._keys)
        self._writers: WeakValueDictionary[str, S3Writer] = WeakValueDictionary()
        self._lock = threading.Lock()
        self._current: Service | None = None
        self.memory = max(self._plan.memory, (_READ_AHEAD + 1) * _RANGE)
        self.max_object_size = spec.max_size

    @property
    def _service(self) -> Service:
        with self._lock:
            if self._current is None:
                self._current = Service(self._spec, self._patience)
            return self._current

    def close(self) -> None:
        with self._lock:
            service, self._current = self._current, None
        if service:
            service.close()

    def create(self, name: str, token: str) -> Writer:
        check_name(name)
        part = part_name(name, token)
        service = self._service
        with self._lock:
            other = self._writers.get(part)
        if other is not None and not other.has_ended:
            raise in_progress(name)
        place = service.run(self._claim, service, name, token)
        writer = S3Writer(service, place, self._plan)
        with self._lock:
            self._writers[part] = writer
        return writer

    async def _claim(self, service: Service, name: str, token: str) -> Place:
        key, doing = self._keys.key(name), f'write "{name}"'
        try:
            found = await service.ask_if_there("head_object", doing, Key=key)
        except StorageDenied:
            found = None  # Whoever may only write learns it when the object gets its name.
        if found is not None:
            raise exists_already(name)
        claim = self._keys.key(part_name(name, token))
        answer = await service.ask(
            "create_multipart_upload", doing, Key=claim, **self._encryption()
        )
        upload = (claim, service.told(answer, "UploadId", doing))
        return Place(name, token, key, upload, self._parameters())

    def _encryption(self) -> dict[str, Any]:
        spec = self._spec
        if spec.encryption is None:
            return {}
        wanted = {"ServerSideEncryption": "AES256" if spec.encryption == "s3" else "aws:kms"}
        return {**wanted, "SSEKMSKeyId": spec.kms_key} if spec.kms_key else wanted

    def _parameters(self) -> dict[str, Any]:
        spec = self._spec
        parameters = self._encryption()
        if spec.storage_class:
            parameters["StorageClass"] = spec.storage_class
        if spec.tags:
            parameters["Tagging"] = urlencode(spec.tags, quote_via=quote)
        if spec.object_lock:
            until = datetime.now(timezone.utc) + timedelta(seconds=spec.object_lock.keep)
            parameters["ObjectLockMode"] = spec.object_lock.mode.upper()
            parameters["ObjectLockRetainUntilDate"] = until
        return parameters

    def open(self, name: str, offset: int = 0) -> Iterator[bytes]:
        check_name(name)
        service, key = self._service, self._keys.key(name)
        reader = Reader(service, name, key)
        size = service.run(reader.size)
        if offset > size:
            raise ended_early(name, offset)
        ranges = ((start, min(start + _RANGE, size)) for start in range(offset, size, _RANGE))
        reads: deque[concurrent.futures.Future[list[bytes]]] = deque()
        try:
            for start, end in ranges:
                reads.append(service.submit(reader.range, start, end))
                if len(reads) >= _READ_AHEAD:
                    yield from service.wait(reads.popleft())
            while reads:
                yield from service.wait(reads.popleft())
        finally:
            for read in reads:
                read.cancel()

    def list(self, prefix: str) -> Sequence[ObjectInfo]:
        check_prefix(prefix)
        service = self._service
        found = service.run(self._list, service, prefix)
        return sorted(found, key=lambda info: info.name)

    async def _list(self, service: Service, prefix: str) -> Sequence[ObjectInfo]:
        doing = f'list "{prefix}"'
        found: list[ObjectInfo] = []
        more: dict[str, Any] = {}
        while True:
            answer = await service.ask(
                "list_objects_v2", doing, Prefix=self._keys.below(prefix), **more
            )
            for entry in answer.get("Contents", ()):
                name = self._keys.name(entry["Key"])
                if _is_visible(name):
                    found.append(ObjectInfo(name, entry["Size"]))
            if not answer.get("IsTruncated"):
                return found
            token = service.told(answer, "NextContinuationToken", doing)
            more = {"ContinuationToken": token}

    def delete(self, names: Sequence[str]) -> None:
        for name in names:
            check_name(name)
        service = self._service
        service.run(self._deleter.delete, service, names)

    def unfinished(self, prefix: str) -> Sequence[str]:
        check_prefix(prefix)
        service = self._service
        uploads = service.run(list_uploads, service, self._keys.below(prefix))
        names = {self._keys.name(key) for key, _ in uploads}
        return sorted(name for name in names if _is_part(name))

    def sweep(self, names: Sequence[str]) -> None:
        for name in names:
            check_part(name)
        service = self._service
        service.run(sweep, service, self._keys, names)

    def probe(self) -> Sequence[str]:
        service = self._service
        service.run(self._look_around, service)
        facts = [f'bucket "{service.bucket}" on "{service.server}"']
        if self._spec.object_lock:
            facts.append(f"objects are locked for {format_duration(self._spec.object_lock.keep)}")
        return [*facts, *self._doubts(service)]

    async def _look_around(self, service: Service) -> None:
        # Unlike `head_bucket`, it gets told what is wrong: answers to HEAD have no body.
        with suppress(StorageDenied):  # Not everybody needs to list.
            await service.ask("list_objects_v2", "look at the bucket", MaxKeys=1)

    def _doubts(self, service: Service) -> Sequence[str]:
        """What is allowed, and not wise."""
        address = urlsplit(self._spec.endpoint or "")
        if is_loopback(address.hostname or ""):
            return []
        if not service.is_encrypted:
            return ["warning: the endpoint is http; backups travel in the clear"]
        if tls_mode(self._spec.tls, address.hostname or "") != "verify":
            return ["warning: the certificate is not checked; anyone on the way can pose as it"]
        return []


def _is_visible(name: str) -> bool:
    return all(part and not part.startswith(".") for part in name.split("/"))


def _is_part(name: str) -> bool:
    parsed = parse_part(name)
    return parsed is not None and _is_visible(parsed[0])


COMPONENT = S3
