"""References to variables and files: what is put in, where, and what is not."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr

from schemas.sources import CommandSource
from schemas.storages import SftpStorage
from tests.unit.config_folder import MINIMAL, Folder, in_place_of_local

FOUND = {"A": "one", "B": "two", "EMPTY": "", "DOLLAR": "${A}", "BRACE": "a}b", "LONG_1": "x"}
# fmt: off
REFERENCES: list[tuple[str, str]] = [
    ("${A}", "one"), ("${A}${B}", "onetwo"), ("x-${A}-y", "x-one-y"), ("${LONG_1}", "x"),
    ("${EMPTY}", ""), ("${NONE:-d}", "d"), ("${EMPTY:-d}", "d"), ("${A:-d}", "one"),
    ("${NONE:-}", ""), ("x${NONE:-}y", "xy"), ("${NONE:-a:-b}", "a:-b"), ("${NONE:-$$}", "$"),
    ("${NONE:-${A}}", "one"), ("${NONE:-a ${A} b}", "a one b"), ("${NONE:-${NO:-${B}}}", "two"),
    ("${A:-${NONE}}", "one"), ("${A:?must be}", "one"), ("${DOLLAR}", "${A}"), ("${BRACE}", "a}b"),
    ("$$", "$"), ("$${A}", "${A}"), ("$$$${A}", "$${A}"), ("$$${A}", "$one"), ("$", "$"),
    ("a$b", "a$b"), ("$A", "$A"), ("$(A)", "$(A)"), ("100$", "100$"), ("}", "}"), ("a}b", "a}b"),
    ("{${A}}", "{one}"), ("${NONE:-https://host/?a=b&c}", "https://host/?a=b&c"),
    ("${NONE:-ü 🐘}", "ü 🐘"),
]
# fmt: on


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    monkeypatch.chdir(tmp_path)
    return Folder(tmp_path)


@pytest.mark.parametrize(("text", "value"), REFERENCES)
def test_references_are_put_in(text: str, value: str, folder: Folder) -> None:
    loaded = folder.load(
        MINIMAL.replace(
            "{type: files, paths: [/etc]}", f"{{type: command, command: [x, '{text}']}}"
        ),
        FOUND,
    )
    source = loaded.pipeline.backups["etc"].source
    assert isinstance(source, CommandSource)
    assert source.command == ["x", value]


BLOCKS = {
    "flow": "{type: sftp, host: ${A}, user: ${NONE:-${B}}, path: ${B}, password: ${A}}",
    "double-quoted": '{type: sftp, host: "${A}", user: "${B}", path: "${B}", "password": "${A}"}',
    "single-quoted": "{type: sftp, host: '${A}', user: ${B}, path: '${B}', password: ${A}}",
    "plain": """
    type: sftp
    host: ${A}
    user: ${B}
    path: ${B} # ${NONE}
    password: ${A}""",
    "block": """
    type: sftp
    host: >-
      ${A}
    user: ${B}
    path: |-
      ${B}
    password: ${A}""",
}


@pytest.mark.parametrize("style", BLOCKS)
def test_a_reference_can_stand_in_every_style_of_yaml(style: str, folder: Folder) -> None:
    text = MINIMAL.replace(
        "storages: {nas: {type: local, path: /srv/backups}}", f"storages:\n  nas: {BLOCKS[style]}"
    )
    assert folder.load(text, FOUND).pipeline.storages["nas"] == SftpStorage(
        type="sftp", host="one", user="two", path="two", password=SecretStr("one")
    )


def test_a_reference_may_become_a_number_or_a_truth(folder: Folder) -> None:
    text = in_place_of_local(
        "{type: sftp, host: h, user: u, path: /, port: ${PORT:-2222}, agent: ${AGENT}}"
    )
    storage = folder.load(text, {"AGENT": "true"}).pipeline.storages["nas"]
    assert isinstance(storage, SftpStorage)
    assert (storage.port, storage.agent) == (2222, True)


def test_what_is_put_in_cannot_add_keys(folder: Folder) -> None:
    loaded = folder.load("host: ${EVIL}\n" + MINIMAL, {"EVIL": "web\nname: other\nx: {a: b}"})
    assert loaded.pipeline.name == "shop"
    assert loaded.pipeline.host == "web\nname: other\nx: {a: b}"


def test_keys_hold_no_references(folder: Folder) -> None:
    text = MINIMAL.replace(
        "{type: files, paths: [/etc]}", "{type: command, command: [x], env: {'${A}': y}}"
    )
    source = folder.load(text, FOUND).pipeline.backups["etc"].source
    assert isinstance(source, CommandSource)
    assert list(source.env) == ["${A}"]


def test_characters_that_shield_references_may_stand_in_the_file(folder: Folder) -> None:
    text = "host: \ue000${A}\ue001\ue002\n" + MINIMAL
    assert folder.load(text, FOUND).pipeline.host == "\ue000one\ue001\ue002"


@pytest.mark.parametrize(
    ("content", "value"),
    [
        ("secret", "secret"),
        ("secret\n", "secret"),
        ("secret\r\n", "secret"),
        ("secret\n\n", "secret\n"),
        (" secret ", " secret "),
        ("${A}", "${A}"),
        ("", ""),
        ("ü", "ü"),
    ],
)
def test_a_file_is_put_in_without_its_last_newline(
    content: str, value: str, folder: Folder
) -> None:
    (folder.path / "secret").write_bytes(content.encode())
    loaded = folder.load("host: x${file:secret}\n" + MINIMAL, FOUND)
    assert loaded.pipeline.host == f"x{value}"


def test_a_file_is_found_by_absolute_path_and_through_a_variable(folder: Folder) -> None:
    folder.write("run/secret", "web-7")
    for name in (f"{folder.path}/run/secret", "${RUN}/secret", "${NONE:-run}/secret"):
        loaded = folder.load(f"host: '${{file:{name}}}'\n" + MINIMAL, {"RUN": f"{folder.path}/run"})
        assert loaded.pipeline.host == "web-7"


def test_a_file_that_is_too_large_is_refused(folder: Folder) -> None:
    folder.write("secret", "x" * ((1 << 20) + 1))
    assert folder.errors("host: ${file:secret}\n" + MINIMAL) == [
        'pipeline.yaml:1:7: host: the file of "${file:...}" is larger than 1MiB\n'
        "    hint: it should hold one value"
    ]


def test_references_are_not_followed_for_ever(folder: Folder) -> None:
    text = "${A:-" * 50 + "x" + "}" * 50
    assert folder.errors(f"host: '{text}'\n" + MINIMAL) == [
        "pipeline.yaml:1:63: host: references are nested too deeply\n"
        "    hint: at most 10 levels are resolved"
    ]
