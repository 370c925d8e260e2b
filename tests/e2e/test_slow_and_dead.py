"""Storages that hold others back, or leave them alone, from the built archive."""

from __future__ import annotations

import hashlib
import json
import signal
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.program import Program, memory_ceiling, peak_memory, wait_for
from tests.servers import places

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

MIB = 1 << 20
WITH_SERVERS = [name for name in places.MAKERS if name != "local"]


@pytest.fixture
def disk(tmp_path: Path) -> places.Place:
    """The other storage, with which all is well."""
    return places.local(ExitStack(), tmp_path)


def configure(program: Program, storages: dict[str, Any], command: list[str], **more: Any) -> Path:
    backup = {
        "source": {"type": "command", "command": command, "name": "stream"},
        "stages": [],
        "fan_out": [{"storage": name, "required": name == "disk"} for name in storages],
        **more,
    }
    return program.configure(
        json.dumps({"name": "shop", "storages": storages, "backups": {"site": backup}})
    )


@pytest.mark.parametrize("place", WITH_SERVERS, indirect=True)
def test_a_storage_that_dies_does_not_stop_the_others(
    program: Program, place: places.Place, disk: places.Place
) -> None:
    storages = {"there": {**place.keys, "timeout": "1s"}, "disk": disk.keys}
    half = "head -c 24M /dev/urandom"
    wait = "touch half; while [ ! -e go ]; do sleep 0.02; done"
    config = configure(program, storages, ["sh", "-c", f"{half}; {wait}; {half}"])
    process = program.start("run", config, "--json")
    wait_for((program.folder / "half").exists)
    place.server.kill()
    (program.folder / "go").touch()
    assert process.wait(120) == 3
    config = configure(program, {"disk": disk.keys}, ["true"])
    (listed,) = program.json("list", config)["backups"]
    assert listed["storage"] == "disk"
    assert listed["manifest"]["stored_size"] == 48 * MIB
    program.ok("restore", config, "--backup", "site", "--to", program.folder / "back")
    content = (program.folder / "back").read_bytes()
    assert hashlib.sha256(content).hexdigest() == listed["manifest"]["stored_sha256"]


@pytest.mark.parametrize("place", WITH_SERVERS, indirect=True)
def test_a_slow_storage_does_not_make_memory_grow(
    program: Program, place: places.Place, disk: places.Place
) -> None:
    with place.through_a_proxy(rate=MIB) as (keys, proxy):
        storages = {"there": keys, "disk": disk.keys}
        config = configure(program, storages, ["head", "-c", "4G", "/dev/zero"], buffer="16MiB")
        allowed = memory_ceiling(program, config)
        process = program.start("run", config)
        proxy.wait_sent(4 * MIB)
        written = sum(part.stat().st_size for part in disk.data.rglob(".*.part"))
        process.send_signal(signal.SIGTERM)
        code, peak = peak_memory(process)
    assert code == 130
    assert 100 * MIB < allowed < 200 * MIB
    assert peak < allowed
    # The fast one waits as well: nothing is hoarded on its behalf.
    assert 0 < written < 100 * MIB
