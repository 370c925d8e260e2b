"""What a configuration that loads is warned of, and which strings of it are secrets."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.config_folder import MINIMAL, Folder, in_place_of_local

SFTP = in_place_of_local("{type: sftp, host: h, user: u, path: /, password: PASSWORD}")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    monkeypatch.chdir(tmp_path)
    return Folder(tmp_path)


def test_a_file_others_can_read_is_a_warning(folder: Folder) -> None:
    assert [str(warning) for warning in folder.load(MINIMAL, mode=0o644).warnings] == [
        "pipeline.yaml:1:1: warning: can be read by others, and may hold secrets\n"
        "    hint: chmod 600 pipeline.yaml"
    ]


@pytest.mark.parametrize(
    ("password", "mode", "warned"),
    [
        ("clear-text", 0o640, True),
        ("${PASSWORD}", 0o640, False),
        ("${file:secret}", 0o640, False),
        ("${NONE:-clear-text}", 0o640, True),
        ("''", 0o640, False),
        ("clear-text", 0o600, False),
        ("clear-text", 0o400, False),
        ("clear-text", 0o604, True),
        ("${PASSWORD}", 0o644, True),
    ],
)
def test_a_group_may_read_a_file_without_clear_secrets(
    password: str, mode: int, warned: bool, folder: Folder
) -> None:
    folder.write("secret", "hidden")
    text = SFTP.replace("PASSWORD", password)
    loaded = folder.load(text, {"PASSWORD": "hidden"}, mode)
    assert bool(loaded.warnings) is warned


def test_an_included_file_with_a_clear_secret_is_a_warning(folder: Folder) -> None:
    folder.write(
        "sto rages.yaml",
        "storages: {hdd: {type: sftp, host: h, user: u, path: /, password: abc}}\n",
        0o640,
    )
    text = MINIMAL.replace("{storage: nas}", "{storage: nas}, {storage: hdd}")
    loaded = folder.load("include: [sto*.yaml]\n" + text, mode=0o640)
    assert [str(warning) for warning in loaded.warnings] == [
        "sto rages.yaml:1:67: warning: storages.hdd.password: "
        "is a secret in the clear, in a file that others can read\n"
        "    hint: chmod 600 'sto rages.yaml'; or write ${NAME} or ${file:/path} here"
    ]


def test_what_looks_like_a_mistake_is_a_warning(folder: Folder) -> None:
    loaded = folder.load(
        """\
        name: shop
        storages:
          nas: {type: local, path: /srv}
          hdd: {type: local, path: /mnt}
        notifiers:
          ops: {type: webhook, url: https://host/}
        defaults:
          stages:
            - {type: age, passphrase: "${P}"}
            - type: gzip
          fan_out:
            - storage: nas
              stages: [{type: xz}]
        backups:
          etc: {source: {type: stdin}}
          srv: {source: {type: stdin}, stages: [{type: zstd}]}
        """,
        {"P": "correct horse"},
    )
    late = "compresses after encryption, which saves nothing"
    again = "compresses a second time, which saves nothing"
    assert [
        f"{found.line}:{found.column}: {found.path}: {found.message}" for found in loaded.warnings
    ] == [
        "4:3: storages.hdd: is not used by any backup",
        "6:3: notifiers.ops: is not used by any backup",
        f"10:13: defaults.stages[1].type: {late}",
        f"13:23: defaults.fan_out[0].stages[0].type: {late}",
        f"13:23: defaults.fan_out[0].stages[0].type: {again}",
    ]
    assert {found.severity for found in loaded.warnings} == {"warning"}


def test_secrets_for_redaction_are_collected(folder: Folder) -> None:
    folder.write("token", "file-token\n")
    folder.write("short", "abc")
    loaded = folder.load(
        """
        name: shop
        host: ${file:token}
        storages:
          nas:
            type: sftp
            host: h
            user: u
            path: /
            password: " padded "
            key_passphrase: ${file:short}
        notifiers:
          ops:
            type: webhook
            url: https://user:p%40ss-word@host/x
            headers: {X-Token: header-token}
        backups:
          etc:
            source:
              type: command
              command: [dump, "mysql://root:db-pass@host/"]
              env: {A: env-pass, B: xyz}
            stages: [{type: age, passphrase: correct horse}]
            fan_out: [{storage: nas}]
            notify: [ops]
        """
    )
    assert loaded.secrets == {
        "file-token",
        " padded ",
        "padded",
        "https://user:p%40ss-word@host/x",
        "p%40ss-word",
        "p@ss-word",
        "header-token",
        "db-pass",
        "env-pass",
        "correct horse",
    }


def test_the_tokens_of_an_address_are_secrets_by_themselves(folder: Folder) -> None:
    loaded = folder.load(
        """
        name: shop
        storages:
          nas: {type: local, path: /srv}
        notifiers:
          hook: {type: teams, url: "https://host-1.example.net/hooks/T0123/token-of-4711?sig=a%2Fb456789012"}
          others: {type: apprise, urls: ["tgram://123456789:abcdefgh_ijk0/55", "ntfys://ntfy-1.example.net/a"]}
        backups:
          etc:
            source: {type: stdin}
            fan_out: [{storage: nas}]
            notify: [hook, others]
        """
    )
    addresses = {secret for secret in loaded.secrets if "://" in secret}
    assert len(addresses) == 3
    assert loaded.secrets - addresses == {
        "token-of-4711",
        "a%2Fb456789012",
        "a/b456789012",
        "abcdefgh_ijk0",
    }


def test_secrets_are_not_part_of_a_representation(folder: Folder) -> None:
    shown = repr(folder.load(SFTP.replace("PASSWORD", "clear-text")))
    assert "clear-text" not in shown
    assert "sftp" in shown


@pytest.mark.parametrize(
    ("argument", "warned"),
    [
        ("${DB_PASSWORD}", True),
        ("pass:${API_TOKEN}", True),
        ("${file:secret}", True),
        ("${HOME_FOLDER}", False),
        ("$HOME", False),
    ],
)
def test_a_secret_among_arguments_is_a_warning_and_is_redacted(
    argument: str, warned: bool, folder: Folder
) -> None:
    folder.write("secret", "hidden-value")
    names = ("DB_PASSWORD", "API_TOKEN", "HOME_FOLDER")
    source = "{type: command, command: [dump, '" + argument + "']}"
    text = MINIMAL.replace("{type: files, paths: [/etc]}", source)
    loaded = folder.load(text, dict.fromkeys(names, "hidden-value"))
    message = "puts a secret where every user of this machine can read it"
    assert [problem.message for problem in loaded.warnings] == [message] * warned
    assert any("hidden-value" in secret for secret in loaded.secrets) is warned
