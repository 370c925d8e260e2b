"""A tree split into shards, each in a process of its own, and what that must not change."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from tests import tree
from tests.e2e.program import Program, files_below, wait_for
from tests.e2e.test_finish_or_nothing import children_of

pytestmark = pytest.mark.e2e

SECRET = "correct horse battery staple"


def configure(program: Program, rate: str = "1GiB/s", stages: str = "") -> Path:
    return program.configure(f"""\
        name: shop
        storages:
          one: {{type: local, path: "{{here}}/one"}}
          two: {{type: local, path: "{{here}}/two"}}
        defaults:
          stages: [{{type: throttle, rate: {rate}}}{stages}]
        backups:
          tree:
            source: {{type: files, paths: ["{{here}}/source"], names: relative, shards: 3}}
            fan_out:
              - {{storage: one, rotate: {{last: 1}}}}
              - {{storage: two, rotate: {{last: 5}}}}
    """)


def big(program: Program) -> None:
    source = program.folder / "source"
    source.mkdir()
    for number in range(120):
        (source / f"{number}").write_bytes(os.urandom(1 << 18))


def test_the_shards_are_restored_together_to_the_same_tree(program: Program) -> None:
    tree.build(program.folder / "source")
    config = configure(program)
    report = program.json("run", config)
    artifacts = report["backups"][0]["artifacts"]
    name = f"{program.folder}/source".strip("/").replace("/", "-")
    assert {artifact["name"] for artifact in artifacts} == {f"{name}.shard-{n}" for n in (1, 2, 3)}
    files = [artifact["counts"]["files"] for artifact in artifacts]
    assert all(files)
    program.ok("verify", config)
    program.ok("restore", config, "--backup", "tree", "--to", "back")
    assert tree.differences(program.folder / "source", program.folder / "back" / "source") == []
    only = program.folder / "only"
    program.ok("restore", config, "--backup", "tree", "--artifact", name, "--to", only)
    assert tree.differences(program.folder / "source", only / "source") == []


def test_rotation_takes_a_set_as_one(program: Program) -> None:
    big(program)
    config = configure(program)
    for _ in range(2):
        program.ok("run", config)
        time.sleep(1)
    assert len(files_below(program.folder / "one")) == 2 * 3
    assert len(files_below(program.folder / "two")) == 2 * 2 * 3
    plan = program.json("plan", config)["backups"][0]
    assert len(plan["artifacts"]) == 3
    assert any("3 times" in part["part"] for part in plan["memory"])


def test_a_set_that_lacks_a_shard_is_not_restored(program: Program) -> None:
    big(program)
    config = configure(program)
    program.ok("run", config)
    (program.folder / "source" / "later").write_text("later")
    time.sleep(1)
    program.ok("run", config)
    for storage in ("one", "two"):
        newest = max((program.folder / storage / "tree").glob("*source.shard-2/*.tar"))
        newest.unlink()
    done = program.run("restore", config, "--backup", "tree", "--to", "back")
    assert done.returncode == 0, done.stderr
    assert "shards of it are missing or damaged" in done.stderr
    back = program.folder / "back" / "source"
    assert len(list(back.iterdir())) == 120
    assert not (back / "later").exists()


def test_a_process_that_is_killed_fails_the_backup(program: Program) -> None:
    big(program)
    config = configure(program, rate="2MiB/s")
    running = program.start("run", config, "--json")
    wait_for(lambda: len(children_of(running.pid)) == 3)
    victim = children_of(running.pid)[0]
    wait_for(lambda: files_below(program.folder / "one"))
    os.kill(victim, signal.SIGKILL)
    assert running.wait(60) == 1
    told = (program.folder / "output").read_text()
    assert "was killed by signal 9" in told
    names = files_below(program.folder / "one")
    assert sum(name.endswith(".tar") for name in names) == 2


def test_an_interrupt_reaches_every_process_and_leaves_nothing(program: Program) -> None:
    big(program)
    config = configure(program, rate="1MiB/s")
    running = program.start("run", config)
    wait_for(lambda: len(children_of(running.pid)) == 3)
    wait_for(lambda: len(files_below(program.folder / "one")) == 3)
    children = children_of(running.pid)
    running.send_signal(signal.SIGTERM)
    assert running.wait(30) == 130
    assert files_below(program.folder / "one") == files_below(program.folder / "two") == []
    wait_for(lambda: not any(Path(f"/proc/{child}").exists() for child in children))


def test_processes_end_when_their_parent_is_killed(program: Program) -> None:
    big(program)
    config = configure(program, rate="1MiB/s")
    running = program.start("run", config)
    wait_for(lambda: len(files_below(program.folder / "one")) == 3)
    children = children_of(running.pid)
    running.kill()
    running.wait()
    wait_for(lambda: not any(is_alive(child) for child in children))
    assert files_below(program.folder / "one") == []


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_secret_is_in_no_argument_and_in_no_variable(program: Program) -> None:
    big(program)
    secret = program.folder / "secret"
    secret.write_text(SECRET)
    stage = ", {type: age, passphrase: '${file:{here}/secret}'}"
    config = configure(program, "1MiB/s", stage)
    running = program.start("run", config)
    wait_for(lambda: len(children_of(running.pid)) == 3)
    for child in children_of(running.pid):
        for what in ("cmdline", "environ"):
            assert SECRET.encode() not in Path(f"/proc/{child}/{what}").read_bytes()
    running.send_signal(signal.SIGTERM)
    assert running.wait(30) == 130


def test_what_a_process_reports_is_in_the_log(program: Program) -> None:
    big(program)
    config = configure(program)
    done = program.run("run", config, "--log-format", "json")
    events = [json.loads(line) for line in done.stderr.splitlines()]
    committed = [event for event in events if event["event"] == "artifact committed"]
    assert len(committed) == 2 * 3
