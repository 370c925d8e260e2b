"""Files that load: what they become, and how their scalars are read."""

from __future__ import annotations

import os
import textwrap
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from schemas.document import parse, plain
from schemas.load import load
from schemas.problems import Problems, nearest, show_path
from schemas.sources import CommandSource
from schemas.storages import LocalStorage, SftpStorage
from tests.unit.config_folder import MINIMAL, Folder


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    monkeypatch.chdir(tmp_path)
    return Folder(tmp_path)


def values(text: str) -> Any:
    problems = Problems()
    node = parse(textwrap.dedent(text).encode(), "file.yaml", problems)
    assert not problems.sorted()
    assert node is not None
    return plain(node)


def test_a_whole_file_is_loaded(folder: Folder) -> None:
    folder.write("secret", "s3cret-key\n")
    loaded = folder.load(
        """
        # yaml-language-server: $schema=./pipeline.schema.json
        name: shop
        host: ${HOSTNAME:-web-1}
        storages:
          nas:
            type: sftp
            host: nas.internal
            user: backup
            password: ${file:secret}
            path: /srv/backups
          hdd: {type: local, path: ${HDD}}
        notifiers:
          ops: {type: webhook, url: "${HOOK}", level: warning}
        defaults:
          stages: [{type: zstd}]
          notify: [ops]
        backups:
          crm-db:
            source: {type: command, command: [dump, --all], env: {PASSWORD: ${DB_PASSWORD}}}
            fan_out:
              - storage: nas
                rotate: {daily: 7, within: 30d}
              - storage: hdd
                stages: [{type: throttle, rate: 20MiB/s}]
                required: false
            schedule: "15 3 * * *"
        """,
        {"HDD": "/mnt", "HOOK": "https://hooks.example.net/T0/B1", "DB_PASSWORD": "db-pass"},
    )
    pipeline = loaded.pipeline
    assert (pipeline.name, pipeline.host) == ("shop", "web-1")
    assert pipeline.storages["nas"] == SftpStorage(
        type="sftp",
        host="nas.internal",
        user="backup",
        password=SecretStr("s3cret-key"),
        path="/srv/backups",
    )
    assert pipeline.storages["hdd"] == LocalStorage(type="local", path="/mnt")
    backup = pipeline.backup("crm-db")
    assert isinstance(backup.source, CommandSource)
    assert backup.source.command == ["dump", "--all"]
    assert backup.source.env["PASSWORD"].get_secret_value() == "db-pass"
    assert [stage.type for stage in backup.stages] == ["zstd"]
    assert backup.notify == ["ops"]
    assert [branch.storage for branch in backup.fan_out] == ["nas", "hdd"]
    assert loaded.warnings == []
    assert loaded.secrets == {"s3cret-key", "db-pass", "https://hooks.example.net/T0/B1"}
    assert loaded.files == [Path("pipeline.yaml")]


def test_a_backup_takes_only_the_defaults_it_does_not_set(folder: Folder) -> None:
    pipeline = folder.load(
        """
        name: shop
        storages: {nas: {type: local, path: /srv}}
        defaults: {stages: [{type: zstd}], fan_out: [{storage: nas}], buffer: 8MiB}
        backups:
          etc: {source: {type: stdin}}
          srv: {source: {type: stdin}, stages: [], buffer: 1MiB}
        """
    ).pipeline
    etc, srv = pipeline.backup("etc"), pipeline.backup("srv")
    assert ([stage.type for stage in etc.stages], etc.buffer) == (["zstd"], 8 << 20)
    assert (srv.stages, srv.buffer) == ([], 1 << 20)
    assert etc.fan_out == srv.fan_out


def test_a_file_may_come_through_a_pipe() -> None:
    reading, writing = os.pipe()
    os.write(writing, MINIMAL.encode())
    os.close(writing)
    try:
        loaded = load(f"/dev/fd/{reading}", {})
    finally:
        os.close(reading)
    assert loaded.pipeline.name == "shop"
    assert loaded.warnings == []


