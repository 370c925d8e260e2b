"""WebDAV without a server: addresses, names, multistatus bodies of all kinds, challenges."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from pipeline.naming import part_name
from schemas.storages import WebdavStorage
from stages.storages._webdav.login import Login
from stages.storages._webdav.multistatus import Entry, NotUnderstood, parse
from stages.storages._webdav.names import Address, from_server, on_server, quoted, unquoted

TOKEN = "01234567-20261123T031500Z-abcdef"
_HEAD = b'<?xml version="1.0" encoding="utf-8"?>'


def multistatus(*responses: str) -> bytes:
    return _HEAD + f'<d:multistatus xmlns:d="DAV:">{"".join(responses)}</d:multistatus>'.encode()


def response(href: str, properties: str, status: str = "HTTP/1.1 200 OK") -> str:
    stated = f"<d:prop>{properties}</d:prop><d:status>{status}</d:status>"
    return f"<d:response><d:href>{href}</d:href><d:propstat>{stated}</d:propstat></d:response>"


class TestMultistatus:
    def test_in_pieces_of_one_byte(self) -> None:
        body = multistatus(
            response("/dav/a%20b/", "<d:resourcetype><d:collection/></d:resourcetype>"),
            response("http://h:1/dav/%C3%BC%23", "<d:getcontentlength>17</d:getcontentlength>"),
        )
        assert parse(body[at : at + 1] for at in range(len(body))) == [
            Entry(b"/dav/a b", is_collection=True, size=None),
            Entry("/dav/ü#".encode(), is_collection=False, size=17),
        ]

    def test_other_prefixes_and_other_properties(self) -> None:
        body = (
            b'<multistatus xmlns="DAV:" xmlns:x="urn:x"><response><href>/a</href><propstat><prop>'
            b"<x:getcontentlength>99</x:getcontentlength><x:collection/>"
            b"<getcontentlength> 5 </getcontentlength><resourcetype/></prop>"
            b"<status>HTTP/1.1 200 OK</status></propstat></response></multistatus>"
        )
        assert parse([body]) == [Entry(b"/a", is_collection=False, size=5)]

    def test_what_is_not_found_does_not_count(self) -> None:
        body = multistatus(
            response("/a", "<d:getcontentlength>7</d:getcontentlength>", "HTTP/1.1 404 Not Found"),
            "<d:response><d:href>/b</d:href><d:status>HTTP/1.1 403 Forbidden</d:status>"
            "</d:response>",
        )
        assert parse([body]) == [Entry(b"/a", is_collection=False, size=None)]

    def test_quota(self) -> None:
        left = "<d:quota-available-bytes>1000</d:quota-available-bytes>"
        assert parse([multistatus(response("/a/", left))])[0].available == 1000

    @pytest.mark.parametrize(
        ("body", "reason"),
        [
            (
                _HEAD + b'<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><x>&b;</x>',
                "document type",
            ),
            (
                _HEAD + b'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><x>&a;</x>',
                "document type",
            ),
            (b"<html/>", "no multistatus"),
            (b"", "no element found"),
            (b"<multistatus/>", "no multistatus"),
            (multistatus("<d:response></d:response>"), "lacks an address"),
            (multistatus("<x>" * 100 + "</x>" * 100), "nested too deeply"),
            (multistatus(response("/" + "a" * 100_000, "")), "text without end"),
            (multistatus(response("/a", ""))[:-20], "no element found|unclosed"),
            (b"\xff\xfe\x00", "not well-formed|no element|unclosed"),
        ],
    )
    def test_refused(self, body: bytes, reason: str) -> None:
        with pytest.raises(NotUnderstood, match=reason):
            parse([body])


class TestNames:
    @pytest.mark.parametrize("name", ["a", "shop/crm/x.sql", "a.partial", "ü/.b.part"])
    def test_objects_keep_theirs(self, name: str) -> None:
        assert on_server(name) == name
        assert from_server(name) == name

    @pytest.mark.parametrize("name", ["a", "shop/crm/x.sql"])
    def test_unfinished_ones_do_not(self, name: str) -> None:
        part = part_name(name, TOKEN)
        there = on_server(part)
        assert there == f"{name}.{TOKEN}.partial"
        assert from_server(there) == part

    @pytest.mark.parametrize("name", ["a b", "a#?%20&", "日本", "x\udcff\n", "~-._"])
    def test_quoting_goes_both_ways(self, name: str) -> None:
        assert quoted(name).isascii()
        assert unquoted("/" + quoted(name)) == b"/" + name.encode("utf-8", "surrogateescape")


class TestAddress:
    @pytest.mark.parametrize(
        ("url", "origin", "path"),
        [
            ("https://h", "https://h", "/"),
            ("https://h:443/a", "https://h", "/a/"),
            ("http://H:8080/a b/%C3%BC/100%/", "http://h:8080", "/a%20b/%C3%BC/100%25/"),
            ("http://[::1]:80/ü", "http://[::1]", "/%C3%BC/"),
            ("https://müller.example/", "https://xn--mller-kva.example", "/"),
        ],
    )
    def test_parts(self, url: str, origin: str, path: str) -> None:
        address = Address.parse(url)
        assert (address.origin, address.path) == (origin, path)

    def test_collections_above(self) -> None:
        address = Address.parse("http://h/a/b/c")
        assert [address.above(levels) for levels in range(5)] == [
            "/a/b/c/",
            "/a/b/",
            "/a/",
            "/",
            "/",
        ]

    @pytest.mark.parametrize(
        "url",
        [
            *("ftp://h/", "https://", "http://user:secret@h/", "http://h:0/", "http://h:x/"),
            *("http://h:99999/", "http://h/?q", "http://h/#x", "h/a", "http://h\n/"),
        ],
    )
    def test_refused(self, url: str) -> None:
        with pytest.raises(ValidationError, match="must be the address of a collection") as caught:
            WebdavStorage(type="webdav", url=url)
        assert "secret" not in str(caught.value)

    @pytest.mark.parametrize(
        ("keys", "message"),
        [
            ({"token": "a b"}, "must be a bearer token"),
            ({"token": "a\r\nx: y"}, "must be a bearer token"),
            ({"token": "a", "user": "b"}, "exclude each other"),
            ({"password": "a"}, "password needs user"),
            ({"auth": "digest"}, "auth has no use"),
            ({"tls": {"mode": "off"}}, "needs TLS"),
        ],
    )
    def test_keys_that_do_not_fit(self, keys: dict[str, object], message: str) -> None:
        with pytest.raises(ValidationError, match=message):
            WebdavStorage.model_validate({"type": "webdav", "url": "https://h/a", **keys})


class TestChallenges:
    URL = "http://h/a"
    SHA = 'Digest realm="x", nonce="n", algorithm=SHA-256, qop="auth"'
    UNKNOWN = 'Digest realm="x", nonce="n", algorithm=SHA-512-256, qop="auth"'
    BASIC = 'Basic realm="x"'

    def login(self, **more: object) -> Login:
        keys = {"type": "webdav", "url": self.URL, "user": "u", "password": "p", **more}
        return Login(WebdavStorage.model_validate(keys))

    @pytest.mark.parametrize(
        ("challenges", "scheme"),
        [
            ([BASIC], "basic"),
            ([BASIC, SHA], "digest"),
            ([UNKNOWN, SHA], "digest"),
            ([UNKNOWN, BASIC], "basic"),
            (["Negotiate, " + BASIC], "basic"),
            (["Negotiate"], None),
            ([], None),
        ],
    )
    def test_the_strongest_that_we_know(self, challenges: list[str], scheme: str | None) -> None:
        login = self.login()
        assert login.header("GET", self.URL) is None
        assert login.learn("GET", self.URL, None, challenges) == (scheme is not None)
        assert login.scheme == scheme
        header = login.header("GET", self.URL) or ""
        assert header.split(" ")[0].lower() == (scheme or "")

    def test_no_second_try_with_the_same_words(self) -> None:
        login = self.login()
        assert login.learn("GET", self.URL, None, [self.SHA])
        said = login.header("GET", self.URL)
        assert not login.learn("GET", self.URL, said, [self.SHA])
        assert login.learn("GET", self.URL, said, [self.SHA + ", stale=TRUE"])
        assert not login.learn("GET", self.URL, said, [self.BASIC])
