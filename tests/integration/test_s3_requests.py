"""What is asked of an S3 service, and how often, whatever it may answer."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from typing import Any

import pytest

from pipeline.errors import ObjectMissing, StorageDenied, StorageRefused, StorageUnavailable
from stages.storages._s3 import service as service_module
from stages.storages._s3.service import Patience
from tests.contracts.storage_subject import NAME, TOKEN, read
from tests.integration.s3_storage import (
    QUICK,
    MakeStorage,
    home,
    storage_on,
    write_parts,
)
from tests.servers.http import Answer, HttpSink, Received
from tests.servers.s3 import BUCKET

__all__ = ["home", "storage_on"]

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

CLAIM = f".a.{TOKEN}.part"
AMAZON = "s3.eu-north-1.amazonaws.com"
LISTED = Answer(body=b"<ListBucketResult/>")


class Recorder(HttpSink):
    """Says what a service says to an upload, up to the look at what came of it.

    Args:
        tag: what it calls each part.
    """

    def __init__(self, tag: str = "t") -> None:
        super().__init__()
        self._tag = tag

    def take(self, request: Received) -> Answer:
        super().take(request)
        upload = f"<Key>{CLAIM}</Key><UploadId>1</UploadId>"
        begun, listed = "InitiateMultipartUploadResult", "ListMultipartUploadsResult"
        answers = {
            "HEAD": Answer(status=404),
            "POST": Answer(body=f"<{begun}>{upload}</{begun}>".encode()),
            "PUT": Answer(headers={"ETag": self._tag} if self._tag else {}),
            "GET": Answer(body=f"<{listed}><Upload>{upload}</Upload></{listed}>".encode()),
        }
        return answers.get(request.method, Answer())

    def begun(self, key: str) -> Received:
        """The request that began an upload."""
        begun = (one for one in self.received if one.method == "POST" and "uploads" in one.path)
        (request,) = [one for one in begun if one.path.startswith(f"/{BUCKET}/{key}?")]
        return request


class TestStored:
    @pytest.mark.parametrize("parts", [0, 1], ids=["in one request", "in parts"])
    def test_with_class_key_tags_and_lock(self, storage_on: MakeStorage, parts: int) -> None:
        with Recorder() as sink:
            storage = storage_on(
                None,
                QUICK,
                endpoint=sink.url(""),
                encryption="kms",
                kms_key="the-key",
                storage_class="STANDARD_IA",
                tags={"kind": "a b"},
                object_lock={"mode": "compliance", "keep": "30d"},
            )
            writer = storage.create("a", TOKEN)
            write_parts(writer, parts)
            with pytest.raises(StorageRefused):  # What it stored is not found again.
                writer.commit()
            claim = sink.begun(CLAIM)
            puts = [one for one in sink.received if one.method == "PUT"]
            stored = sink.begun("a") if parts else puts[0]
        for request in (claim, stored):
            assert request.headers["x-amz-server-side-encryption"] == "aws:kms"
            assert request.headers["x-amz-server-side-encryption-aws-kms-key-id"] == "the-key"
        assert stored.headers["x-amz-storage-class"] == "STANDARD_IA"
        assert stored.headers["x-amz-tagging"] == "kind=a%20b"
        assert stored.headers["x-amz-object-lock-mode"] == "COMPLIANCE"
        assert stored.headers["x-amz-object-lock-retain-until-date"] > "2026"
        # With a lock, services insist on a checksum of the body, and older ones on this.
        assert all(put.headers["content-md5"] == md5(put.body) for put in puts)
        assert not any("lock" in header or "class" in header for header in claim.headers)

    @pytest.mark.parametrize("parts", [0, 1], ids=["in one request", "in parts"])
    def test_encrypted_with_the_keys_of_the_service(
        self, storage_on: MakeStorage, parts: int
    ) -> None:
        with Recorder() as sink:
            storage = storage_on(None, QUICK, endpoint=sink.url(""), encryption="s3")
            writer = storage.create("a", TOKEN)
            write_parts(writer, parts)
            with pytest.raises(StorageRefused):
                writer.commit()
            puts = [one for one in sink.received if one.method == "PUT"]
            stored = sink.begun("a") if parts else puts[0]
            assert stored.headers["x-amz-server-side-encryption"] == "AES256"

    def test_parts_without_a_tag_are_refused(self, storage_on: MakeStorage) -> None:
        with Recorder(tag="") as sink:
            writer = storage_on(None, QUICK, endpoint=sink.url("")).create("a", TOKEN)
            write_parts(writer, 1)
            with pytest.raises(StorageRefused, match=r"told no ETag.* is it an S3 service"):
                writer.flush()
            writer.abort()

    def test_a_web_site_is_no_service(self, storage_on: MakeStorage) -> None:
        with HttpSink(Answer(status=404), Answer(body=b"<html>hello</html>")) as sink:
            storage = storage_on(None, QUICK, endpoint=sink.url(""))
            with pytest.raises(StorageRefused, match="told no UploadId"):
                storage.create("a", TOKEN)


class TestAddress:
    @pytest.mark.parametrize(
        ("given", "environment", "expected"),
        [
            ({"region": "eu-north-7"}, "ap-1", "eu-north-7"),
            ({}, "ap-1", "ap-1"),
            ({}, "", "us-east-1"),
        ],
    )
    def test_region(
        self,
        storage_on: MakeStorage,
        home: object,
        monkeypatch: pytest.MonkeyPatch,
        given: dict[str, Any],
        environment: str,
        expected: str,
    ) -> None:
        if environment:
            monkeypatch.setenv("AWS_DEFAULT_REGION", environment)
        with HttpSink(LISTED) as sink:
            storage_on(None, endpoint=sink.url(""), **given).list("")
            assert f"/{expected}/s3/aws4_request" in sink.received[0].headers["authorization"]

    def test_endpoints_have_the_bucket_in_the_path(self, storage_on: MakeStorage) -> None:
        with HttpSink(LISTED) as sink:
            storage_on(None, endpoint=sink.url("")).list("")
            assert sink.received[0].path.startswith(f"/{BUCKET}?")

    def test_virtual_addressing(
        self, storage_on: MakeStorage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with HttpSink(Answer(status=404)) as sink:
            # As a proxy, since names of buckets are known to no resolver here.
            monkeypatch.setenv("http_proxy", sink.url(""))
            endpoint = "http://s3.example.net"
            storage = storage_on(None, QUICK, endpoint=endpoint, addressing="virtual")
            with pytest.raises(ObjectMissing):
                read(storage, NAME)
            assert sink.received[0].path == f"http://{BUCKET}.s3.example.net/{NAME}"

    @pytest.mark.parametrize(
        ("addressing", "host"),
        [
            ("auto", f"{BUCKET}.s3.eu-north-1.amazonaws.com"),
            ("path", "s3.eu-north-1.amazonaws.com"),
        ],
    )
    def test_amazon(
        self,
        storage_on: MakeStorage,
        monkeypatch: pytest.MonkeyPatch,
        addressing: str,
        host: str,
    ) -> None:
        with HttpSink(Answer(status=403)) as sink:
            monkeypatch.setenv("https_proxy", sink.url(""))
            storage = storage_on(None, QUICK, region="eu-north-1", addressing=addressing)
            with pytest.raises(StorageUnavailable):  # The proxy lets nobody through.
                storage.list("")
            assert (sink.received[0].method, sink.received[0].path) == ("CONNECT", f"{host}:443")


class TestTryingAgain:
    def test_pauses_grow_until_it_works(
        self, storage_on: MakeStorage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        busy = Answer(status=503, body=b"<Error><Code>SlowDown</Code></Error>")
        pauses: list[float] = []

        class Clock:
            """Waits for nothing, and remembers for how long."""

            def __getattr__(self, name: str) -> Any:
                return getattr(asyncio, name)

            async def sleep(self, seconds: float) -> None:
                if seconds:
                    pauses.append(seconds)

        monkeypatch.setattr(service_module, "asyncio", Clock())
        monkeypatch.setattr(service_module.random, "uniform", lambda low, high: (low + high) / 2)
        monkeypatch.setattr(service_module, "SHORT", Patience(seconds=30))
        with HttpSink(busy, busy, busy, busy, LISTED) as sink:
            storage = storage_on(None, endpoint=sink.url(""))
            service = storage._service
            service.run(service.ask, "list_objects_v2", "look", Patience(60, 0.5, 2.0))
            assert len(sink.received) == 5
        assert pauses[:4] == [0.5, 1.0, 2.0, 2.0]

    def test_what_was_refused_is_not_asked_again(self, storage_on: MakeStorage) -> None:
        with HttpSink(Answer(status=403, body=b"<Error><Code>AccessDenied</Code></Error>")) as sink:
            with pytest.raises(StorageDenied):
                storage_on(None, endpoint=sink.url("")).list("")
            assert len(sink.received) == 1


class TestReading:
    def test_a_service_that_knows_no_ranges(self, storage_on: MakeStorage) -> None:
        with HttpSink(Answer(headers={"ETag": "t"}, body=b"0123456789")) as sink:
            storage = storage_on(None, QUICK, endpoint=sink.url(""))
            assert b"".join(storage.open("a")) == b"0123456789"
            with pytest.raises(StorageRefused, match='another part of "a" than it was asked for'):
                list(storage.open("a", 4))


class TestTakingBack:
    def test_an_upload_ends_before_the_look_at_what_became_of_it(
        self, storage_on: MakeStorage
    ) -> None:
        with Recorder() as sink:
            writer = storage_on(None, QUICK, endpoint=sink.url("")).create("a", TOKEN)
            write_parts(writer, 1)
            with pytest.raises(StorageRefused):  # What it stored is not found again.
                writer.commit()
            before = len(sink.received)
            writer.abort()
            asked = [one.method for one in sink.received[before:] if "/a" in one.path]
            assert asked == ["DELETE", "HEAD"]


class TestDeleting:
    @pytest.mark.parametrize(
        ("status", "code"),
        [
            (501, "NotImplemented"),
            (405, "MethodNotAllowed"),
            (400, "MissingContentMD5"),
            (400, "InvalidRequest"),
            (400, "InvalidDigest"),
            (400, "MalformedXML"),
        ],
    )
    def test_a_service_without_requests_for_many(
        self, storage_on: MakeStorage, status: int, code: str
    ) -> None:
        refusal = Answer(status=status, body=f"<Error><Code>{code}</Code></Error>".encode())
        with HttpSink(refusal, Answer(status=204)) as sink:
            storage = storage_on(None, endpoint=sink.url(""))
            storage.delete(["a", "b"])
            storage.delete(["c"])
            requests = [(one.method, one.path) for one in sink.received]
        assert requests[0] == ("POST", f"/{BUCKET}?delete")
        assert sorted(requests[1:]) == [("DELETE", f"/{BUCKET}/{name}") for name in "abc"]

    def test_requests_for_many_carry_the_checksum_of_older_services(
        self, storage_on: MakeStorage
    ) -> None:
        with HttpSink(Answer(body=b"<DeleteResult/>")) as sink:
            storage_on(None, endpoint=sink.url("")).delete(["a", "b"])
            (request,) = sink.received
        assert request.headers["content-md5"] == md5(request.body)
        assert "content-md5" in request.headers["authorization"]

    def test_what_could_not_be_deleted_is_told(self, storage_on: MakeStorage) -> None:
        left = b"<Error><Key>b</Key><Code>AccessDenied</Code><Message>No.</Message></Error>"
        gone = b"<Error><Key>c</Key><Code>NoSuchKey</Code></Error>"
        with HttpSink(Answer(body=b"<DeleteResult>" + gone + left + b"</DeleteResult>")) as sink:
            with pytest.raises(StorageDenied, match='did not permit to delete "b"'):
                storage_on(None, endpoint=sink.url("")).delete(["a", "b", "c"])
            assert len(sink.received) == 1

    def test_a_key_that_may_not_delete_is_not_tried_one_by_one(
        self, storage_on: MakeStorage
    ) -> None:
        with HttpSink(Answer(status=403, body=b"<Error><Code>AccessDenied</Code></Error>")) as sink:
            with pytest.raises(StorageDenied):
                storage_on(None, endpoint=sink.url("")).delete(["a", "b"])
            assert len(sink.received) == 1


def md5(body: bytes) -> str:
    return base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
