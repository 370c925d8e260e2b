"""S3 against a real server: what is allowed, and what objects carry."""

from __future__ import annotations

import os
import shutil
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import StorageRefused
from pipeline.naming import part_name
from pipeline.stage import CHUNK
from pipeline.tryout import try_out
from stages.storages._s3.service import Service
from tests.contracts.storage_subject import NAME, OTHER_TOKEN, TOKEN, everything, names, put, read
from tests.integration.s3_storage import (
    PART,
    MakeStorage,
    empty,
    server,
    storage_on,
    write_parts,
)
from tests.servers.s3 import (
    BUCKET,
    USER_KEY,
    USER_SECRET,
    Versitygw,
)

__all__ = ["empty", "server", "storage_on"]

# The first test may have to build the server.
from tests.servers.s3 import REASON, can_run

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not can_run(), reason=REASON),
]


NO_KEYS: dict[str, Any] = {"access_key": None, "secret_key": None}
USER = {"access_key": USER_KEY, "secret_key": USER_SECRET}
WRITE_ONLY = ("PutObject", "AbortMultipartUpload", "ListBucketMultipartUploads")


class TestPermissions:
    def test_nothing_is_allowed(self, server: Versitygw, storage_on: MakeStorage) -> None:
        server.allow("ListBucketVersions")
        storage = storage_on(server, **USER)
        with pytest.raises(StorageRefused, match="did not permit to write"):
            storage.create(NAME, TOKEN)
        with pytest.raises(StorageRefused, match='did not permit to list ""'):
            storage.list("")
        with pytest.raises(StorageRefused, match="did not permit to write"):
            try_out(storage)

    def test_a_key_that_may_only_write(self, server: Versitygw, storage_on: MakeStorage) -> None:
        server.allow(*WRITE_ONLY)
        storage, root = storage_on(server, **USER), storage_on(server)
        put(storage, NAME, [b"small"])
        other = storage.create(NAME, OTHER_TOKEN)
        with pytest.raises(StorageRefused, match="already exists"):
            other.commit()
        other.abort()
        writer = storage.create("large", TOKEN)
        content = write_parts(writer, 2)
        writer.commit()
        assert read(root, NAME) == b"small"
        assert read(root, "large") == content
        assert root.unfinished("") == []
        with pytest.raises(StorageRefused, match="did not permit to delete"):
            storage.delete([NAME])
        root.delete([NAME, "large"])

    def test_a_key_that_may_not_even_remove_uploads(
        self, server: Versitygw, storage_on: MakeStorage
    ) -> None:
        server.allow("PutObject")
        storage, root = storage_on(server, **USER), storage_on(server)
        put(storage, NAME, [b"content"])
        assert read(root, NAME) == b"content"
        assert root.unfinished("") == [part_name(NAME, TOKEN)]
        root.sweep(root.unfinished(""))
        root.delete([NAME])
        assert everything(root) == []

    def test_probe_tells_what_may_not_be_done(
        self, server: Versitygw, storage_on: MakeStorage
    ) -> None:
        server.allow(*WRITE_ONLY)
        rights = try_out(storage_on(server, path="probed", **USER))
        assert set(rights.denied) == {"listed", "read", "deleted"}
        root = storage_on(server, path="probed")
        root.delete(names(root))
        assert try_out(root).denied == {}


