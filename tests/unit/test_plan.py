"""`plan`: documents with stable fields, and the same as text; nothing is changed by it."""

from __future__ import annotations

import contextlib
import io
import json
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from pipeline import manifest
from pipeline.cli.main import main
from pipeline.naming import ObjectName
from pipeline.programs import version
from pipeline.runner import utc_now
from schemas.manifest import Manifest, ManifestShard, ManifestSource
from schemas.storages import LocalStorage
from stages.storages.local import Local
from tests.contracts.storage_subject import put
from tests.unit.config_folder import Folder

BACKUP = "etc"
ARTIFACT = "data"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TZ", "Europe/Berlin")
    (tmp_path / "data").mkdir()
    return Folder(tmp_path)


def configure(
    folder: Folder,
    rotate: str = "{last: 2}",
    more: str = "schedule: '15 3 * * *'",
    source: str = "",
) -> None:
    source = source or f"{{type: files, paths: [{folder.path}/data], names: relative}}"
    folder.write(
        "pipeline.yaml",
        f"""\
        name: shop
        host: web
        storages: {{nas: {{type: local, path: {folder.path}/nas}}}}
        backups:
          {BACKUP}:
            source: {source}
            fan_out: [{{storage: nas, rotate: {rotate}}}]
            {more}
        """,
    )


def store(folder: Folder, day: int, artifact: str = ARTIFACT, **changes: Any) -> str:
    """A copy of so many days ago; its path."""
    taken_at = utc_now() - timedelta(days=day)
    name = ObjectName(BACKUP, artifact, taken_at, ".tar")
    document = Manifest(
        program_version="4",
        run=f"run{day}",
        project="shop",
        host="web",
        backup=BACKUP,
        artifact=artifact,
        taken_at=name.taken_at,
        object=name.path.rpartition("/")[2],
        source=ManifestSource(type="files"),
        stored_size=4,
        stored_sha256="0" * 64,
        plain_size=4,
        restore="cat x",
    ).model_copy(update=changes)
    storage = Local(LocalStorage(type="local", path=str(folder.path / "nas")))
    put(storage, name.path, [b"data"])
    put(storage, name.manifest, [manifest.dump(document)])
    return name.path


def artifact_name() -> str:
    """What the source calls its only artifact."""
    code, document = planned_document()
    assert code == 0
    return str(document["backups"][0]["artifacts"][0]["name"])


def planned_document(*options: str) -> tuple[int, dict[str, Any]]:
    return document_of("plan", "pipeline.yaml", "--json", *options)


def document_of(*arguments: str) -> tuple[int, dict[str, Any]]:
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        code = main(arguments)
    found: dict[str, Any] = json.loads(output.getvalue())
    return code, found


def planned_text(capsys: pytest.CaptureFixture[str], *options: str) -> str:
    main(["plan", "pipeline.yaml", *options])
    return capsys.readouterr().out


def day_of(stamp: str) -> int:
    """Days from now to a moment of the document, rounded."""
    moment = datetime.strptime(stamp, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)
    return round((moment - utc_now()) / timedelta(days=1))


class TestDocument:
    def test_its_fields_are_these(self, folder: Folder) -> None:
        configure(folder)
        store(folder, 1, artifact_name())
        code, document = planned_document("--simulate", "3d")
        assert code == 0
        assert list(document) == ["now", "simulated_until", "time_zone", "backups"]
        assert document["time_zone"] == "Europe/Berlin"
        (backup,) = document["backups"]
        assert set(backup) == {
            "name",
            "error",
            "schedule",
            "artifacts",
            "programs",
            "storages",
            "memory_ceiling",
            "memory",
            "expected_size",
        }
        assert backup["memory_ceiling"] == sum(part["bytes"] for part in backup["memory"])
        (storage,) = backup["storages"]
        assert set(storage) == {
            "name",
            "required",
            "largest_object",
            "takes_expected",
            "error",
            "would_remove",
            "would_keep",
            "simulation",
        }
        (course,) = storage["simulation"]["artifacts"]
        assert set(course) == {"name", "made", "removed", "kept"}
        assert set(course["kept"][0]) == {"taken_at", "objects", "reasons"}
        assert all(set(each) == {"at", "taken_at", "objects"} for each in course["removed"])

    def test_without_the_option_nothing_is_simulated(self, folder: Folder) -> None:
        configure(folder)
        _, document = planned_document()
        assert document["simulated_until"] is None
        assert document["backups"][0]["storages"][0]["simulation"] is None

    def test_coming_runs_are_in_the_time_of_this_machine(self, folder: Folder) -> None:
        configure(folder)
        _, document = planned_document()
        schedule = document["backups"][0]["schedule"]
        assert schedule["cron"] == "15 3 * * *"
        moments = [datetime.fromisoformat(each) for each in schedule["next"]]
        assert len(moments) == 5
        assert moments == sorted(set(moments))
        assert {(each.hour, each.minute) for each in moments} == {(3, 15)}
        assert {each.utcoffset() for each in moments} <= {timedelta(hours=1), timedelta(hours=2)}

    def test_a_dry_run_has_the_same(self, folder: Folder) -> None:
        configure(folder)
        code, document = document_of("run", "pipeline.yaml", "--dry-run", "--json")
        assert code == 0
        assert document["dry_run"] is True
        assert document["backups"] == planned_document()[1]["backups"]


