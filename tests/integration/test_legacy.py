"""Copies of nxs-backup v3 on a disk and behind a real SSH server: listed, and aged out by runs."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli.main import main
from tests.servers.base import HOST
from tests.servers.sshd import USER, Sshd
from tests.v3_trees import Increments, Placed, discrete, files_of, put_indexes, put_on_disk

NOW = datetime.now(timezone.utc).replace(second=0, microsecond=0)
FOREIGN = ("site/www/daily/notes.txt", "site/www/daily/www_2020-01-01_00-00.sql", "site/readme")


@pytest.fixture(scope="module")
def server() -> Iterator[Sshd]:
    with Sshd() as sshd:
        yield sshd


@pytest.fixture(params=["local", "sftp"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """A directory, and a storage that is that directory."""
    if request.param == "local":
        return tmp_path / "old", {"type": "local", "path": str(tmp_path / "old")}
    server: Sshd = request.getfixturevalue("server")
    root = server.data / f"old-{tmp_path.name}"
    block = {"type": "sftp", "host": HOST, "port": server.port, "user": USER, "path": str(root)}
    return root, {**block, "key_file": str(server.key), "host_key": server.host_key}


class Setup:
    """A configuration for a tree of v3."""

    def __init__(self, tmp_path: Path, root: Path, storage: dict[str, Any]) -> None:
        self.root = root
        (tmp_path / "www").mkdir()
        (tmp_path / "www" / "index.html").write_text("hello")
        branch = {"storage": "old", "legacy": "nxs-v3", "legacy_directory": "site"}
        self.document: dict[str, Any] = {
            "name": f"legacy-{secrets.token_hex(4)}",
            "host": "web-1",
            "storages": {"old": storage},
            "backups": {
                "files": {
                    "source": {"type": "files", "paths": [str(tmp_path / "www")]},
                    "fan_out": [{**branch, "rotate": {"last": 3}}],
                }
            },
        }
        self.file = tmp_path / "pipeline.yaml"
        self.file.touch(0o600)
        self.save()

    def save(self) -> None:
        self.file.write_text(json.dumps(self.document))

    def call(self, capfd: pytest.CaptureFixture[str], *arguments: str) -> Any:
        command, *options = arguments
        code = main([command, str(self.file), *options])
        out, err = capfd.readouterr()
        assert code == 0, err
        return json.loads(out) if "--json" in options else out

    def put(self, copies: Iterable[Placed]) -> None:
        """What v3 wrote; the user of the server may remove it."""
        put_on_disk(self.root, copies)
        for directory in (self.root, *self.root.rglob("*")):
            if directory.is_dir():
                directory.chmod(0o777)

    def ours(self) -> set[str]:
        return {path for path in files_of(self.root) if path.startswith("files/")}

    def old(self) -> set[str]:
        return files_of(self.root) - self.ours()

    def dangling(self) -> list[Path]:
        return [path for path in self.root.rglob("*") if path.is_symlink() and not path.exists()]


@pytest.fixture
def setup(tmp_path: Path, place: tuple[Path, dict[str, Any]]) -> Setup:
    root, storage = place
    found = Setup(tmp_path, root, storage)
    root.parent.mkdir(parents=True, exist_ok=True)
    for name in FOREIGN:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("not of v3")
    return found


def month_of_days() -> list[datetime]:
    return [NOW - timedelta(days=number, hours=1) for number in range(35, 0, -1)]


@pytest.mark.integration
def test_discrete_copies_are_listed_and_age_out(
    setup: Setup, capfd: pytest.CaptureFixture[str]
) -> None:
    placed = list(discrete("site/www", "www", month_of_days()))
    setup.put(placed)
    before = setup.old()
    assert len(before) > len(placed) + len(FOREIGN)  # with links for Sundays

    listed = setup.call(capfd, "list", "--json")
    assert {each["path"] for each in listed["legacy"]} == {copy.paths[0] for copy in placed}
    assert setup.call(capfd, "list").count("legacy nxs-v3") == 35

    (pruned,) = setup.call(capfd, "prune", "--dry-run", "--json")["pruned"]
    assert set(pruned["removed"]) == {copy.paths[0] for copy in placed[:-3]}
    (planned,) = setup.call(capfd, "plan", "--json")["backups"]
    assert planned["storages"][0]["would_remove"] == pruned["removed"]
    assert setup.old() == before

    (report,) = setup.call(capfd, "run", "--json")["backups"]
    assert {f"old:{copy.paths[0]}" for copy in placed[:-2]} == set(report["removed"])
    left = {path for copy in placed[-2:] for path in copy.paths}
    assert setup.old() == {*left, *FOREIGN}
    assert setup.dangling() == []
    assert len(setup.ours()) == 2


@pytest.mark.integration
def test_without_rules_nothing_is_removed(setup: Setup, capfd: pytest.CaptureFixture[str]) -> None:
    setup.put(discrete("site/www", "www", month_of_days()))
    before = setup.old()
    del setup.document["backups"]["files"]["fan_out"][0]["rotate"]
    setup.save()
    setup.call(capfd, "run")
    setup.call(capfd, "prune")
    assert setup.old() == before


@pytest.mark.integration
def test_a_run_that_failed_removes_nothing(setup: Setup) -> None:
    setup.put(discrete("site/www", "www", month_of_days()))
    before = setup.old()
    setup.document["backups"]["files"]["source"] = {"type": "command", "command": ["false"]}
    setup.save()
    assert main(["run", str(setup.file)]) == 1
    assert setup.old() == before


@pytest.mark.integration
def test_increments_keep_what_they_build_on_until_all_may_go(
    setup: Setup, capfd: pytest.CaptureFixture[str]
) -> None:
    job = Increments("site/www", "www")
    first = datetime(NOW.year - 1, 1, 20, 3, 15, tzinfo=timezone.utc)
    runs = [first + timedelta(days=number) for number in range(60)]
    placed = [copy for run in runs if (copy := job.run(run)) is not None]
    assert len(placed) == 60
    put_indexes(setup.root, job)
    setup.put(placed)

    chain = {copy.paths[0] for copy in placed if copy.started.day in (1, 11, 21)}
    chain |= {placed[0].paths[0], placed[-1].paths[0]}
    assert placed[-1].base in chain
    assert len(chain) == 8  # 20 and 21 January, three of February, two of March, the day

    setup.document["backups"]["files"]["fan_out"][0]["rotate"] = {"last": 1}
    setup.save()
    (pruned,) = setup.call(capfd, "prune", "--json")["pruned"]
    assert len(pruned["removed"]) == 60 - 8
    assert chain <= setup.old()
    assert setup.dangling() == []
    assert len([path for path in setup.old() if path.endswith(".inc")]) == 3

    setup.call(capfd, "run")
    assert setup.old() == set(FOREIGN)
