"""One read, every storage at once, from the built archive: the same bytes everywhere, and back."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests import tree
from tests.e2e.program import Program
from tests.servers import places

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


@pytest.fixture
def storages(tmp_path: Path) -> Iterator[dict[str, dict[str, Any]]]:
    """The configuration of each storage that can be served here."""
    with ExitStack() as stack:
        found = {name: place.keys for name, place in places.start(stack, tmp_path).items()}
        if "s3" in found:
            found["s3"]["part_size"] = "5MiB"
        yield found


def configure(program: Program, storages: dict[str, dict[str, Any]]) -> Path:
    (program.folder / "key.pub").write_text(program.ok("keygen", "key.txt"))
    here = program.folder
    stages = [{"type": "zstd"}, {"type": "age", "recipients_file": f"{here}/key.pub"}]
    backup = {
        "source": {"type": "files", "paths": [f"{here}/source"]},
        "stages": stages,
        "fan_out": [{"storage": name, "rotate": {"last": 1}} for name in storages],
    }
    # JSON is YAML.
    return program.configure(
        json.dumps({"name": "shop", "storages": storages, "backups": {"site": backup}})
    )


def test_one_read_gives_every_storage_the_same_object(
    program: Program, storages: dict[str, dict[str, Any]]
) -> None:
    source = program.folder / "source"
    tree.mixed(source, 400)
    with open(source / "large", "wb") as large, open("/dev/urandom", "rb") as random:
        for _ in range(24):
            large.write(random.read(1 << 20))
    config = configure(program, storages)
    probed = program.ok("check", config, "--connect")
    assert probed.count("ok      storage") == len(storages)

    for _ in range(2):
        report = program.json("run", config)
        assert report["outcome"] == "ok", report
    listed = program.json("list", config)["backups"]
    assert sorted(entry["storage"] for entry in listed) == sorted(storages), "rotation"
    assert len({entry["manifest"]["stored_sha256"] for entry in listed}) == 1
    assert len({entry["path"] for entry in listed}) == 1

    proofs = program.json("verify", config, "--identity", "key.txt")["verified"]
    assert [proof["outcome"] for proof in proofs] == ["proved"] * len(storages)
    for name in storages:
        back = program.folder / "back"
        program.ok(
            *("restore", config, "--backup", "site", "--storage", name),
            *("--to", back, "--identity", "key.txt"),
        )
        assert tree.differences(source, back / str(source)[1:]) == []
        shutil.rmtree(back)