class TestSimulation:
    def test_it_says_what_goes_when_and_touches_nothing(self, folder: Folder) -> None:
        configure(folder)
        name = artifact_name()
        paths = [store(folder, day, name) for day in (9, 5, 1)]
        before = sorted(path.name for path in (folder.path / "nas").rglob("*"))
        _, document = planned_document("--simulate", "10d")
        (storage,) = document["backups"][0]["storages"]
        assert storage["would_remove"] == [paths[0]]
        (course,) = storage["simulation"]["artifacts"]
        assert len(course["made"]) == 10
        gone = {path: each["at"] for each in course["removed"] for path in each["objects"]}
        assert gone == {
            paths[0]: course["made"][0],
            paths[1]: course["made"][0],
            paths[2]: course["made"][1],
        }
        assert [each["taken_at"] for each in course["kept"]] == course["made"][:-3:-1]
        assert all(each["objects"] == [] for each in course["kept"])
        assert sorted(path.name for path in (folder.path / "nas").rglob("*")) == before

    def test_shards_go_together(self, folder: Folder) -> None:
        configure(folder, "{last: 1}", source="{type: files, paths: [/none], shards: 2}")
        old = [
            store(folder, 2, f"{ARTIFACT}.{n}", shard=ManifestShard(of=ARTIFACT, number=n, count=2))
            for n in (1, 2)
        ]
        _, document = planned_document("--simulate", "2d")
        (course,) = document["backups"][0]["storages"][0]["simulation"]["artifacts"]
        assert course["name"] == ARTIFACT
        assert sorted(course["removed"][0]["objects"]) == sorted(old)

    def test_a_source_that_cannot_be_reached_leaves_what_is_stored(self, folder: Folder) -> None:
        configure(folder, source="{type: files, paths: [/does/not/exist]}")
        path = store(folder, 3)
        code, document = planned_document("--simulate", "5d")
        assert code == 1
        (backup,) = document["backups"]
        assert "matches nothing" in backup["error"] or "exist" in backup["error"]
        (course,) = backup["storages"][0]["simulation"]["artifacts"]
        assert course["name"] == ARTIFACT
        assert any(path in each["objects"] for each in course["removed"])

    def test_without_a_schedule_there_is_nothing_to_simulate(
        self, folder: Folder, capsys: pytest.CaptureFixture[str]
    ) -> None:
        configure(folder, more="")
        store(folder, 3)
        text = planned_text(capsys, "--simulate", "90d")
        assert "  no schedule: by itself nothing runs, and nothing is removed\n" in text

    def test_a_busy_schedule_is_cut_off_and_says_where(self, folder: Folder) -> None:
        configure(folder, more="schedule: '* * * * *'")
        _, document = planned_document("--simulate", "365d")
        simulation = document["backups"][0]["storages"][0]["simulation"]
        assert len(simulation["artifacts"][0]["made"]) == 5000
        assert simulation["until"] == simulation["artifacts"][0]["made"][-1]
        assert simulation["until"] < document["simulated_until"]

    @pytest.mark.parametrize(
        ("value", "said"),
        [
            ("90", "must be a time above zero with a unit"),
            ("0d", "must be a time above zero with a unit"),
            ("4000d", "must be 3660d at most"),
        ],
    )
    def test_a_time_that_is_none_is_a_usage_error(
        self, folder: Folder, value: str, said: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        configure(folder)
        with pytest.raises(SystemExit, match="2"):
            main(["plan", "pipeline.yaml", "--simulate", value])
        assert said in capsys.readouterr().err


class TestText:
    def test_it_has_a_calendar(self, folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
        configure(folder, "{last: 3}")
        name = artifact_name()
        path = store(folder, 2, name)
        text = planned_text(capsys, "--simulate", "5d")
        assert f"{name}: 5 copies made, 3 removed, 3 there at the end\n" in text
        assert "    Mo  Tu  We  Th  Fr  Sa  Su" in text
        assert f"{utc_now() - timedelta(days=2):%B %Y}" in text
        calendar = text[text.index("    Mo") : text.index(" removes ")]
        assert calendar.count("+") == 3
        assert calendar.count("-") >= 3
        assert f" removes {path}\n" in text

    def test_it_names_the_zone_and_the_coming_runs(
        self, folder: Folder, capsys: pytest.CaptureFixture[str]
    ) -> None:
        configure(folder)
        text = planned_text(capsys)
        assert "  schedule 15 3 * * * (time zone Europe/Berlin), next:\n" in text
        assert text.count(" 03:15 +0") == 5

    def test_artifacts_that_fare_alike_are_told_of_together(
        self, folder: Folder, capsys: pytest.CaptureFixture[str]
    ) -> None:
        items = [f"item{number:02}" for number in range(12)]
        source = f"{{type: command, command: [echo], for_each: {items}}}".replace("'", "")
        configure(folder, source=source)
        text = planned_text(capsys, "--simulate", "4d")
        assert text.count(" copies made") == 1
        assert "item08, item09 and 2 more: 4 copies made" in text


class TestPrograms:
    def test_found_ones_have_a_version_and_missing_ones_a_package(
        self, folder: Folder, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (folder.path / "bin").mkdir()
        folder.write("bin/pg_dump", "#!/bin/sh\necho 'pg_dump (PostgreSQL) 17.5 (Debian)'\n", 0o700)
        source = f"{{type: postgres, port: 1, programs: {folder.path}/bin, globals: false}}"
        configure(folder, source=source)
        code, document = planned_document()
        assert code == 1  # no server is there
        found, missing = document["backups"][0]["programs"]
        assert found == {
            "name": "pg_dump",
            "needed_by": "source",
            "required": True,
            "to_restore": False,
            "found": [{"path": f"{folder.path}/bin/pg_dump", "version": "17.5"}],
            "install": "the package postgresql-client (Red Hat: postgresql)",
        }
        assert (missing["name"], missing["found"], missing["to_restore"]) == (
            "pg_restore",
            [],
            True,
        )
        text = planned_text(capsys)
        assert f"  program pg_dump: 17.5 ({folder.path}/bin/pg_dump)\n" in text
        assert "  program pg_restore: missing, which only a restore needs: install the" in text

    def test_a_program_of_the_user_is_never_run_to_ask_it(self, folder: Folder) -> None:
        folder.write("tool", "#!/bin/sh\ntouch ran\n", 0o700)
        configure(folder, source=f"{{type: command, command: [{folder.path}/tool]}}")
        code, document = planned_document()
        assert code == 0
        (program,) = document["backups"][0]["programs"]
        assert program["found"] == [{"path": f"{folder.path}/tool", "version": None}]
        assert not (folder.path / "ran").exists()

    def test_a_missing_one_keeps_a_backup_from_running(self, folder: Folder) -> None:
        configure(folder, source="{type: command, command: [none-such]}")
        code, document = planned_document()
        assert code == 1
        assert document["backups"][0]["error"] == (
            '"none-such" is not installed; install it, or give its full path'
        )

    @pytest.mark.parametrize(
        ("said", "found"),
        [
            ("pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)", "15.18"),
            ("mysqldump  Ver 10.19 Distrib 10.11.14-MariaDB, for debian", "10.11.14-MariaDB"),
            ("mariadb-dump from 11.8.3-MariaDB, client 10.19 for debian", "11.8.3-MariaDB"),
            ("mongodump version: 100.13.0", "100.13.0"),
            ("redis-cli 8.0.2", "8.0.2"),
            ("unknown", None),
        ],
    )
    def test_versions_are_understood(self, folder: Folder, said: str, found: str | None) -> None:
        path = folder.write("tool", f"#!/bin/sh\n[ $1 = --version ] && echo '{said}' >&2\n", 0o700)
        assert version(str(path)) == found
        assert version(str(folder.path / "none")) is None


def test_sizes_that_are_expected_are_compared(
    folder: Folder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(folder)
    store(folder, 1, stored_size=4)
    _, document = planned_document()
    assert document["backups"][0]["expected_size"] == 4
    assert document["backups"][0]["storages"][0]["takes_expected"] is True
    configure(folder, more="expected_size: 3GiB")
    monkeypatch.setattr(Local, "max_object_size", 1 << 30)
    _, document = planned_document()
    assert document["backups"][0]["expected_size"] == 3 << 30
    assert document["backups"][0]["storages"][0]["takes_expected"] is False
    assert "    error: objects of 3.0 GiB are expected\n" in planned_text(capsys)
