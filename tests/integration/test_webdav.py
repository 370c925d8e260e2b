"""WebDAV against real servers: logins, trust, redirections, names, reading, rights, answers."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from pipeline.errors import StorageDenied, StorageRefused, StorageUnavailable
from pipeline.stage import CHUNK
from pipeline.tryout import try_out
from tests.contracts.storage_subject import NAME, TOKEN, everything, names, put, read
from tests.integration.webdav_storage import HASTY, MakeStorage, WebdavTests, works
from tests.servers import webdav
from tests.servers.base import HOST, free_port
from tests.servers.http import Answer, HttpSink, self_signed
from tests.servers.proxy import Proxy
from tests.servers.webdav import PASSWORD, USER, Apache, Nginx

_CLOSE = {"connection": "close"}
_ELSEWHERE = "sends us elsewhere"
_QUOTA = b"""<?xml version="1.0"?><D:multistatus xmlns:D="DAV:"><D:response><D:href>/x/</D:href>
<D:propstat><D:prop><D:resourcetype><D:collection/></D:resourcetype>
<D:quota-available-bytes>3221225472</D:quota-available-bytes></D:prop>
<D:status>HTTP/1.1 200 OK</D:status></D:propstat></D:response></D:multistatus>"""
_BOMB = b"""<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]>
<D:multistatus xmlns:D="DAV:"><D:response><D:href>&b;</D:href></D:response></D:multistatus>"""


class TestLogin(WebdavTests):
    @pytest.mark.parametrize(
        ("path", "auth", "scheme"),
        [
            ("a", "auto", "basic"),
            ("b", "basic", "basic"),
            ("digest/a", "auto", "digest"),
            ("digest/b", "digest", "digest"),
        ],
    )
    def test_user_and_password(
        self, apache: Apache, storage_at: MakeStorage, path: str, auth: str, scheme: str
    ) -> None:
        storage = storage_at(apache.url(path), auth=auth)
        assert works(storage)
        assert f", {scheme} authentication" in storage.probe()[0]

    @pytest.mark.parametrize("path", ["a", "digest/c"])
    def test_a_wrong_password(self, apache: Apache, storage_at: MakeStorage, path: str) -> None:
        with pytest.raises(StorageRefused, match="refused the login") as caught:
            storage_at(apache.url(path), password="Wr0ng word").list("")
        assert "Wr0ng" not in str(caught.value)

    def test_a_password_is_not_given_to_who_asks_for_less_than_a_digest(
        self, storage_at: MakeStorage
    ) -> None:
        challenge = {"www-authenticate": 'Basic realm="x"', **_CLOSE}
        with HttpSink(Answer(401, challenge)) as sink:
            with pytest.raises(StorageRefused, match="digest authentication"):
                storage_at(sink.url("/x"), auth="digest").list("")
            assert not any("authorization" in request.headers for request in sink.received)

    def test_a_user_of_any_letters(self, storage_at: MakeStorage) -> None:
        challenge = {"www-authenticate": 'Digest realm="x", nonce="n", qop="auth"', **_CLOSE}
        with HttpSink(Answer(401, challenge), Answer(404)) as sink:
            assert storage_at(sink.url("/x"), user="jürgen 日本").list("") == []
            assert "jÃ¼rgen" in sink.received[1].headers["authorization"]

    def test_a_digest_that_goes_stale_before_the_upload(
        self, apache: Apache, storage_at: MakeStorage
    ) -> None:
        storage = storage_at(apache.url("digest/stale"))
        content = os.urandom(3 * CHUNK)
        writer = storage.create(NAME, TOKEN)
        time.sleep(2.1)  # Nonces last a second.
        writer.write(content)
        writer.flush()
        time.sleep(2.1)
        writer.commit()
        assert read(storage, NAME) == content

    def test_bearer(self, apache: Apache, storage_at: MakeStorage) -> None:
        login = {"user": None, "password": None}
        assert works(storage_at(apache.url("token/a"), token=webdav.TOKEN, **login))
        with pytest.raises(StorageRefused, match="check token") as caught:
            storage_at(apache.url("token/a"), token="another-token", **login).list("")
        assert "another-token" not in str(caught.value)


class TestTrust(WebdavTests):
    def test_our_own_authority(self, apache: Apache, storage_at: MakeStorage) -> None:
        assert works(storage_at(apache.tls_url("x"), tls={"ca": str(apache.ca)}))

    def test_an_unknown_authority(self, apache: Apache, storage_at: MakeStorage) -> None:
        with pytest.raises(StorageRefused, match="is not trusted: self-signed"):
            storage_at(apache.tls_url("x"), tls={"mode": "verify"}).list("")

    def test_an_unchecked_certificate_is_told(
        self, apache: Apache, storage_at: MakeStorage
    ) -> None:
        facts = storage_at(apache.tls_url("x"), tls={"mode": "require"}).probe()
        assert any(fact.startswith("warning: the certificate is not checked") for fact in facts)

    def test_our_own_certificate(self, apache: Apache, storage_at: MakeStorage) -> None:
        url = f"https://{HOST}:{apache.strict_port}/x"
        tls = {"ca": str(apache.ca)}
        ours = {"cert": str(apache.ca), "key": str(apache.key)}
        assert works(storage_at(url, tls={**tls, **ours}))
        with pytest.raises(StorageRefused, match="certificate of ours"):
            storage_at(url, tls=tls).list("")

    def test_tls_where_there_is_none(self, apache: Apache, storage_at: MakeStorage) -> None:
        with pytest.raises(StorageRefused, match="does not speak TLS"):
            storage_at(f"https://{HOST}:{apache.port}/x").list("")


class TestRedirections(WebdavTests):
    def test_a_collection_that_was_moved(self, apache: Apache, storage_at: MakeStorage) -> None:
        storage = storage_at(apache.url("moved/there"))
        put(storage, NAME, [b"content"])
        assert (apache.data / "there" / NAME).read_bytes() == b"content"
        assert works(storage_at(apache.url("moved/there/too")))

    def test_from_http_to_https(self, apache: Apache, storage_at: MakeStorage) -> None:
        with HttpSink(Answer(308, {"location": apache.tls_url("x/")})) as sink:
            storage = storage_at(sink.url("/x"), tls={"ca": str(apache.ca)})
            assert storage.list("") == []
            assert works(storage)
            assert len(sink.received) == 1

    @pytest.mark.parametrize("location", ["http://localhost:{}/x/", "http://127.0.0.1:{}/x/"])
    def test_nobody_else_gets_the_password(self, storage_at: MakeStorage, location: str) -> None:
        with HttpSink() as other:
            answer = Answer(302, {"location": location.format(other.port)})
            with HttpSink(answer) as sink, pytest.raises(StorageRefused, match=_ELSEWHERE):
                storage_at(sink.url("/x"), auth="basic").list("")
            assert other.received == []

    def test_not_from_https_to_http(
        self, apache: Apache, storage_at: MakeStorage, tmp_path: Path
    ) -> None:
        answer = Answer(302, {"location": apache.url("x/")})
        sink = HttpSink(answer, certificate=self_signed(tmp_path))
        with sink, pytest.raises(StorageRefused, match=_ELSEWHERE):
            storage_at(sink.url("/x")).list("")

    def test_a_page_to_sign_in(self, apache: Apache, storage_at: MakeStorage) -> None:
        with pytest.raises(StorageRefused, match=_ELSEWHERE):
            storage_at(apache.url("login/x")).list("")

    def test_a_circle(self, storage_at: MakeStorage) -> None:
        sink = HttpSink(Answer(302, {"location": "/x/", **_CLOSE}))
        with sink, pytest.raises(StorageRefused, match=_ELSEWHERE):
            storage_at(sink.url("/x")).list("")

    def test_behind_a_proxy_that_ends_tls(self, apache: Apache, storage_at: MakeStorage) -> None:
        more = f"ProxyPreserveHost On\nProxyPass / http://{HOST}:{apache.port}/\n"
        with Apache(more) as front:
            storage = storage_at(front.tls_url("behind"), tls={"ca": str(front.ca)})
            put(storage, NAME, [b"content"])
            assert (apache.data / "behind" / NAME).read_bytes() == b"content"


class TestNames(WebdavTests):
    ODD = "a#b?c%20d&e=f;g+h ü日本~[x].zst"

    @pytest.mark.parametrize("kind", ["apache", "nginx"])
    def test_curl_reads_what_we_wrote_and_the_other_way_round(
        self, request: pytest.FixtureRequest, storage_at: MakeStorage, kind: str, tmp_path: Path
    ) -> None:
        server: Apache | Nginx = request.getfixturevalue(kind)
        storage = storage_at(server.url("odd names/100%"))
        content = os.urandom(CHUNK)
        put(storage, f"shop/{self.ODD}", [content])
        assert (server.data / "odd names" / "100%" / "shop" / self.ODD).read_bytes() == content
        url = server.url(quote(f"odd names/100%/shop/{self.ODD}"))
        curl = ["curl", "-sSf", "--user", f"{USER}:{PASSWORD}"]
        assert subprocess.run([*curl, url], stdout=-1, check=True).stdout == content

        (tmp_path / "file").write_bytes(b"of curl")
        subprocess.run([*curl, "-T", str(tmp_path / "file"), f"{url}-2"], check=True)
        assert names(storage) == [f"shop/{self.ODD}", f"shop/{self.ODD}-2"]
        assert read(storage, f"shop/{self.ODD}-2") == b"of curl"

    def test_unfinished_objects_have_names_that_servers_take_and_show(
        self, nginx: Nginx, storage_at: MakeStorage
    ) -> None:
        storage = storage_at(nginx.url("unfinished"))
        writer = storage.create(NAME, TOKEN)
        found = [path.name for path in (nginx.data / "unfinished").rglob("*") if path.is_file()]
        assert [(name[0] == ".", name.endswith(".part")) for name in found] == [(False, False)]
        writer.abort()

    def test_a_collection_is_not_deleted_for_an_object(
        self, apache: Apache, storage_at: MakeStorage
    ) -> None:
        storage = storage_at(apache.url("kept"))
        put(storage, NAME, [b"content"])
        with pytest.raises(StorageRefused, match="collection; it is left alone"):
            storage.delete(["shop"])
        assert names(storage) == [NAME]

    def test_the_probe_leaves_no_collection(self, apache: Apache, storage_at: MakeStorage) -> None:
        storage = storage_at(apache.url("probed"))
        try_out(storage)
        assert list((apache.data / "probed").iterdir()) == []


class TestReading(WebdavTests):
    @pytest.mark.parametrize("offset", [0, 1, 3 * CHUNK, 5 * CHUNK + 17])
    def test_a_server_without_ranges(self, storage_at: MakeStorage, offset: int) -> None:
        content = os.urandom(5 * CHUNK + 17)
        with Apache("RequestHeader unset Range\n") as server:
            storage = storage_at(server.url("x"))
            put(storage, NAME, [content])
            assert b"".join(storage.open(NAME, offset)) == content[offset:]
            with pytest.raises(StorageRefused, match="ended early"):
                list(storage.open(NAME, len(content) + 1))

    def test_a_download_goes_on_after_cuts(self, apache: Apache, storage_at: MakeStorage) -> None:
        content = os.urandom(24 * CHUNK)
        put(storage_at(apache.url("cut")), NAME, [content])
        with Proxy(apache.port) as proxy:
            chunks = storage_at(f"http://{HOST}:{proxy.port}/cut").open(NAME, 5)
            found = [next(chunks)]
            for _ in range(3):
                proxy.cut()
                found.append(next(chunks))
            found += chunks
        assert b"".join(found) == content[5:]

    def test_content_that_is_said_to_be_encoded_comes_as_it_lies_there(
        self, storage_at: MakeStorage
    ) -> None:
        with Apache('Header set Content-Encoding "gzip"\n') as server:
            storage = storage_at(server.url("x"))
            put(storage, NAME, [b"content"])
            assert read(storage, NAME) == b"content"


class TestRights(WebdavTests):
    def test_who_may_only_write_can_write(self, storage_at: MakeStorage) -> None:
        rules = "<Location /drop>\n<LimitExcept PUT MOVE MKCOL>\nRequire all denied\n"
        with Apache(rules + "</LimitExcept>\n</Location>\n") as server:
            storage = storage_at(server.url("drop"))
            rights = try_out(storage)
            assert rights.can == ("written",)
            assert set(rights.denied) == {"listed", "read", "deleted", "swept"}
            with pytest.raises(StorageDenied):
                storage.list("")
            put(storage, NAME, [os.urandom(CHUNK)])
            with pytest.raises(StorageRefused, match="already exists"):
                put(storage, NAME, [b"other"])

    def test_a_collection_that_is_not_ours(self, apache: Apache, storage_at: MakeStorage) -> None:
        with pytest.raises(StorageDenied, match="did not permit"):
            storage_at(apache.url("read-only")).create(NAME, TOKEN)


class TestAnswers(WebdavTests):
    def test_the_quota_is_told(self, storage_at: MakeStorage) -> None:
        with HttpSink(Answer(207, {}, _QUOTA)) as sink:
            assert "3.0 GiB left of the quota" in storage_at(sink.url("/x")).probe()

    @pytest.mark.parametrize(
        ("answer", "message"),
        [
            (Answer(207, {}, _BOMB), "declares a document type"),
            (Answer(207, {}, b"<html></html>"), "is no multistatus"),
            (Answer(207, {}, _QUOTA), "lists another place"),
            (Answer(200, {}, b"<html></html>"), "200 ok"),
            (Answer(405), "does not speak WebDAV"),
            (Answer(manner="garbage"), "does not speak HTTP"),
        ],
    )
    def test_a_server_that_makes_no_sense(
        self, storage_at: MakeStorage, answer: Answer, message: str
    ) -> None:
        with HttpSink(answer) as sink, pytest.raises(StorageRefused, match=message):
            storage_at(sink.url("/another"), HASTY).list("")

    @pytest.mark.parametrize(
        "answer", [Answer(503), Answer(429, {"retry-after": "3600"}), Answer(manner="close")]
    )
    def test_a_server_that_may_come_to_its_senses(
        self, storage_at: MakeStorage, answer: Answer
    ) -> None:
        with HttpSink(answer) as sink, pytest.raises(StorageUnavailable, match=HOST):
            storage_at(sink.url("/x"), HASTY).list("")

    def test_a_server_that_is_busy_is_asked_again(self, storage_at: MakeStorage) -> None:
        with HttpSink(Answer(503), Answer(429), Answer(404)) as sink:
            assert everything(storage_at(sink.url("/x"))) == []

    def test_nobody_at_home(self, storage_at: MakeStorage) -> None:
        with pytest.raises(StorageUnavailable, match="cannot be reached: connection refused"):
            storage_at(f"http://{HOST}:{free_port()}/x", HASTY).list("")

    def test_no_hope_in_asking_again(self, storage_at: MakeStorage) -> None:
        refused: dict[int, Any] = {404: None, 403: StorageDenied, 410: StorageRefused}
        for status, kind in refused.items():
            with HttpSink(Answer(status)) as sink:
                storage = storage_at(sink.url("/x"))
                if kind is None:
                    assert storage.list("") == []
                else:
                    with pytest.raises(kind):
                        storage.list("")
                assert len(sink.received) == 1
