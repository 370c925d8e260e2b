"""Killed, interrupted, refused: what the program says, how it exits, what is left behind."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.e2e.program import Program, files_below, wait_for
from tests.servers.base import HOST
from tests.servers.sshd import USER, Sshd

pytestmark = pytest.mark.e2e

# Gives 64 MiB, then waits for the file `go`, then does as it says.
PRODUCER = """\
import os, sys, time
for _ in range(64):
    sys.stdout.buffer.write(os.urandom(1 << 20))
sys.stdout.flush()
open("reached", "w").close()
while not os.path.exists("go"):
    time.sleep(0.01)
sys.exit(int(open("go").read() or 0))
"""
CONFIGURATION = """\
    name: shop
    storages:
      disk: {type: local, path: "{here}/disk"}
      nas:
        type: sftp
        host: {host}
        port: {port}
        user: {user}
        key_file: {key}
        host_key: {host_key}
        path: {remote}
        timeout: 10s
    backups:
      dump:
        source: {type: command, command: ["{python}", "{here}/producer.py"]}
        stages: [{type: age, recipients_file: "{here}/key.pub"}]
        fan_out:
          - {storage: disk}
          - {storage: nas, required: {required}}
"""


@pytest.fixture
def remote(sshd: Sshd, tmp_path: Path) -> Path:
    return sshd.data / tmp_path.name


@pytest.fixture
def config(program: Program, sshd: Sshd, remote: Path) -> Path:
    return configure(program, sshd, remote)


def configure(program: Program, sshd: Sshd, remote: Path, required: bool = True) -> Path:
    (program.folder / "producer.py").write_text(PRODUCER)
    if not (program.folder / "key.txt").exists():
        (program.folder / "key.pub").write_text(program.ok("keygen", "key.txt"))
    text = CONFIGURATION
    values = {
        "host": HOST,
        "port": sshd.port,
        "user": USER,
        "key": sshd.key,
        "host_key": sshd.host_key,
        "remote": remote,
        "python": sys.executable,
        "required": str(required).lower(),
    }
    for name, value in values.items():
        text = text.replace("{" + name + "}", str(value))
    return program.configure(text)


def go(program: Program, code: int = 0) -> None:
    (program.folder / "go").write_text(str(code))


def reached(program: Program) -> bool:
    return (program.folder / "reached").exists()


def output(program: Program) -> str:
    return (program.folder / "output").read_text()


def backups_on(*folders: Path) -> list[int]:
    """How many objects and manifests are visible, and how many unfinished ones, in each folder."""
    return [len(files_below(folder)) for folder in folders]


def test_a_program_that_fails_half_way(program: Program, config: Path, remote: Path) -> None:
    go(program)
    program.ok("run", config)
    assert backups_on(program.folder / "disk", remote) == [2, 2]
    before = files_below(program.folder / "disk")

    go(program, 9)
    done = program.run("run", config)
    assert done.returncode == 1
    assert "backup=dump" in done.stderr
    assert 'source command: "' in done.stderr
    assert "failed with exit code 9" in done.stderr
    assert files_below(program.folder / "disk") == before
    assert backups_on(remote) == [2]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_nothing(
    program: Program, config: Path, remote: Path, number: signal.Signals
) -> None:
    running = program.start("run", config)
    wait_for(lambda: reached(program))
    children = children_of(running.pid)
    assert children
    running.send_signal(number)
    assert running.wait(20) == 130
    assert backups_on(program.folder / "disk", remote) == [0, 0]
    assert "interrupted" in output(program)
    for child in children:
        assert not os.path.exists(f"/proc/{child}"), "the program it had started still runs"


def test_a_second_signal_ends_it_at_once(program: Program, config: Path, sshd: Sshd) -> None:
    running = program.start("run", config)
    wait_for(lambda: reached(program))
    sshd.freeze()  # the clean way now has to wait for a server that does not answer
    try:
        children = children_of(running.pid)
        running.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        running.send_signal(signal.SIGTERM)
        assert running.wait(5) == 130
        wait_for(lambda: not [child for child in children if is_alive(child)])
    finally:
        sshd.thaw()


def test_killed_then_cleared_by_the_next_run(program: Program, config: Path, remote: Path) -> None:
    running = program.start("run", config)
    wait_for(lambda: reached(program) and backups_on(program.folder / "disk", remote) == [1, 1])
    children = children_of(running.pid)
    running.kill()
    running.wait()
    for child in children:
        os.kill(child, signal.SIGKILL)
    for folder in (program.folder / "disk", remote):
        assert [name.rpartition("/")[2][0] for name in files_below(folder)] == ["."]
    assert program.json("list", config)["backups"] == []

    go(program)
    report = program.json("run", config)
    assert len(report["backups"][0]["cleared"]) == 2
    assert backups_on(program.folder / "disk", remote) == [2, 2]


def test_killed_then_cleared_by_prune(program: Program, config: Path, remote: Path) -> None:
    running = program.start("run", config)
    wait_for(lambda: reached(program) and backups_on(program.folder / "disk", remote) == [1, 1])
    children = children_of(running.pid)
    running.kill()
    running.wait()
    for child in children:
        os.kill(child, signal.SIGKILL)
    dry = program.json("prune", config, "--dry-run")
    assert [len(result["cleared"]) for result in dry["pruned"]] == [1, 1]
    assert backups_on(program.folder / "disk", remote) == [1, 1]
    program.ok("prune", config)
    assert backups_on(program.folder / "disk", remote) == [0, 0]


@pytest.mark.parametrize(("required", "code"), [(True, 1), (False, 3)])
def test_a_server_that_disappears(
    program: Program, sshd: Sshd, remote: Path, required: bool, code: int
) -> None:
    config = configure(program, sshd, remote, required)
    running = program.start("run", config, "--json")
    wait_for(lambda: reached(program))
    sshd.kill()
    try:
        go(program)
        assert running.wait(60) == code
    finally:
        sshd.start()
    assert "nas" in output(program)
    assert backups_on(program.folder / "disk") == [2]
    assert not [name for name in files_below(remote) if name.rpartition("/")[2][0] != "."]


def test_a_held_lock_is_exit_11_and_prune_waits_for_nobody(program: Program, config: Path) -> None:
    running = program.start("run", config)
    wait_for(lambda: reached(program))
    second = program.run("run", config)
    assert second.returncode == 11
    assert f"pid {running.pid}" in second.stderr
    assert program.run("prune", config).returncode == 11
    go(program)
    assert running.wait(30) == 0


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_logs_that_cannot_be_written_cost_no_backup(program: Program) -> None:
    config = program.configure("""\
        name: shop
        storages: {disk: {type: local, path: "{here}/disk"}}
        backups:
          it: {source: {type: command, command: [echo, hi]}, fan_out: [{storage: disk}]}
    """)
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            program.command("run", config),
            env=program.environment,
            stdout=subprocess.PIPE,
            stderr=full,
            check=False,
            timeout=60,
        )
    assert done.returncode == 0
    assert len(files_below(program.folder / "disk")) == 2


def test_a_log_nobody_reads_holds_up_neither_the_run_nor_a_signal(program: Program) -> None:
    config = program.configure("""\
        name: shop
        storages: {disk: {type: local, path: "{here}/disk"}}
        backups:
          it: {source: {type: command, command: [sleep, "60"]}, fan_out: [{storage: disk}]}
    """)
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(write, False)
    try:
        while True:
            os.write(write, b"x" * 512)
    except BlockingIOError:
        os.set_blocking(write, True)
    running = subprocess.Popen(
        program.command("run", config, "-v"),
        env=program.environment,
        stdout=subprocess.DEVNULL,
        stderr=write,
    )
    try:
        wait_for(lambda: children_of(running.pid))
        running.send_signal(signal.SIGTERM)
        assert running.wait(20) == 130
    finally:
        os.close(read)
        os.close(write)
    assert files_below(program.folder / "disk") == []


def test_a_stage_that_never_ends_is_noticed(program: Program) -> None:
    config = program.configure("""\
        name: shop
        storages: {disk: {type: local, path: "{here}/disk"}}
        backups:
          it:
            source: {type: command, command: [echo, hi]}
            stages: [{type: filter, command: [sh, -c, "cat >/dev/null; sleep 60"]}]
            fan_out: [{storage: disk}]
            stall_timeout: 1s
    """)
    done = program.run("run", config, timeout=40)
    assert done.returncode == 1
    assert "no progress for 1 s" in done.stdout
    assert files_below(program.folder / "disk") == []


def test_interrupting_verify_is_130(program: Program) -> None:
    config = program.configure("""\
        name: shop
        storages: {disk: {type: local, path: "{here}/disk"}}
        backups:
          it:
            source: {type: stdin}
            stages: [{type: filter, command: [cat], inverse: [sh, -c, "cat; sleep 60"]}]
            fan_out: [{storage: disk}]
    """)
    program.ok("run", config, stdin=b"data")
    running = program.start("verify", config)
    wait_for(lambda: children_of(running.pid))
    running.send_signal(signal.SIGTERM)
    assert running.wait(20) == 130


def test_global_options_before_the_command(program: Program) -> None:
    config = program.configure("""\
        name: shop
        storages: {disk: {type: local, path: "{here}/disk"}}
        backups:
          it: {source: {type: command, command: [echo, hi]}, fan_out: [{storage: disk}]}
    """)
    done = program.run("--log-format", "json", "-q", "run", config)
    assert done.returncode == 0
    assert done.stderr == ""
    done = program.run("run", config, "--log-format", "json")
    assert all(json.loads(line)["event"] for line in done.stderr.splitlines())


def children_of(pid: int) -> list[int]:
    found = []
    for task in os.listdir(f"/proc/{pid}/task"):
        try:
            text = Path(f"/proc/{pid}/task/{task}/children").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue  # The thread has ended meanwhile.
        found += [int(child) for child in text.split()]
    return found


REFUSALS = {
    "unknown backup": (["--backup", "nope"], 1, 'there is no backup "nope"'),
    "unknown option": (["--nope"], 2, "unrecognized arguments"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_exit_codes_of_wrong_calls(program: Program, config: Path, case: str) -> None:
    arguments, code, message = REFUSALS[case]
    done = program.run("run", config, *arguments)
    assert done.returncode == code
    assert message in done.stderr
    assert done.stdout == ""


FAILURES = {
    "nothing matches": ('{type: files, paths: ["{here}/nothing/*"]}', "nothing matches"),
    "empty dump": ("{type: command, command: ['true']}", "an empty dump is no backup"),
    "empty input": ("{type: stdin}", "an empty dump is no backup"),
    "no such program": ("{type: command, command: [no-such-program]}", "no-such-program"),
    "killed": ("{type: command, command: [sh, -c, 'echo x; kill -9 $$$$']}", "SIGKILL"),
}


@pytest.mark.parametrize("case", FAILURES)
def test_a_source_that_gives_no_backup_is_a_failure(program: Program, case: str) -> None:
    source, message = FAILURES[case]
    config = program.configure(f"""\
        name: shop
        storages: {{disk: {{type: local, path: "{{here}}/disk"}}}}
        backups:
          it: {{source: {source}, fan_out: [{{storage: disk}}]}}
    """)
    done = program.run("run", config)
    assert done.returncode == 1, done
    assert message in done.stderr
    assert "[FAILED]" in done.stdout
    assert files_below(program.folder / "disk") == []


def test_one_failing_backup_does_not_stop_the_others(program: Program) -> None:
    config = program.configure("""\
        name: shop
        storages: {disk: {type: local, path: "{here}/disk"}}
        backups:
          bad: {source: {type: command, command: ["false"]}, fan_out: [{storage: disk}]}
          good: {source: {type: command, command: [echo, hi]}, fan_out: [{storage: disk}]}
    """)
    report = program.json("run", config, code=1)
    assert [backup["outcome"] for backup in report["backups"]] == ["failed", "ok"]


def test_an_unreadable_file_makes_it_partial(program: Program) -> None:
    source = program.folder / "source"
    source.mkdir()
    (source / "good").write_text("good")
    (source / "secret").write_text("secret")
    (source / "secret").chmod(0)
    for mode, code in (("warn", 3), ("ignore", 0), ("fail", 1)):
        config = program.configure(f"""\
            name: shop
            host: {mode}
            storages: {{disk: {{type: local, path: "{{here}}/disk-{mode}"}}}}
            backups:
              it:
                source: {{type: files, paths: ["{{here}}/source"], on_unreadable: {mode}}}
                fan_out: [{{storage: disk}}]
        """)
        done = run_without_privilege(program, config)
        assert done == code, (mode, output(program))
        if mode == "warn":
            assert "secret: permission denied" in output(program).lower()


def run_without_privilege(program: Program, config: Path) -> int:
    """Run so that file modes count: root keeps its user id, but not its power over modes."""
    drop = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]
    command = program.command("run", config)
    with open(program.folder / "output", "wb") as out:
        done = subprocess.run(
            [*drop, *command] if os.geteuid() == 0 else command,
            cwd=program.folder,
            env=program.environment,
            stdout=out,
            stderr=subprocess.STDOUT,
            check=False,
            timeout=60,
        )
    return done.returncode
