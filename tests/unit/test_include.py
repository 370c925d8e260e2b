"""Files that include others: what is merged, in which order, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from schemas.storages import LocalStorage
from tests.unit.config_folder import MINIMAL, Folder

BOTH = MINIMAL.replace("{storage: nas}", "{storage: nas}, {storage: hdd}")
HDD = "storages: {hdd: {type: local, path: /mnt}}\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    monkeypatch.chdir(tmp_path)
    return Folder(tmp_path)


def test_included_files_are_merged_by_name(folder: Folder) -> None:
    folder.write(
        "conf.d/20-backups.yaml",
        "backups: {srv: {source: {type: stdin}, fan_out: [{storage: hdd}], notify: [ops]}}\n",
    )
    folder.write(
        "conf.d/10-storages.yaml", "storages: {hdd: {type: local, path: '${file:path}'}}\n"
    )
    folder.write("conf.d/path", "/mnt\n")
    folder.write("conf.d/30-empty.yaml", "# nothing yet\n")
    folder.write("conf.d/.hidden.yaml", "wrong: 1\n")
    folder.write("conf.d/folder.yaml/x", "wrong: 1\n")
    folder.write("more/host.yaml", "host: web-1\ninclude: [../deep.yaml]\n")
    folder.write("deep.yaml", "notifiers: {ops: {type: webhook, url: '${HOOK}'}}\n")
    loaded = folder.load(
        "include: [conf.d/*.yaml, more/host.yaml]\n" + MINIMAL, {"HOOK": "http://host/"}
    )
    pipeline = loaded.pipeline
    assert list(pipeline.storages) == ["nas", "hdd"]
    assert pipeline.storages["hdd"] == LocalStorage(type="local", path="/mnt")
    assert list(pipeline.backups) == ["etc", "srv"]
    assert (pipeline.host, list(pipeline.notifiers)) == ("web-1", ["ops"])
    assert [str(path) for path in loaded.files] == [
        "pipeline.yaml",
        "conf.d/10-storages.yaml",
        "conf.d/20-backups.yaml",
        "conf.d/30-empty.yaml",
        "more/host.yaml",
        "more/../deep.yaml",
    ]
    assert loaded.warnings == []


def test_a_file_that_is_included_twice_is_read_once(folder: Folder) -> None:
    folder.write("a.yaml", "include: [c.yaml]\n")
    folder.write("b.yaml", "include: [c.yaml]\n")
    folder.write("c.yaml", HDD)
    assert len(folder.load("include: [a.yaml, b.yaml]\n" + BOTH).files) == 4


def test_defaults_may_come_from_an_included_file(folder: Folder) -> None:
    folder.write("a.yaml", "defaults: {buffer: 8MiB}\n")
    pipeline = folder.load("include: [a.yaml]\n" + MINIMAL).pipeline
    assert pipeline.backup("etc").buffer == 8 << 20


def test_an_alias_of_a_section_does_not_grow_with_it(folder: Folder) -> None:
    folder.write("a.yaml", HDD)
    loaded = folder.load(
        """
        name: shop
        include: [a.yaml]
        notifiers: &none {}
        storages: *none
        backups: {etc: {source: {type: stdin}, fan_out: [{storage: hdd}]}}
        """
    )
    assert list(loaded.pipeline.storages) == ["hdd"]
    assert loaded.pipeline.notifiers == {}


def test_a_pattern_that_matches_nothing_is_a_warning(folder: Folder) -> None:
    loaded = folder.load("include: [conf.d/*.yaml]\n" + MINIMAL)
    assert [str(warning) for warning in loaded.warnings] == [
        "pipeline.yaml:1:11: warning: include[0]: matches no file\n"
        "    hint: a relative pattern starts at the folder of this file"
    ]


def test_a_pattern_that_matches_the_file_itself_is_refused(folder: Folder) -> None:
    assert folder.errors("include: ['*.yaml']\n" + MINIMAL) == [
        "pipeline.yaml:1:11: include[0]: leads back to itself\n    hint: remove one of the includes"
    ]


def test_a_link_to_an_including_file_is_refused(folder: Folder) -> None:
    (folder.path / "link.yaml").symlink_to("pipeline.yaml")
    assert folder.errors("include: [link.yaml]\n" + MINIMAL)[0].startswith(
        "pipeline.yaml:1:11: include[0]: leads back to itself"
    )


def test_a_long_row_of_includes_is_refused(folder: Folder) -> None:
    for number in range(30):
        folder.write(f"{number}.yaml", f"include: [{number + 1}.yaml]\n")
    assert folder.errors("include: [0.yaml]\n" + MINIMAL) == [
        "14.yaml:1:11: include[0]: includes too many files in a row\n"
        "    hint: remove one of the includes"
    ]
