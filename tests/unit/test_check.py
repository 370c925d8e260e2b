"""`check` without connecting: what would fail, or looks like a mistake, each at its place."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli.main import main
from pipeline.registry import make_source, make_transform
from pipeline.stage import Needed
from schemas.load import InvalidConfiguration, load
from schemas.pipeline import Backup
from stages.storages.memory import Memory, clear
from tests.unit.config_folder import Folder


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    monkeypatch.chdir(tmp_path)
    return Folder(tmp_path)


def checked(
    folder: Folder, text: str, capfd: pytest.CaptureFixture[str], *options: str
) -> tuple[int, str, str]:
    folder.write("pipeline.yaml", text)
    code = main(["check", "pipeline.yaml", *options])
    shown = capfd.readouterr()
    return code, shown.out, shown.err


def problems(folder: Folder, text: str) -> list[str]:
    """The problems of a file that may load, on a line each."""
    folder.write("pipeline.yaml", text)
    try:
        found = load("pipeline.yaml", {}).warnings
    except InvalidConfiguration as invalid:
        found = invalid.problems
    return [f"{each.line}:{each.column}: {each.path}: {each.message}" for each in found]


class TestPrograms:
    def test_one_that_is_missing_is_named_with_its_package(
        self, folder: Folder, capfd: pytest.CaptureFixture[str]
    ) -> None:
        (folder.path / "empty").mkdir()
        text = f"""\
            name: shop
            storages: {{here: {{type: memory}}}}
            backups:
              db:
                source:
                  type: postgres
                  programs: {folder.path}/empty
                fan_out: [{{storage: here}}]
        """
        code, out, err = checked(folder, text, capfd)
        assert code == 1
        assert err.splitlines() == [
            'pipeline.yaml:6:7: backups.db.source: runs "pg_dump", which is not installed',
            "    hint: install the package postgresql-client (Red Hat: postgresql)",
            'pipeline.yaml:6:7: backups.db.source: runs "pg_dumpall", which is not installed',
            "    hint: install the package postgresql-client (Red Hat: postgresql)",
        ]
        assert out.endswith("pipeline.yaml: a run would fail here\n")

    def test_those_of_stages_are_named_where_they_are_written(
        self, folder: Folder, capfd: pytest.CaptureFixture[str]
    ) -> None:
        text = """\
            name: shop
            storages: {here: {type: memory}, there: {type: memory, path: b}}
            defaults:
              stages: [{type: filter, command: [none-such-1]}]
            backups:
              db:
                source: {type: command, command: [none-such-2], list_command: [none-such-3]}
                fan_out:
                  - storage: here
                  - storage: there
                    stages:
                      - {type: filter, command: [none-such-4], inverse: [none-such-5]}
                    required: false
        """
        code, _, err = checked(folder, text, capfd)
        assert code == 1
        assert [line for line in err.splitlines() if "hint" not in line] == [
            'pipeline.yaml:4:12: backups.db.stages[0]: runs "none-such-1", which is not installed',
            'pipeline.yaml:7:13: backups.db.source: runs "none-such-2", which is not installed',
            'pipeline.yaml:7:13: backups.db.source: runs "none-such-3", which is not installed',
            "pipeline.yaml:12:13: warning: backups.db.fan_out[1].stages[0]: runs "
            '"none-such-4", which is not installed',
        ]

    def test_what_only_an_optional_storage_needs_fails_nothing(
        self, folder: Folder, capfd: pytest.CaptureFixture[str]
    ) -> None:
        branch = "{storage: here, stages: [{type: filter, command: [none-such]}], required: false}"
        text = f"""\
            name: shop
            storages: {{here: {{type: memory}}}}
            backups:
              a: {{source: {{type: command, command: [echo]}}, fan_out: [{branch}]}}
        """
        code, out, err = checked(folder, text, capfd)
        assert (code, out.splitlines()[-1]) == (0, "pipeline.yaml: ok")
        assert "warning" in err

    def test_installed_ones_are_no_problem(
        self, folder: Folder, capfd: pytest.CaptureFixture[str]
    ) -> None:
        folder.write("tool", "#!/bin/sh\nexit 1\n", 0o700)
        source = f"{{type: command, command: [./tool], cwd: {folder.path}}}"
        text = f"""\
            name: shop
            storages: {{here: {{type: memory}}}}
            backups: {{a: {{source: {source}, fan_out: [{{storage: here}}]}}}}
        """
        assert checked(folder, text, capfd)[::2] == (0, "")


PROGRAMS: list[tuple[dict[str, Any], dict[str, bool]]] = [
    ({"type": "files", "paths": ["/etc"]}, {}),
    ({"type": "stdin"}, {}),
    ({"type": "sqlite", "paths": ["/x.db"]}, {}),
    ({"type": "redis"}, {}),
    ({"type": "redis", "method": "client"}, {"redis-cli": False}),
    ({"type": "mysql"}, {}),
    ({"type": "mysql", "method": "client"}, {"mariadb-dump or mysqldump": False}),
    (
        {"type": "mysql_physical"},
        {"mariadb-backup or xtrabackup": False, "mbstream or xbstream": True},
    ),
    ({"type": "mongodb"}, {"mongorestore": True}),
    ({"type": "mongodb", "method": "client"}, {"mongodump": False, "mongorestore": True}),
    (
        {"type": "postgres"},
        {"pg_dump": False, "pg_dumpall": False, "pg_restore": True, "psql": True},
    ),
    ({"type": "postgres", "format": "plain", "globals": False}, {"pg_dump": False, "psql": True}),
    ({"type": "postgres", "format": "copy", "globals": False}, {}),
    ({"type": "postgres_physical"}, {}),
    ({"type": "postgres_physical", "method": "client"}, {"pg_basebackup": False}),
    (
        {"type": "postgres_physical", "incremental": {"full": "monthly"}},
        {"pg_combinebackup": True},
    ),
    ({"type": "command", "shell": "true"}, {"bash": False}),
    ({"type": "command", "command": ["cat"], "list_command": ["ls"]}, {"cat": False, "ls": False}),
]


@pytest.mark.parametrize(
    ("source", "expected"), PROGRAMS, ids=lambda each: "-".join(map(str, each.values()))[:40]
)
def test_a_source_names_what_it_runs_and_what_a_restore_runs(
    source: dict[str, Any], expected: dict[str, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = Backup.model_validate({"source": source}).source
    found = make_source(spec, "x").programs()
    assert {needed.name: needed.to_restore for needed in found} == expected
    monkeypatch.setenv("PATH", "/does/not/exist")
    if not source["type"].startswith("postgres"):  # they are looked for in folders of their own
        assert all(not needed.paths for needed in make_source(spec, "x").programs())
    assert all(needed.install for needed in found)


def test_a_filter_is_looked_for_where_its_own_path_says(tmp_path: Path) -> None:
    (tmp_path / "own").write_text("#!/bin/sh\n")
    (tmp_path / "own").chmod(0o755)
    stages = [{"type": "filter", "command": ["own"], "env": {"PATH": str(tmp_path)}}]
    spec = Backup.model_validate({"source": {"type": "stdin"}, "stages": stages}).stages[0]
    assert make_transform(spec).programs() == [
        Needed("own", [str(tmp_path / "own")], tells_version=False)
    ]


PLACES = {
    "local": ("{type: local, path: /srv/b}", "{type: local, path: /srv/x/../b/}"),
    "sftp": (
        "{type: sftp, host: NAS, user: u, path: /b}",
        "{type: sftp, host: nas, port: 22, user: u, path: /b/, password: x}",
    ),
    "ftp": (
        "{type: ftp, host: nas, user: u, path: b, implicit_tls: true}",
        "{type: ftp, host: nas, user: u, path: ./b, port: 990}",
    ),
    "s3": (
        "{type: s3, bucket: b, endpoint: 'https://S3.example.net/', path: x/y}",
        "{type: s3, bucket: b, endpoint: 'https://s3.example.net', path: x/y, parallel: 2}",
    ),
    "nfs": (
        "{type: nfs, host: nas, export: /srv, path: b}",
        "{type: nfs, host: nas, export: /srv/b, uid: 7}",
    ),
    "smb": (
        "{type: smb, host: nas, user: u, share: Backup, path: B/c}",
        "{type: smb, host: nas, user: v, share: backup, path: b/c/}",
    ),
    "webdav": (
        "{type: webdav, url: 'https://dav.example.net/a%20b/'}",
        "{type: webdav, url: 'https://DAV.example.net:443/a b'}",
    ),
    "fsspec": (
        "{type: fsspec, url: 'gs://bucket/x/'}",
        "{type: fsspec, url: 'gs://bucket/x'}",
    ),
    "memory": ("{type: memory}", "{type: memory, path: /}"),
}
OTHERS = {
    "local": "{type: local, path: /srv/c}",
    "relative": "{type: sftp, host: nas, user: u, path: b}",
    "user": "{type: sftp, host: nas, user: v, path: /b}",
    "ftp": "{type: ftp, host: nas, user: u, path: b}",
    "bucket": "{type: s3, bucket: c, endpoint: 'https://s3.example.net', path: x/y}",
    "share": "{type: smb, host: nas, user: u, share: other, path: B/c}",
    "options": "{type: fsspec, url: 'gs://bucket/x', storage_options: {project: p}}",
}


def two_storages(first: str, second: str, fan_out: str) -> str:
    return f"""\
        name: shop
        storages:
          one: {first}
          two: {second}
        backups:
          a: {{source: {{type: stdin}}, fan_out: [{{storage: one}}]}}
          b: {{source: {{type: stdin}}, fan_out: {fan_out}}}
    """


class TestPlaces:
    @pytest.mark.parametrize("kind", PLACES)
    def test_two_storages_that_are_one_place_are_told(self, folder: Folder, kind: str) -> None:
        apart = two_storages(*PLACES[kind], fan_out="[{storage: two}]")
        said = '4:8: storages.two: is the same place as "one"'
        assert problems(folder, apart) == [said]
        assert [each.severity for each in load("pipeline.yaml", {}).warnings] == ["warning"]
        together = two_storages(*PLACES[kind], fan_out="[{storage: one}, {storage: two}]")
        assert problems(folder, together) == [said]
        with pytest.raises(InvalidConfiguration, match="would write each object there twice"):
            load("pipeline.yaml", {})

    @pytest.mark.parametrize("other", OTHERS)
    @pytest.mark.parametrize("kind", PLACES)
    def test_places_that_differ_are_left_alone(self, folder: Folder, kind: str, other: str) -> None:
        text = two_storages(PLACES[kind][0], OTHERS[other], "[{storage: one}, {storage: two}]")
        assert problems(folder, text) == []

    def test_what_defaults_say_counts(self, folder: Folder) -> None:
        text = two_storages(*PLACES["local"], fan_out="[{storage: two}]")
        text += "    defaults: {fan_out: [{storage: one}, {storage: two}]}\n"
        text = text.replace("stdin}, fan_out: [{storage: two}]}", "stdin}}")
        assert [each.split(": ", 1)[0] for each in problems(folder, text)] == ["4:8"]

    def test_a_link_to_a_directory_is_that_directory(self, folder: Folder) -> None:
        (folder.path / "b").mkdir()
        (folder.path / "link").symlink_to("b")
        first, second = (f"{{type: local, path: {folder.path}/{name}}}" for name in ("b", "link"))
        text = two_storages(first, second, "[{storage: one}, {storage: two}]")
        assert problems(folder, text) == ['4:8: storages.two: is the same place as "one"']

    def test_backups_that_differ_in_case_only_are_one_on_a_windows_share(
        self, folder: Folder
    ) -> None:
        text = two_storages(PLACES["smb"][0], OTHERS["local"], "[{storage: one}, {storage: two}]")
        assert problems(folder, text.replace("  b: {source", "  A: {source")) == [
            '7:6: backups.A: is the same name as "a" on the storage "one"'
        ]


SCHEDULE = """\
    name: shop
    storages: {nas: {type: memory}}
    backups:
      etc: {source: {type: stdin}, fan_out: [{storage: nas}], schedule: "CRON"}
