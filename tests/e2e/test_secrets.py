"""A secret of the configuration appears nowhere: not in output, objects or the process list."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.program import Program, files_below
from tests.servers.base import HOST, process_tree
from tests.servers.http import Answer, HttpSink
from tests.servers.sshd import PASSWORD, USER, Sshd

pytestmark = pytest.mark.e2e

CANARY = "c4n4ry-S3cret/with+odd%chars"
CONFIGURATION = """\
    name: shop
    storages:
      nas:
        type: sftp
        host: {host}
        port: {port}
        user: {user}
        password: ${SFTP_PASSWORD}
        host_key: {host_key}
        path: {remote}
    notifiers:
      ops:
        type: webhook
        url: "{url}?token=${TOKEN}"
        headers: {Authorization: "Bearer ${file:token}"}
    backups:
      talkative:
        source:
          type: command
          command: [sh, -c, "echo data; echo login with $PASSWORD failed >&2; sleep 1; exit {code}"]
          env: {PASSWORD: "${TOKEN}"}
        stages:
          - {type: age, passphrase: "${TOKEN}"}
          - {type: filter, command: [cat], inverse: [cat, "-", "${TOKEN}"], suffix: .cat}
        fan_out: [{storage: nas}]
        notify: [ops]
"""


@contextmanager
def watching_processes() -> Iterator[list[str]]:
    """Collects the command lines of all processes that come of us while the block runs; other tests
    may be running beside.
    """
    seen: set[str] = set()
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.005):
            for pid in process_tree(os.getpid()):
                try:
                    seen.add(Path(f"/proc/{pid}/cmdline").read_bytes().decode("latin-1"))
                except OSError:
                    continue

    thread = threading.Thread(target=watch)
    thread.start()
    lines: list[str] = []
    try:
        yield lines
    finally:
        stop.set()
        thread.join()
        lines += seen


@pytest.mark.parametrize("code", [0, 3], ids=["success", "failure"])
@pytest.mark.parametrize("log_format", ["text", "json"])
def test_the_canary_stays_inside(program: Program, sshd: Sshd, code: int, log_format: str) -> None:
    remote = sshd.data / program.folder.name
    (program.folder / "token").write_text(CANARY + "\n")
    program.environment |= {"SFTP_PASSWORD": PASSWORD, "TOKEN": CANARY}
    with HttpSink(Answer(500), Answer(404)) as sink, watching_processes() as processes:
        text = CONFIGURATION
        for name, value in {
            "host": HOST,
            "port": sshd.port,
            "user": USER,
            "host_key": sshd.host_key,
            "remote": remote,
            "url": sink.url("/hook"),
            "code": code,
        }.items():
            text = text.replace("{" + name + "}", str(value))
        config = program.configure(text)
        outputs = [
            program.run("run", config, "-v", "--log-format", log_format, *more)
            for more in ([], ["--json"])
        ]
        outputs += [
            program.run(*arguments)
            for arguments in (
                ("check", config, "--connect"),
                ("graph", config),
                ("list", config, "--json"),
                ("verify", config),
                ("prune", config, "--json"),
            )
        ]
        bodies = [request.body.decode() for request in sink.received]
    assert outputs[0].returncode == (1 if code else 0), outputs[0]
    # The inverse of the filter has it among its arguments, against our warning: only there, then.
    processes = [line for line in processes if not line.startswith("cat\0-\0")]
    assert "puts a secret where every user" in outputs[0].stderr
    assert any("shop on" in body for body in bodies), "the webhook was not called"
    assert any("talkative" in line or "sleep" in line for line in processes)
    shown = [done.stdout + done.stderr for done in outputs]
    stored = [(remote / name).read_text(errors="replace") for name in files_below(remote)]
    assert bool(stored) == (code == 0)
    for place in [*shown, *bodies, *stored, *processes]:
        for secret in (CANARY, PASSWORD, "c4n4ry-S3cret%2Fwith%2Bodd%25chars"):
            assert secret not in place
    if code:
        assert "login with" in shown[0]


def test_wrong_configurations_do_not_show_values(program: Program) -> None:
    config = program.configure(f"""\
        name: shop
        storages:
          nas: {{type: sftp, host: h, user: u, path: p, port: {CANARY}, passwort: {CANARY}}}
        notifiers: {{ops: {{type: webhook, url: {CANARY}, level: {CANARY}}}}}
        backups:
          it: {{source: {{type: {CANARY}}}, fan_out: [{{storage: {CANARY}, rotate: {CANARY}}}]}}
    """)
    done = program.run("check", config)
    assert done.returncode == 78
    assert done.stderr.count("pipeline.yaml:") >= 6
    assert CANARY not in done.stderr + done.stdout


def test_a_core_of_the_environment_is_not_passed_to_the_logs(program: Program) -> None:
    """A library error in the middle of a run is shown without its values, too."""
    config = program.configure("""\
        name: shop
        storages: {disk: {type: local, path: "{here}/${TOKEN}/x"}}
        backups:
          it:
            source: {type: command, command: [echo, hi], env: {A: "${TOKEN}"}}
            fan_out: [{storage: disk}]
    """)
    secret = "hidden-folder-name"
    (program.folder / secret).write_text("a file, where a folder should be")
    done = program.run("run", config, env={"TOKEN": secret})
    assert done.returncode == 1
    assert secret not in done.stdout + done.stderr
