"""S3 against a real server: who may come in, and whom we trust."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ObjectMissing, StorageRefused, StorageUnavailable
from tests.contracts.storage_subject import NAME, TOKEN, read
from tests.integration.s3_storage import (
    QUICK,
    MakeStorage,
    empty,
    home,
    server,
    storage_on,
    works,
    write_parts,
)
from tests.servers.base import HOST, free_port
from tests.servers.http import Answer, HttpSink, self_signed
from tests.servers.s3 import (
    ACCESS_KEY,
    SECRET_KEY,
    USER_KEY,
    USER_SECRET,
    Versitygw,
    scratch,
)

__all__ = ["empty", "home", "server", "storage_on"]

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


class TestLogin:
    def test_wrong_secret_key(self, server: Versitygw, storage_on: MakeStorage) -> None:
        storage = storage_on(server, secret_key="wr0ng secret")
        for call in (lambda: storage.create(NAME, TOKEN), lambda: storage.list("")):
            with pytest.raises(StorageRefused, match="check secret_key") as caught:
                call()
            assert "wr0ng" not in f"{caught.value} {caught.value.__cause__!r}"

    def test_unknown_access_key(self, server: Versitygw, storage_on: MakeStorage) -> None:
        with pytest.raises(StorageRefused, match="does not know the access key"):
            storage_on(server, access_key="AKIANOBODY").list("")

    def test_no_credentials(self, server: Versitygw, storage_on: MakeStorage, home: Path) -> None:
        with pytest.raises(StorageRefused, match="no credentials found"):
            storage_on(server, **NO_KEYS).create(NAME, TOKEN)

    def test_environment(
        self,
        server: Versitygw,
        storage_on: MakeStorage,
        home: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
        assert works(storage_on(server, **NO_KEYS))

    def test_profile(self, server: Versitygw, storage_on: MakeStorage, home: Path) -> None:
        (home / ".aws" / "credentials").write_text(
            f"[nightly]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n"
        )
        assert works(storage_on(server, profile="nightly", **NO_KEYS))
        with pytest.raises(StorageRefused, match="profile does not exist"):
            storage_on(server, profile="weekly", **NO_KEYS).list("")

    def test_role_of_the_instance(
        self,
        server: Versitygw,
        storage_on: MakeStorage,
        home: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        until = datetime.now(timezone.utc) + timedelta(hours=1)
        granted = {
            "Code": "Success",
            "AccessKeyId": ACCESS_KEY,
            "SecretAccessKey": SECRET_KEY,
            "Token": "",
            "Expiration": until.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        answers = [b"a token", b"the-role", json.dumps(granted).encode()]
        with HttpSink(*(Answer(body=body) for body in answers)) as metadata:
            monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "false")
            monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", metadata.url())
            assert works(storage_on(server, **NO_KEYS))
            assert [request.method for request in metadata.received] == ["PUT", "GET", "GET"]

    def test_files_of_the_user_are_not_read_when_keys_are_given(
        self,
        server: Versitygw,
        storage_on: MakeStorage,
        home: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        for name in ("config", "credentials"):
            (home / ".aws" / name).write_text("this cannot be parsed")
        monkeypatch.setenv("AWS_PROFILE", "unknown")
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{HOST}:{free_port()}")
        assert works(storage_on(server))

    def test_session_token_is_sent(self, storage_on: MakeStorage) -> None:
        with HttpSink(Answer(status=404)) as sink:
            storage = storage_on(None, endpoint=sink.url(""), session_token="temp0rary")
            with pytest.raises(ObjectMissing):
                read(storage, NAME)
            assert sink.received[0].headers["x-amz-security-token"] == "temp0rary"

    def test_missing_bucket(self, server: Versitygw, storage_on: MakeStorage) -> None:
        storage = storage_on(server, bucket="nowhere")
        for call in (lambda: storage.create(NAME, TOKEN), lambda: storage.list(""), storage.probe):
            with pytest.raises(StorageRefused, match='bucket "nowhere" does not exist'):
                call()


@pytest.fixture(scope="module")
def files() -> Iterator[Path]:
    directory = scratch()
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def secure(files: Path) -> Iterator[Versitygw]:
    with Versitygw(certificate=self_signed(files)) as server:
        yield server


class TestConnection:
    def test_tls(self, secure: Versitygw, storage_on: MakeStorage) -> None:
        storage = storage_on(secure, tls={"ca": str(secure.certificate)})
        assert works(storage)
        writer = storage.create(NAME, TOKEN)
        content = write_parts(writer, 3)
        writer.commit()
        assert read(storage, NAME) == content
        storage.delete([NAME])

    def test_unknown_authority(self, secure: Versitygw, storage_on: MakeStorage) -> None:
        storage = storage_on(secure, tls={"mode": "verify"})
        with pytest.raises(StorageRefused, match=r"is not trusted.* set tls\.ca"):
            storage.list("")

    def test_certificate_for_another_host(self, files: Path, storage_on: MakeStorage) -> None:
        (files / "other").mkdir()
        server = Versitygw(certificate=self_signed(files / "other", "192.0.2.1"))
        server.start()
        with ExitStack() as stack:
            stack.callback(server.stop)
            storage = storage_on(server, tls={"mode": "verify", "ca": str(server.certificate)})
            with pytest.raises(StorageRefused, match="is not trusted"):
                storage.list("")

    def test_loopback_needs_no_authority(self, secure: Versitygw, storage_on: MakeStorage) -> None:
        assert works(storage_on(secure))

    def test_unusable_ca_file(self, secure: Versitygw, storage_on: MakeStorage) -> None:
        with pytest.raises(StorageRefused, match='"/no/such/file" cannot be read'):
            storage_on(secure, tls={"ca": "/no/such/file"}).list("")

    def test_refused(self, storage_on: MakeStorage) -> None:
        endpoint = f"http://{HOST}:{free_port()}"
        with pytest.raises(StorageUnavailable, match="cannot reach"):
            storage_on(None, endpoint=endpoint).create(NAME, TOKEN)

    def test_silent_server(self, storage_on: MakeStorage) -> None:
        with socket.create_server((HOST, 0)) as silent:
            endpoint = f"http://{HOST}:{silent.getsockname()[1]}"
            storage = storage_on(None, QUICK, endpoint=endpoint, timeout="300ms")
            with pytest.raises(StorageUnavailable, match="stands still"):
                storage.list("")

    def test_not_an_s3_server(self, storage_on: MakeStorage) -> None:
        with HttpSink(Answer(manner="garbage")) as sink:
            storage = storage_on(None, QUICK, endpoint=sink.url(""))
            with pytest.raises(StorageUnavailable):
                storage.list("")
        with HttpSink(Answer(body=b"<html>hello</html>")) as sink:
            assert storage_on(None, endpoint=sink.url("")).list("") == []
