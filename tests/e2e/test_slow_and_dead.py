"""Storages that hold others back, or leave them alone, from the built archive."""

from __future__ import annotations

import hashlib
import json
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.program import Program, peak_memory, wait_for
from tests.servers import places
from tests.servers.proxy import Proxy

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

MIB = 1 << 20


@pytest.fixture
def here(tmp_path: Path) -> Iterator[dict[str, places.Place]]:
    with ExitStack() as stack:
        yield places.start(stack, tmp_path)


def configure(program: Program, storages: dict[str, Any], command: list[str], **more: Any) -> Path:
    optional = {"storage": "sftp", "required": False}
    edges = [optional if name == "sftp" else {"storage": name} for name in storages]
    backup = {
        "source": {"type": "command", "command": command, "name": "stream"},
        "stages": [],
        "fan_out": edges,
        **more,
    }
    return program.configure(
        json.dumps({"name": "shop", "storages": storages, "backups": {"site": backup}})
    )


def test_a_storage_that_dies_does_not_stop_the_others(
    program: Program, here: dict[str, places.Place]
) -> None:
    storages = {name: dict(place.keys) for name, place in here.items()}
    storages["sftp"]["timeout"] = "1s"
    half = "head -c 24M /dev/urandom"
    wait = "touch half; while [ ! -e go ]; do sleep 0.02; done"
    config = configure(program, storages, ["sh", "-c", f"{half}; {wait}; {half}"])
    process = program.start("run", config, "--json")
    wait_for((program.folder / "half").exists)
    here["sftp"].server.kill()
    (program.folder / "go").touch()
    assert process.wait(120) == 3
    del storages["sftp"]
    config = configure(program, storages, ["true"])
    listed = program.json("list", config)["backups"]
    assert sorted(entry["storage"] for entry in listed) == sorted(storages)
    assert {entry["manifest"]["stored_size"] for entry in listed} == {48 * MIB}
    digests = {entry["manifest"]["stored_sha256"] for entry in listed}
    assert len(digests) == 1
    for name in storages:
        back = program.folder / f"back-{name}"
        program.ok("restore", config, "--backup", "site", "--storage", name, "--to", back)
        content = (back / "stream" if back.is_dir() else back).read_bytes()
        assert hashlib.sha256(content).hexdigest() in digests


def test_a_slow_storage_does_not_make_memory_grow(
    program: Program, here: dict[str, places.Place]
) -> None:
    sftp, local = dict(here["sftp"].keys), dict(here["local"].keys)
    with Proxy(sftp["port"], rate=MIB) as proxy:
        storages = {"sftp": {**sftp, "port": proxy.port}, "local": local}
        config = configure(program, storages, ["head", "-c", "4G", "/dev/zero"], buffer="16MiB")
        (ceiling,) = [plan for plan in program.ok("check", config).splitlines() if "memory" in plan]
        process = program.start("run", config)
        proxy.wait_sent(8 * MIB)
        parts = list(here["local"].data.rglob(".*.part"))
        process.send_signal(signal.SIGTERM)
        written = sum(part.stat().st_size for part in parts if part.exists())
        code, peak = peak_memory(process)
    assert code == 130
    allowed = float(ceiling.split()[-2]) * MIB
    assert ceiling.endswith("MiB")
    assert 100 * MIB < allowed < 200 * MIB
    assert peak < allowed
    # The fast one waits as well: nothing is hoarded on its behalf.
    assert written < 80 * MIB