class TestObjects:
    def test_tags_and_metadata(self, server: Versitygw, storage_on: MakeStorage) -> None:
        tags = {"kind": "backup of a / b", "näme": "1+1=2"}
        storage = storage_on(server, tags=tags, encryption="s3")
        put(storage, "small", [b"content"])
        writer = storage.create("large", TOKEN)
        write_parts(writer, 1)
        writer.commit()
        for key in ("small", "large"):
            found = server.client().get_object_tagging(Bucket=BUCKET, Key=key)["TagSet"]
            assert {tag["Key"]: tag["Value"] for tag in found} == tags
            told = server.client().head_object(Bucket=BUCKET, Key=key)
            assert told["Metadata"] == {"nxs-run": TOKEN}
        storage.delete(["small", "large"])

    def test_object_lock(self, storage_on: MakeStorage) -> None:
        with Versitygw(versions=True) as server:
            server.make_bucket("locked", ObjectLockEnabledForBucket=True)
            lock = {"mode": "governance", "keep": "30d"}
            storage = storage_on(server, bucket="locked", object_lock=lock)
            put(storage, "small", [b"content"])
            writer = storage.create("large", TOKEN)
            write_parts(writer, 1)
            writer.commit()
            for key in ("small", "large"):
                told = server.client().get_object_retention(Bucket="locked", Key=key)
                left = told["Retention"]["RetainUntilDate"] - datetime.now(timezone.utc)
                assert told["Retention"]["Mode"] == "GOVERNANCE"
                assert timedelta(days=29) < left <= timedelta(days=30)
            assert storage.unfinished("") == []
            assert "objects are locked for 30d" in storage.probe()

    def test_five_thousand_objects(self, server: Versitygw, storage_on: MakeStorage) -> None:
        storage = storage_on(server, path="many")
        directory = server.data / BUCKET / "many" / "a"
        directory.mkdir(parents=True)
        for number in range(5000):
            (directory / f"{number:04}").write_bytes(b"x")
        shutil.chown(directory, *_owner(server.data / BUCKET))
        expected = [f"a/{number:04}" for number in range(5000)]
        assert names(storage, "a") == expected
        storage.delete(expected)
        assert names(storage) == []

    def test_parts_that_grow(
        self, server: Versitygw, storage_on: MakeStorage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("stages.storages._s3.parts.STEP", 2)
        monkeypatch.setattr("stages.storages._s3.parts.MAX_PARTS", 6)
        storage = storage_on(server, max_size="50MiB")
        writer: Any = storage.create(NAME, TOKEN)
        content = write_parts(writer, 8)
        writer.flush()
        upload = {"Bucket": BUCKET, "Key": NAME, "UploadId": writer._upload_id}
        sizes = [part["Size"] for part in server.client().list_parts(**upload)["Parts"]]
        assert sizes == [PART, PART, 2 * PART, 2 * PART, 2 * PART, 17]
        writer.commit()
        assert read(storage, NAME) == content

    def test_a_service_that_takes_no_signed_addresses_is_read_through_the_library(
        self, server: Versitygw, storage_on: MakeStorage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def unsigned(service: Service, key: str) -> str:
            asked.append(key)
            return f"{server.endpoint}/{service.bucket}/{key}?X-Amz-Signature=0"

        asked: list[str] = []
        monkeypatch.setattr(Service, "signed_address", unsigned)
        storage = storage_on(server)
        content = os.urandom(9 * CHUNK + 17)
        put(storage, NAME, [content])
        assert read(storage, NAME) == content
        assert asked == [NAME]

    @pytest.mark.parametrize("signed", [True, False])
    def test_objects_without_a_tag_are_read_too(
        self,
        server: Versitygw,
        storage_on: MakeStorage,
        monkeypatch: pytest.MonkeyPatch,
        signed: bool,
    ) -> None:
        (server.data / BUCKET / "untagged").write_bytes(b"put there by somebody else")
        monkeypatch.setattr(Service, "has_proxy", lambda *_: not signed)
        assert read(storage_on(server), "untagged") == b"put there by somebody else"

    def test_replaced_while_it_is_read(self, server: Versitygw, storage_on: MakeStorage) -> None:
        storage = storage_on(server)
        put(storage, NAME, [bytes(CHUNK)] * 40)
        chunks = storage.open(NAME)
        next(chunks)
        server.client().put_object(Bucket=BUCKET, Key=NAME, Body=b"other")
        with pytest.raises(StorageRefused, match="was replaced"):
            list(chunks)
        storage.delete([NAME])


class TestUnfinished:
    def test_others_uploads_are_left_alone(
        self, server: Versitygw, storage_on: MakeStorage
    ) -> None:
        client, storage = server.client(), storage_on(server)
        foreign = client.create_multipart_upload(Bucket=BUCKET, Key=f"{NAME}.other")
        storage.create(NAME, TOKEN)
        storage.sweep(storage.unfinished(""))
        left = client.list_multipart_uploads(Bucket=BUCKET)["Uploads"]
        assert [upload["Key"] for upload in left] == [f"{NAME}.other"]
        ours = {name: foreign[name] for name in ("Bucket", "Key", "UploadId")}
        client.abort_multipart_upload(**ours)

    def test_parts_go_with_the_claim(self, server: Versitygw, storage_on: MakeStorage) -> None:
        storage = storage_on(server)
        writer = storage.create(NAME, TOKEN)
        write_parts(writer, 2)
        writer.flush()
        assert storage.unfinished("") == [part_name(NAME, TOKEN)]
        storage.sweep(storage.unfinished(""))
        assert "Uploads" not in server.client().list_multipart_uploads(Bucket=BUCKET)
        with pytest.raises(StorageRefused, match="was removed while"):
            writer.commit()
        writer.abort()

    def test_parts_of_a_living_run_are_not_taken_for_those_of_a_dead_one(
        self, server: Versitygw, storage_on: MakeStorage
    ) -> None:
        storage = storage_on(server)
        storage.create(NAME, OTHER_TOKEN)  # Dropped.
        alive = storage.create(NAME, TOKEN)
        content = write_parts(alive, 2)
        storage.sweep([part_name(NAME, OTHER_TOKEN)])
        alive.commit()
        assert read(storage, NAME) == content
        assert storage.unfinished("") == [part_name(NAME, OTHER_TOKEN)]
        storage.sweep(storage.unfinished(""))
        storage.delete([NAME])
        assert everything(storage) == []

    def test_a_gone_upload_is_not_called_complete_because_of_another_object(
        self, server: Versitygw, storage_on: MakeStorage
    ) -> None:
        storage = storage_on(server)
        writer: Any = storage.create(NAME, TOKEN)
        content = write_parts(writer, 2)
        writer.flush()
        publisher = writer._publisher
        found = publisher._look

        async def look_too_early() -> None:
            """As when the other one comes between our look and our request."""
            publisher._look = found

        publisher._look = look_too_early
        server.client().put_object(Bucket=BUCKET, Key=NAME, Body=b"other")
        with pytest.raises(StorageRefused, match="already exists"):
            writer.commit()
        writer.abort()
        assert read(storage, NAME) == b"other" != content
        storage.delete([NAME])
        assert everything(storage) == []


def _owner(path: Path) -> tuple[int, int]:
    return os.stat(path).st_uid, os.stat(path).st_gid