def test_the_environment_of_the_process_is_used_by_default(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEB_HOST", "web-7")
    path = folder.write("pipeline.yaml", "host: ${WEB_HOST}" + MINIMAL)
    assert load(path).pipeline.host == "web-7"


def test_a_byte_order_mark_and_windows_line_ends_are_fine(folder: Folder) -> None:
    path = folder.write("pipeline.yaml", "")
    path.write_bytes(b"\xef\xbb\xbf" + MINIMAL.lstrip().replace("\n", "\r\n").encode())
    assert load(path, {}).pipeline.name == "shop"


def test_arguments_may_be_empty_and_a_program_may_not(folder: Folder) -> None:
    text = MINIMAL.replace("{type: files, paths: [/etc]}", "{type: command, command: COMMAND}")
    source = folder.load(text.replace("COMMAND", "[dump, '']")).pipeline.backups["etc"].source
    assert isinstance(source, CommandSource)
    assert source.command == ["dump", ""]
    assert folder.errors(text.replace("COMMAND", "['', dump]")) == [
        "pipeline.yaml:5:42: backups.etc.source.command: must start with the name of a program"
    ]


# --- YAML

INFINITE = float("inf")
# fmt: off
SCALARS: list[tuple[str, object]] = [
    ("yes", "yes"), ("no", "no"), ("on", "on"), ("off", "off"), ("tRue", "tRue"),
    ("true", True), ("True", True), ("FALSE", False),
    ("null", None), ("~", None), ("", None), ("''", ""), ("'null'", "null"), ("Null", None),
    ("12", 12), ("-7", -7), ("+7", 7), ("0o17", 15), ("0x1F", 31), ("017", 17),
    ("1_000", "1_000"), ("0b1", "0b1"), ("'12'", "12"), ("9" * 101, "9" * 101),
    ("1.5", 1.5), ("1e3", 1000.0), (".5", 0.5), ("1.", 1.0), (".inf", INFINITE),
    ("-.inf", -INFINITE),
    ("22:30", "22:30"), ("2024-01-01", "2024-01-01"), ("1.2.3", "1.2.3"), (".", "."),
    ("2024-01-01T00:00:00Z", "2024-01-01T00:00:00Z"),
    ("!!str 12", "12"), ("! 12", "12"), ("!!int 12", 12), ("!!float 1", 1), ("!!null ~", None),
    ("!!bool true", True), ("!!seq [a]", ["a"]), ("!!map {a: b}", {"a": "b"}),
    ('"\\u00e9"', "é"), ('"\\ud83d\\ude00"', "😀"), ("a # b", "a"), ("a#b", "a#b"),
    ("|\n  a\n  b", "a\nb"), (">\n  a\n  b", "a b"),
]
# fmt: on


@pytest.mark.parametrize(("text", "value"), SCALARS)
def test_scalars_follow_yaml_1_2(text: str, value: object) -> None:
    found = values(f"key: {text}")["key"]
    assert found == value
    assert type(found) is type(value)


def test_not_a_number_is_read() -> None:
    assert str(values("key: .nan")["key"]) == "nan"


def test_anchors_aliases_and_merge_keys_work() -> None:
    assert values(
        """
        one: &one {a: 1, b: 1}
        two: &two {b: 2, c: 2}
        alias: *one
        merged: {<<: *one, b: 3}
        both: {<<: [*one, *two], d: 4}
        late:
          a: 0
          <<: *two
        name: &name text
        copy: *name
        *name : key
        "<<": quoted
        """
    ) == {
        "one": {"a": 1, "b": 1},
        "two": {"b": 2, "c": 2},
        "alias": {"a": 1, "b": 1},
        "merged": {"a": 1, "b": 3},
        "both": {"a": 1, "b": 1, "c": 2, "d": 4},
        "late": {"a": 0, "b": 2, "c": 2},
        "name": "text",
        "copy": "text",
        "text": "key",
        "<<": "quoted",
    }


def test_an_anchor_may_be_given_again() -> None:
    assert values("a: &x 1\nb: *x\nc: &x 2\nd: *x\n") == {"a": 1, "b": 1, "c": 2, "d": 2}


# --- words for problems

PATHS: list[tuple[tuple[str | int, ...], str]] = [
    ((), ""),
    (("storages", "offsite", "part_size"), "storages.offsite.part_size"),
    (("backups", "crm-db", "fan_out", 0, "storage"), "backups.crm-db.fan_out[0].storage"),
    (("include", 0), "include[0]"),
    (("a b", "c.d", "é", 'x"y', ""), '"a b".c.d."\\u00e9"."x\\"y".""'),
    (("x" * 100,), "x" * 60 + "..."),
    (("x", *[0] * 100), "x" + "[0]" * 15 + "..."),
]


@pytest.mark.parametrize(("path", "text"), PATHS)
def test_a_path_is_shown(path: tuple[str | int, ...], text: str) -> None:
    assert show_path(path) == text


@pytest.mark.parametrize(
    ("word", "found"),
    [("fsinc", "fsync"), ("FSYNC", "fsync"), ("pth", "path"), ("zzz", None), ("", None)],
)
def test_the_nearest_name_is_found(word: str, found: str | None) -> None:
    assert nearest(word, ["path", "fsync", "type"]) == found


def test_a_number_is_text_where_text_is_expected(tmp_path: Path) -> None:
    path = tmp_path / "pipeline.yaml"
    path.write_text(
        """\
name: 0042
storages: {nas: {type: sftp, host: nas, user: backup, path: /b, password: 00123}}
backups:
  etc:
    source: {type: command, command: [head, -c, 1_000, 0x1F, -9, 1.50]}
    fan_out: [{storage: nas}]
"""
    )
    pipeline = load(path, {}).pipeline
    source, nas = pipeline.backups["etc"].source, pipeline.storages["nas"]
    assert isinstance(source, CommandSource)
    assert isinstance(nas, SftpStorage)
    assert pipeline.name == "0042"
    assert source.command == ["head", "-c", "1_000", "0x1F", "-9", "1.50"]
    assert nas.password is not None
    assert nas.password.get_secret_value() == "00123"
