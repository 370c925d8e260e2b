"""Series of increments of `files` from end to end: runs, lists, restores, indexes that are lost."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import anyio
import pytest

from pipeline.cli.main import main
from pipeline.report import ArtifactReport, Outcome
from pipeline.runner import Runner
from schemas.load import load
from tests import tree
from tests.series import let_time_pass, quick_clock  # noqa: F401

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.integration

CONFIGURATION = """\
name: shop
host: {host}
storages:
  disk: {{type: local, path: "{here}/disk"}}
backups:
  site:
    source:
      type: files
      paths: ["{here}/site"]
      names: relative
      incremental: {{full: {full}, levels: [{levels}]{key}}}
    stages: [{{type: zstd}}{stage}]
    fan_out: [{{storage: disk{rotate}}}]
"""


class Shop:
    """A folder with a site, a disk for its backups, and a configuration."""

    def __init__(self, here: Path) -> None:
        self.here = here
        self.site = here / "site"
        self.today = on("2026-03-01")
        (self.site / "pages/deep").mkdir(parents=True)
        for number in range(20):
            (self.site / "pages" / f"{number}.html").write_text(f"{number} " * 300)
        (self.site / "pages/deep/file").write_text("deep")
        self.configure()

    def configure(self, **words: str) -> None:
        """Write the configuration."""
        words = {"host": "web-1", "full": "never", "levels": "", **words}
        for word in ("key", "stage", "rotate"):
            words.setdefault(word, "")
        path = self.here / "pipeline.yaml"
        path.write_text(CONFIGURATION.format(here=self.here, **words))
        path.chmod(0o600)

    def run(self, command: str, *arguments: str) -> None:
        """A command of the program, which must succeed."""
        assert main([command, *arguments]) == 0

    def backup(self, day: str | None = None) -> ArtifactReport:
        """Run the backup, each time on a later day; returns the report of its artifact."""
        let_time_pass()
        self.today = on(day) if day else self.today + timedelta(days=1)
        pipeline = load(self.here / "pipeline.yaml").pipeline
        report = anyio.run(Runner(pipeline, clock=lambda: self.today).run)
        let_time_pass()
        assert report.outcome is Outcome.OK, report
        return report.backups[0].artifacts[0]

    def manifests(self) -> list[dict[str, Any]]:
        """Oldest first."""
        found = sorted((self.here / "disk").rglob("*.manifest.json"))
        return [json.loads(path.read_text()) for path in found]

    def levels(self) -> list[int]:
        return [manifest["level"] for manifest in self.manifests()]

    def indexes(self) -> list[Path]:
        return sorted((self.here / "disk").rglob("*.snapshot.zst*"))

    def restore(self, at: str, *more: str) -> Path:
        """Restore what was there at a time; returns where."""
        target = Path(tempfile.mkdtemp(dir=self.here)) / "back"
        file = str(self.here / "pipeline.yaml")
        self.run("restore", file, "--backup", "site", "--at", at, "--to", str(target), *more)
        return target / "site"

    def keep(self) -> Path:
        """A copy of the site as it is now."""
        saved = Path(tempfile.mkdtemp(dir=self.here)) / "kept"
        subprocess.run(["cp", "-a", str(self.site), str(saved)], check=True)
        return saved


@pytest.fixture
def shop(tmp_path: Path, quick_clock: None) -> Shop:  # noqa: ARG001, F811
    return Shop(tmp_path)


def test_every_moment_can_be_restored_also_with_the_line_in_the_manifest(shop: Shop) -> None:
    kept = []
    for step in range(3):
        if step == 1:
            (shop.site / "pages").rename(shop.site / "moved")
            (shop.site / "moved/3.html").write_text("changed")
            (shop.site / "moved/4.html").unlink()
        elif step == 2:
            (shop.site / "pages").mkdir()
            (shop.site / "moved/deep").rename(shop.site / "pages/deep")
        report = shop.backup()
        assert report.warnings == []
        kept.append(shop.keep())
    assert report.plain_size < 20_000
    manifests = shop.manifests()
    assert [manifest["level"] for manifest in manifests] == [0, 1, 2]
    for manifest, saved in zip(manifests, kept, strict=True):
        assert tree.differences(saved, shop.restore(manifest["taken_at"])) == []
        by_hand = shop.here / f"by-hand-{manifest['level']}"
        by_hand.mkdir()
        folder = next((shop.here / "disk").rglob(manifest["object"])).parent
        for object_name in folder.iterdir():
            (by_hand / object_name.name).symlink_to(object_name)
        subprocess.run(["sh", "-e", "-c", manifest["restore"]], cwd=by_hand, check=True)
        assert tree.differences(saved, by_hand / "site") == []
    assert tree.differences(kept[2], shop.restore("latest")) == []


@pytest.mark.parametrize("damage", ["lost", "cut", "of another host", "other settings"])
def test_without_a_usable_index_a_full_copy_leaves_the_old_chain_alone(
    shop: Shop, damage: str
) -> None:
    shop.backup()
    (shop.site / "new").write_text("new")
    shop.backup()
    saved, middle = shop.keep(), shop.manifests()[1]["taken_at"]
    objects = {path: path.read_bytes() for path in (shop.here / "disk").rglob("*.tar.zst")}
    if damage == "lost":
        shop.indexes()[1].unlink()
        shop.indexes()[0].unlink()
    elif damage == "cut":
        for path in shop.indexes():
            os.truncate(path, path.stat().st_size - 1)
    elif damage == "of another host":
        shop.configure(host="web-2")
    else:
        text = (shop.here / "pipeline.yaml").read_text()
        text = text.replace("names: relative", 'names: relative\n      exclude: ["*.tmp"]')
        (shop.here / "pipeline.yaml").write_text(text)
    (shop.site / "newer").write_text("newer")
    report = shop.backup()
    assert shop.levels() == [0, 1, 0]
    if damage != "of another host":
        assert "full copy" in report.warnings[-1]
    assert {path: path.read_bytes() for path in objects} == objects
    assert tree.differences(shop.site, shop.restore("latest")) == []
    if damage == "of another host":
        shop.configure(host="web-1")
    assert tree.differences(saved, shop.restore(middle)) == []


def test_encrypted_for_recipients_only_the_index_has_a_key_of_its_own(shop: Shop) -> None:
    here = shop.here
    for name in ("data", "index"):
        shop.run("keygen", str(here / f"{name}.key"))
    recipient = (here / "data.key").read_text().split("public key: ")[1].split()[0]
    (here / "data.key").rename(here / "far-away.key")
    shop.configure(
        key=f', index_identity: "{here}/index.key"',
        stage=f", {{type: age, recipients: [{recipient}]}}",
    )
    shop.backup()
    (shop.site / "pages/1.html").write_text("changed")
    shop.backup()
    assert shop.levels() == [0, 1]
    for path in shop.indexes():
        assert path.name.endswith(".snapshot.zst.age")
        assert path.read_bytes().startswith(b"age-encryption.org/v1")
    identity = ("--identity", str(here / "far-away.key"))
    assert tree.differences(shop.site, shop.restore("latest", *identity)) == []
    (here / "index.key").unlink()
    shop.run("keygen", str(here / "index.key"))
    (shop.site / "pages/2.html").write_text("changed")
    report = shop.backup()
    assert report.warnings[-1] == "a full copy: no index can be read"
    assert shop.levels() == [0, 1, 0]
    assert tree.differences(shop.site, shop.restore("latest", *identity)) == []


def test_the_program_itself_on_real_time(shop: Shop) -> None:
    """Nothing is old enough to be trusted: what was written just now is saved twice."""
    command = [sys.executable, "-m", "pipeline", "run", str(shop.here / "pipeline.yaml")]
    for content in ("one", "two", "six"):
        (shop.site / "pages/1.html").write_text(content)
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=100)
    assert shop.levels() == [0, 1, 2]
    assert tree.differences(shop.site, shop.restore("latest")) == []


def test_the_calendar_of_v3_and_rotation(shop: Shop) -> None:
    shop.configure(full="yearly", levels="monthly, ten_days, daily", rotate=", rotate: {last: 3}")
    days = ["2026-01-05", "2026-01-06", "2026-01-11", "2026-01-12", "2026-02-01", "2026-02-02"]
    for number, day in enumerate(days):
        (shop.site / f"of-{number}").write_text(day)
        shop.backup(day)
    # Those of February, and what they and the newest of January are built on.
    assert shop.levels() == [0, 2, 3, 1, 3]
    assert len(shop.indexes()) == 5
    assert tree.differences(shop.site, shop.restore("latest")) == []
    shutil.rmtree(shop.site / "pages")
    assert shop.backup("2027-01-01").warnings == []
    assert shop.manifests()[-1]["level"] == 0


def on(day: str) -> datetime:
    return datetime.fromisoformat(day).replace(tzinfo=timezone.utc)
