"""PostgreSQL: connection strings, programs, the grammar of base backups, archives and manifests."""

from __future__ import annotations

import hashlib
import io
import json
import random
import tarfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg import pq

from pipeline.context import StageContext
from pipeline.errors import SourceError
from schemas.postgres import PostgresPhysicalSource, PostgresSource
from stages.sources._postgres.address import connection_string, environment
from stages.sources._postgres.clients import find
from stages.sources._postgres.dump import beginning_with, ending_with
from stages.sources._postgres.errors import hint_for, said
from stages.sources._postgres_physical.manifest import (
    ManifestCheck,
    algorithm_of,
    origin,
    replaced,
    verify_itself,
)
from stages.sources._postgres_physical.replication import backup_command
from stages.sources._postgres_physical.scan import Scan


def server(**keys: Any) -> PostgresSource:
    return PostgresSource.model_validate({"type": "postgres", **keys})


def physical(**keys: Any) -> PostgresPhysicalSource:
    return PostgresPhysicalSource.model_validate({"type": "postgres_physical", **keys})


class TestAddress:
    @given(st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), min_size=1))
    def test_libpq_reads_what_was_written(self, text: str) -> None:
        spec = server(host="db", user=text, password=text)
        written = connection_string(spec, text, with_password=True)
        parsed = pq.Conninfo.parse(written.encode())
        found = {option.keyword: option.val for option in parsed}
        assert found[b"user"] == found[b"dbname"] == found[b"password"] == text.encode()

    def test_the_password_is_only_in_the_string_for_ourselves(self) -> None:
        spec = server(password="elephant")
        assert "elephant" not in connection_string(spec, "shop")
        assert environment(spec) == {"PGPASSWORD": "elephant"}
        assert environment(server()) == {}

    @pytest.mark.parametrize(
        ("keys", "parts"),
        [
            ({"host": "db.internal"}, ["sslmode='verify-full'", "sslrootcert='/"]),
            ({"host": "127.0.0.1"}, ["sslmode='prefer'"]),
            ({"host": "db", "tls": {"mode": "require"}}, ["sslmode='require'"]),
            ({"host": "db", "tls": {"mode": "off"}}, ["sslmode='disable'"]),
            ({"tls": {"ca": "/ca.pem"}}, ["sslmode='verify-full'", "sslrootcert='/ca.pem'"]),
            (
                {"tls": {"mode": "require", "cert": "/me.pem"}},
                ["sslcert='/me.pem'", "sslkey='/me.pem'"],
            ),
        ],
    )
    def test_tls_in_the_words_of_libpq(self, keys: dict[str, Any], parts: list[str]) -> None:
        written = connection_string(server(**keys), "shop")
        assert all(part in written for part in parts)

    def test_a_unix_socket_knows_no_tls(self) -> None:
        assert "ssl" not in connection_string(server(host="/var/run/postgresql"), "shop")