"""


@pytest.mark.parametrize(
    ("cron", "said"),
    [
        ("0 3 30 2 *", "never fires"),
        ("0 3 30,31 feb *", "never fires"),
        ("0 3 31 2,4,6,9,11 *", "never fires"),
        ("0 3 29 2 *", None),
        ("0 3 31 * *", None),
        ("0 3 31 1-4 *", None),
        ("0 3 * 2 *", None),
        ("0 3 31-30 1 *", "the day of month of the cron expression is wrong"),
        ("0 22-2 * * *", "the hour of the cron expression is wrong"),
        ("0 0 * * sat-sun", "the day of week of the cron expression is wrong"),
    ],
)
def test_a_schedule_that_never_fires_is_told(folder: Folder, cron: str, said: str | None) -> None:
    place = "4:69: backups.etc.schedule: "
    expected = [] if said is None else [place + said]
    assert problems(folder, SCHEDULE.replace("CRON", cron)) == expected


SIZES = """\
    name: shop
    storages: {here: {type: memory}, there: {type: memory, path: b}}
    backups:
      etc:
        source: {type: files, paths: [/etc]}
        expected_size: 2KiB
        fan_out:
          - {storage: here}
          - {storage: there, required: false}
"""


@pytest.fixture
def limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """All storages in memory take objects of 1 KiB at most."""
    clear()
    monkeypatch.setattr(Memory, "max_object_size", 1024)


@pytest.mark.usefixtures("limited")
class TestSizes:
    def test_a_storage_that_cannot_take_what_is_expected_is_told(
        self, folder: Folder, capfd: pytest.CaptureFixture[str]
    ) -> None:
        code, _, err = checked(folder, SIZES, capfd)
        assert code == 1
        message = "does not take what expected_size says; at most 1.0 KiB an object"
        hint = "    hint: choose a storage that takes larger objects, or make them smaller"
        assert err.splitlines() == [
            f"pipeline.yaml:8:19: backups.etc.fan_out[0].storage: {message}",
            hint,
            f"pipeline.yaml:9:19: warning: backups.etc.fan_out[1].storage: {message}",
            hint,
        ]

    def test_one_that_just_can_is_fine(
        self, folder: Folder, capfd: pytest.CaptureFixture[str]
    ) -> None:
        assert checked(folder, SIZES.replace("2KiB", "1KiB"), capfd)[::2] == (0, "")

    def test_the_copies_there_are_tell_what_to_expect(
        self,
        folder: Folder,
        capfd: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        folder.write("data/file", "x" * 3000)
        text = SIZES.replace("/etc", str(folder.path / "data"))
        text = text.replace("        expected_size: 2KiB\n", "")
        text = text.replace("name: shop", f"name: sizes-{os.getpid()}")
        code, out, _ = checked(folder, text, capfd, "--connect")
        assert code == 0
        assert "no copy is known, and no expected_size" in out
        assert main(["run", "pipeline.yaml", "-qq"]) == 0
        capfd.readouterr()
        code, out, _ = checked(folder, text, capfd, "--connect")
        assert code == 1
        said = 'failed  backup etc: sizes: "here" takes objects up to 1.0 KiB, and one of '
        assert said in out
        monkeypatch.setattr(Memory, "max_object_size", 1 << 20)
        code, out, _ = checked(folder, text, capfd, "--connect")
        assert code == 0
        assert "KiB are expected" in out


class TestSecretsInTheClear:
    TEXT = """\
        name: shop
        storages:
          nas: {type: sftp, host: h, user: u, path: /, password: SECRET}
        backups:
          a:
            source: {type: command, command: [echo, x], env: {TOKEN: SECRET}}
            fan_out: [{storage: nas}]
    """

    def warnings(self, folder: Folder, secret: str, mode: int) -> list[str]:
        loaded = folder.load(self.TEXT.replace("SECRET", secret), {"S": "value"}, mode)
        return [str(warning) for warning in loaded.warnings]

    @pytest.mark.parametrize("mode", [0o640, 0o644, 0o604])
    def test_each_is_named_where_others_can_read_it(self, folder: Folder, mode: int) -> None:
        message = "is a secret in the clear, in a file that others can read"
        hint = "    hint: chmod 600 pipeline.yaml; or write ${NAME} or ${file:/path} here"
        assert self.warnings(folder, "clear-text", mode) == [
            f"pipeline.yaml:3:58: warning: storages.nas.password: {message}\n{hint}",
            f"pipeline.yaml:6:62: warning: backups.a.source.env.TOKEN: {message}\n{hint}",
        ]

    @pytest.mark.parametrize(("secret", "mode"), [("clear-text", 0o600), ("${S}", 0o640)])
    def test_nobody_else_or_nothing_to_read_is_no_warning(
        self, folder: Folder, secret: str, mode: int
    ) -> None:
        assert self.warnings(folder, secret, mode) == []

    def test_a_password_in_an_address_is_one(self, folder: Folder) -> None:
        text = self.TEXT.replace("[echo, x]", "[echo, 'mysql://root:hunter22@host/']")
        loaded = folder.load(text.replace("SECRET", "${S}"), {"S": "value"}, 0o640)
        assert [each.path for each in loaded.warnings] == ["backups.a.source.command[1]"]
