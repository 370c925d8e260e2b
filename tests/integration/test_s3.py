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
from tests.contracts.storage_subject import NAME, OTHER_TOKEN, TOKEN, everything, names, put, read
from tests.integration.s3_storage import (
    QUICK,
    MakeStorage,
    empty,
    server,
    storage_on,
    write_parts,
)
from tests.servers.http import Answer, HttpSink, Received
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


class Recorder(HttpSink):
    """Says what a service says to a small upload, up to the look at what came of it."""

    def take(self, request: Received) -> Answer:
        super().take(request)
        upload = f"<Key>.a.{TOKEN}.part</Key><UploadId>1</UploadId>"
        begun, listed = "InitiateMultipartUploadResult", "ListMultipartUploadsResult"
        answers = {
            "HEAD": Answer(status=404),
            "POST": Answer(body=f"<{begun}>{upload}</{begun}>".encode()),
            "GET": Answer(body=f"<{listed}><Upload>{upload}</Upload></{listed}>".encode()),
        }
        return answers.get(request.method, Answer())


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

    def test_class_and_encryption_are_asked_for(self, storage_on: MakeStorage) -> None:
        with Recorder() as sink:
            storage = storage_on(
                None,
                QUICK,
                endpoint=sink.url(""),
                encryption="kms",
                kms_key="the-key",
                storage_class="STANDARD_IA",
            )
            writer = storage.create("a", TOKEN)
            with pytest.raises(StorageRefused):  # What it stored is not found again.
                writer.commit()
        (claim,) = [one for one in sink.received if one.method == "POST"]
        (put,) = [one for one in sink.received if one.method == "PUT"]
        for request in (claim, put):
            assert request.headers["x-amz-server-side-encryption"] == "aws:kms"
            assert request.headers["x-amz-server-side-encryption-aws-kms-key-id"] == "the-key"
        assert put.headers["x-amz-storage-class"] == "STANDARD_IA"

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

    def test_a_service_without_batch_delete(self, storage_on: MakeStorage) -> None:
        unknown = Answer(status=501, body=b"<Error><Code>NotImplemented</Code></Error>")
        with HttpSink(unknown, Answer(status=204)) as sink:
            storage = storage_on(None, endpoint=sink.url(""))
            storage.delete(["a", "b"])
            storage.delete(["c"])
            requests = [(one.method, one.path) for one in sink.received]
        assert requests[0] == ("POST", f"/{BUCKET}?delete")
        assert sorted(requests[1:]) == [("DELETE", f"/{BUCKET}/{name}") for name in "abc"]

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