class TestClients:
    def install(self, folder: Path, version: str) -> str:
        program = folder / f"pg_dump-{version}" / "pg_dump"
        program.parent.mkdir()
        program.write_text(
            f"#!/bin/sh\necho 'pg_dump (PostgreSQL) {version} (Debian {version}-1)'\n"
        )
        program.chmod(0o755)
        return str(program.parent)

    @pytest.mark.parametrize(
        ("server_version", "chosen"), [(150004, "15.9"), (160002, "17.1"), (90624, "13.2")]
    )
    def test_the_same_version_else_the_next_newer_one(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server_version: int, chosen: str
    ) -> None:
        folders = [self.install(tmp_path, each) for each in ("18beta1", "13.2", "17.1", "15.9")]
        monkeypatch.setattr("stages.sources._postgres.clients._FOLDERS", ())
        monkeypatch.setenv("PATH", ":".join([*folders, "/bin"]))
        found = find("pg_dump", server_version, None, StageContext())
        assert found.shown == f"pg_dump {chosen}"

    def test_the_wrapper_of_debian_is_not_taken(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        wrapper = tmp_path / "pg_wrapper"
        Path(self.install(tmp_path, "15.1"), "pg_dump").rename(wrapper)
        (tmp_path / "pg_dump").symlink_to(wrapper)
        monkeypatch.setattr("stages.sources._postgres.clients._FOLDERS", ())
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(SourceError, match='no "pg_dump" for PostgreSQL 15 is installed; '):
            find("pg_dump", 150001, None, StageContext())

    def test_an_older_one_is_refused_and_named(self, tmp_path: Path) -> None:
        folder = self.install(tmp_path, "14.3")
        with pytest.raises(SourceError, match=r"only for 14\.3; install .* postgresql-client-16"):
            find("pg_dump", 160000, folder, StageContext())


class TestBackupCommand:
    def test_options_of_15_and_newer(self) -> None:
        spec = physical(
            label="it's", max_rate="1MiB/s", checkpoint="spread", verify_checksums="off"
        )
        assert backup_command(spec, 150001, increment=True) == (
            "BASE_BACKUP (LABEL 'it''s', CHECKPOINT 'spread', WAL true, WAIT false, "
            "TABLESPACE_MAP true, MANIFEST 'yes', MANIFEST_CHECKSUMS 'CRC32C', "
            "VERIFY_CHECKSUMS false, MAX_RATE 1024, INCREMENTAL true)"
        )

    @pytest.mark.parametrize(
        ("version", "rest"), [(140001, " MANIFEST 'yes' MANIFEST_CHECKSUMS 'CRC32C'"), (120009, "")]
    )
    def test_words_of_older_servers(self, version: int, rest: str) -> None:
        spec = physical(max_rate="32KiB/s")
        assert backup_command(spec, version) == (
            f"BASE_BACKUP LABEL 'nxs-backup' FAST WAL NOWAIT MAX_RATE 32 TABLESPACE_MAP{rest}"
        )

    def test_without_wal_the_archive_is_awaited(self) -> None:
        assert "WAL false, WAIT true" in backup_command(physical(wal=False), 160000)
        assert "WAL" not in backup_command(physical(wal=False), 140000).split()


FILES = {
    "backup_label": b"START\n",
    "base/1/empty": b"",
    "base/1/block": b"x" * 512,
    "base/1/odd": bytes(range(256)) * 9,
    "pg_wal/000000010000000000000001": b"w" * 2000,
    "PG_VERSION": b"15\n",
}


def archive(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as made:
        folder = tarfile.TarInfo("base")
        folder.type = tarfile.DIRTYPE
        made.addfile(folder)
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            made.addfile(info, io.BytesIO(content))
    return out.getvalue()


def manifest(files: dict[str, bytes], algorithm: str = "SHA256", prefix: str = "") -> bytes:
    lines = []
    for name, content in files.items():
        if not name.startswith("pg_wal/"):
            digest = hashlib.new(algorithm.lower(), content).hexdigest()
            lines.append(
                json.dumps({"Path": prefix + name}).replace("{", "{ ", 1)[:-1]
                + f', "Size": {len(content)}, "Last-Modified": "2024-01-01 00:00:00 GMT", '
                + f'"Checksum-Algorithm": "{algorithm}", "Checksum": "{digest}" }}'
            )
    body = '{ "PostgreSQL-Backup-Manifest-Version": 2,\n"System-Identifier": 77,\n"Files": [\n'
    body += ",\n".join(lines)
    body += '\n],\n"WAL-Ranges": [\n{ "Timeline": 3, "Start-LSN": "0/2000028", "End-LSN": "0/3" }\n'
    return sealed((body + "],\n").encode())


def sealed(body: bytes) -> bytes:
    return body + b'"Manifest-Checksum": "%b"}\n' % hashlib.sha256(body).hexdigest().encode()


def scanned(data: bytes, cuts: list[int], tablespace: bytes | None = None) -> tuple[Any, bytes]:
    check = ManifestCheck("sha256")
    scan = Scan(check, tablespace)
    out: list[bytes | memoryview] = []
    for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
        scan.feed(memoryview(data)[start:end], out)
    scan.finish()
    return check, b"".join(out)


class TestScan:
    @given(st.lists(st.integers(0, 9000), max_size=20).map(sorted))
    def test_pieces_of_any_size_give_the_same(self, cuts: list[int]) -> None:
        data = archive(FILES)
        check, out = scanned(data, cuts)
        assert data.startswith(out)
        assert not data[len(out) :].strip(b"\0")
        assert check.verify(manifest(FILES)) == 5

    def test_names_go_into_the_folder_of_their_tablespace(self) -> None:
        long = "PG_15_202209061/" + "9" * 80
        check, out = scanned(archive({long: b"abc"}), [100, 700], b"16385")
        with tarfile.open(fileobj=io.BytesIO(out + bytes(1024))) as made:
            assert made.getnames() == ["tablespaces/16385/base", f"tablespaces/16385/{long}"]
        assert check.verify(manifest({long: b"abc"}, prefix="pg_tblspc/16385/")) == 1

    @pytest.mark.parametrize("left", [1, 511, 513, 2000])
    def test_an_archive_that_ends_early_is_cut_off(self, left: int) -> None:
        whole = archive({"base/1/one": b"x" * 3000})
        end = whole.index(b"base/1/one") + 512 + left - left % 3
        with pytest.raises(SourceError, match="cut off"):
            scanned(whole[:end], [])

    def test_a_header_that_was_changed_is_damaged(self) -> None:
        data = bytearray(archive(FILES))
        data[3] ^= 1
        with pytest.raises(SourceError, match="damaged"):
            scanned(bytes(data), [])


class TestManifest:
    @pytest.mark.parametrize(
        ("files", "said"),
        [
            ({**FILES, "base/1/odd": b"y" * 2304}, '"base/1/odd" is not what'),
            ({**FILES, "base/1/empty": b"1"}, '"base/1/empty" is not what'),
            ({name: FILES[name] for name in list(FILES)[1:]}, '"backup_label" is not what'),
            ({**FILES, "more": b""}, "1 files of the backup are not in its manifest"),
        ],
        ids=["content", "size", "missing", "more"],
    )
    def test_every_difference_is_found(self, files: dict[str, bytes], said: str) -> None:
        check, _ = scanned(archive(files), [])
        with pytest.raises(SourceError, match=said):
            check.verify(manifest(FILES))

    def test_any_byte_of_it_that_changes_is_found(self) -> None:
        whole = manifest(FILES)
        verify_itself(whole)
        for place in random.Random(5).sample(range(len(whole) - 5), 40):
            changed = bytearray(whole)
            changed[place] ^= 1
            with pytest.raises(SourceError, match="damaged"):
                verify_itself(bytes(changed))
        with pytest.raises(SourceError, match="damaged"):
            verify_itself(whole[: len(whole) // 2])

    def test_other_checksums_than_asked_for_are_refused(self) -> None:
        check, _ = scanned(archive(FILES), [])
        with pytest.raises(SourceError, match=r"of the kind sha512; expected sha256"):
            check.verify(manifest(FILES, "SHA512"))

    def test_a_file_with_another_content_is_told_to_it(self) -> None:
        changed = replaced(manifest(FILES), "backup_label", b"OTHER")
        check, _ = scanned(archive({**FILES, "backup_label": b"OTHER"}), [])
        assert check.verify(changed) == 5
        assert algorithm_of(changed) == "sha256"

    def test_crc_32c_as_in_rfc_3720(self) -> None:
        hasher = ManifestCheck("crc32c").hasher()
        assert hasher is not None
        hasher.update(memoryview(b"1234"))
        hasher.update(memoryview(b"56789"))
        assert hasher.hexdigest() == (0xE3069283).to_bytes(4, "little").hex()

    def test_what_the_next_increment_needs_to_know(self) -> None:
        found = origin(manifest(FILES))
        assert (found.system, found.timeline, found.start) == ("77", "3", "0/2000028")


class TestMessages:
    @pytest.mark.parametrize(
        ("text", "shown"),
        [
            (
                'connection to server at "127.0.0.1", port 5432 failed: FATAL:  no entry.\n',
                'at "127.0.0.1", port 5432: no entry',
            ),
            ("ERROR:  it is full.\n", "it is full"),
            (
                "server closed the connection unexpectedly\n\tThis probably means the server "
                "terminated abnormally\n\tbefore or while processing the request.\n",
                "server closed the connection unexpectedly",
            ),
            ("", "no reason given"),
        ],
    )
    def test_one_line_in_our_style(self, text: str, shown: str) -> None:
        assert said(text) == shown

    def test_a_hint_where_one_is_known(self) -> None:
        assert hint_for("FATAL: password authentication failed for user") is not None
        assert hint_for("disk quota exceeded") is None


@pytest.mark.parametrize("size", [1, 3, 4096])
def test_a_stream_must_begin_and_end_as_it_should(size: int) -> None:
    data = b"PGDMP" + bytes(9000) + b"the end\n"
    chunks = [data[at : at + size] for at in range(0, len(data), size)]
    assert b"".join(beginning_with(b"PGDMP", iter(chunks), "it")) == data
    assert b"".join(ending_with(b"the end", iter(chunks), "it")) == data
    with pytest.raises(SourceError, match="is not it"):
        list(beginning_with(b"PGDMX", iter(chunks), "it"))
    with pytest.raises(SourceError, match="lacks its end mark"):
        list(ending_with(b"the end", iter(chunks[:-8]), "it"))
