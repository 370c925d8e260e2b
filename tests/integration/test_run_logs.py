"""Where a run is logged: a file that is rotated, the system's log, the journal."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.program import wait_for
from tests.integration.run_setup import PATIENCE, ROOT, WAITING, Setup, receiver
from tests.servers import journald
from tests.servers.base import find_program
from tests.servers.rsyslog import Rsyslog

pytestmark = pytest.mark.integration


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    return Setup(tmp_path)


class TestFile:
    def test_it_is_opened_anew_on_sighup_and_nothing_is_lost(self, setup: Setup) -> None:
        setup.configure(f"{{file: {setup.folder}/run.log, format: json}}", WAITING)
        process = setup.start()
        wait_for(lambda: setup.has("begun"), PATIENCE)
        log, old = setup.folder / "run.log", setup.folder / "run.log.1"
        log.rename(old)
        process.send_signal(signal.SIGHUP)
        wait_for(log.exists, PATIENCE)  # at once, not when there is something to write
        setup.go()
        process.communicate(timeout=PATIENCE)
        assert process.returncode == 0
        texts = [path.read_text() for path in (old, log)]
        parts = [[json.loads(line) for line in text.splitlines()] for text in texts]
        assert [part[0]["event"] for part in parts] == ["run started", "artifact committed"]
        assert parts[1][-1]["event"] == "run finished"
        assert {line["run"] for part in parts for line in part} == {parts[0][0]["run"]}
        assert log.stat().st_mode & 0o777 == 0o600

    def test_without_a_log_file_sighup_stops_the_run(self, setup: Setup) -> None:
        setup.configure(command=WAITING)
        process = setup.start()
        wait_for(lambda: setup.has("begun"), PATIENCE)
        process.send_signal(signal.SIGHUP)
        process.communicate(timeout=PATIENCE)
        assert process.returncode == 130

    @pytest.mark.parametrize("command", ["run", "check"])
    def test_one_that_cannot_be_opened_is_a_problem_at_its_line(
        self, command: str, setup: Setup
    ) -> None:
        setup.configure(f"{{file: {setup.folder}/none/run.log}}")
        done = subprocess.run(
            [sys.executable, "-m", "pipeline", command, "pipeline.yaml"],
            cwd=setup.folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
        assert done.returncode == 78
        first, hint, last = done.stderr.splitlines()
        assert re.fullmatch(
            r"pipeline\.yaml:12:13: log\.file: cannot be opened: no such file or directory", first
        )
        assert hint.startswith("    hint: ")
        assert last == "error: 1 problem"
        assert not any((setup.folder / "nas").iterdir())

    def test_a_full_disk_costs_the_log_and_not_the_backup(self, setup: Setup) -> None:
        setup.configure(f"{{file: {setup.folder}/run.log}}")
        (setup.folder / "run.log").write_text("x" * SMALL)
        code, _, err = setup.run(preexec_fn=_limit_files)
        told = [line for line in err.splitlines() if "logging failed" in line]
        assert "file too large" in told[0]
        assert "lines are missing there" in told[1]
        assert len(told) == 2
        assert code == 0
        assert "run finished" in err


SMALL = 1 << 20
"""Bytes: more than a manifest has."""


def _limit_files() -> None:
    """No file may grow beyond that, as on a disk that is full."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (SMALL, SMALL))


class TestSystem:
    def test_the_journal_gets_every_event_with_its_fields(self, setup: Setup) -> None:
        path = setup.folder / "journal"
        setup.configure("{journald: true}")
        with receiver(path) as datagrams:
            code, _, err = setup.run(env={"NXS_BACKUP_JOURNAL_SOCKET": str(path)})
        assert code == 0
        assert "logging failed" not in err
        fields = [dict(line.split(b"=", 1) for line in data.splitlines()) for data in datagrams]
        assert fields[0][b"NXS_EVENT"] == b"run started"
        assert fields[-1][b"NXS_EVENT"] == b"run finished"
        stored = [each for each in fields if each[b"NXS_EVENT"] == b"artifact committed"]
        assert {each[b"NXS_STORAGE"] for each in stored} == {b"nas", b"offsite"}
        assert {each[b"NXS_BACKUP"] for each in stored} == {b"crm"}
        assert len({each[b"NXS_RUN"] for each in fields}) == 1

    def test_lines_that_the_journal_reads_from_stderr_have_priorities(self, setup: Setup) -> None:
        setup.configure()
        (setup.folder / "offsite").rmdir()
        (setup.folder / "offsite").write_text("a file, where a folder should be")
        path = setup.folder / "stderr"
        with open(path, "wb") as stderr:
            found = os.fstat(stderr.fileno())
            environ = {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}
            code, _, _ = setup.run(stderr=stderr, env=environ)
        assert code == 3
        lines = path.read_text().splitlines()
        priorities = {line[3:].split(" backup=")[0].split(" run=")[0]: line[:3] for line in lines}
        assert priorities["branch failed"] == "<3>"
        assert priorities["backup finished"] == "<4>"
        assert priorities["artifact committed"] == "<6>"
        assert not any(re.search(r"\d\d:\d\d:\d\d", line) for line in lines), "it has its own time"

    @pytest.mark.parametrize("works", [True, False])
    def test_the_journal_is_not_told_twice(self, works: bool, setup: Setup) -> None:
        setup.configure("{journald: true}")
        path, stderr = setup.folder / "journal", setup.folder / "stderr"
        with receiver(path) as datagrams, open(stderr, "wb") as stream:
            found = os.fstat(stream.fileno())
            code, _, _ = setup.run(
                stderr=stream,
                env={
                    "JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}",
                    "NXS_BACKUP_JOURNAL_SOCKET": str(path if works else setup.folder / "none"),
                },
            )
        assert code == 0
        assert bool(datagrams) is works
        lines = stderr.read_text().splitlines()
        assert len(lines) == (0 if works else 2)
        assert all(line.startswith("<4>logging failed") for line in lines)

    def test_what_is_not_there_is_said_once_and_fails_nothing(self, setup: Setup) -> None:
        here = setup.folder
        setup.configure(f"{{syslog: {{address: {here}/none}}, journald: true}}")
        code, _, err = setup.run(env={"NXS_BACKUP_JOURNAL_SOCKET": f"{here}/none"})
        assert code == 0
        for target in ("syslog", "journald"):
            told = [line for line in err.splitlines() if f"target={target}" in line]
            assert len(told) == 2
            assert "no such file or directory" in told[0]
            assert "missing there" in told[1]


@pytest.fixture(scope="module")
def rsyslog() -> Iterator[Rsyslog]:
    with Rsyslog() as server:
        assert isinstance(server, Rsyslog)
        yield server


class TestReceivers:
    """The same with the programs that usually read logs."""

    @pytest.mark.parametrize("way", ["imuxsock", "imudp", "imtcp"])
    def test_rsyslog_understands_every_message(
        self, way: str, rsyslog: Rsyslog, setup: Setup
    ) -> None:
        addresses = {
            "imuxsock": rsyslog.socket,
            "imudp": f"udp://127.0.0.1:{rsyslog.port}",
            "imtcp": f"tcp://127.0.0.1:{rsyslog.port}",
        }
        setup.configure(
            f"{{syslog: {{address: '{addresses[way]}'}}, format: json}}", "echo ü", "host: web-9\n"
        )
        process = setup.start()
        _, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0
        assert b"logging failed" not in err

        def received() -> list[dict[str, Any]]:
            ours = [each for each in rsyslog.messages() if each["pid"] == str(process.pid)]
            return [each for each in ours if each["input"] == way]

        def events() -> list[str]:
            return [json.loads(each["text"])["event"] for each in received()]

        wait_for(lambda: "run finished" in events(), PATIENCE)
        assert events()[0] == "run started"
        assert events().count("artifact committed") == 2
        assert {each["priority"] for each in received()} == {str(3 * 8 + 6)}
        assert {each["app"] for each in received()} == {"nxs-backup"}
        if way != "imuxsock":
            assert {each["host"] for each in received()} == {"web-9"}
            assert [each["kind"].replace("_", " ") for each in received()] == events()

    @pytest.mark.parametrize("direct", [True, False])
    def test_journald_has_every_event_once_with_its_priority(
        self, direct: bool, setup: Setup
    ) -> None:
        if not journald.can_run():
            pytest.skip("no mount namespace can be made here")
        setup.configure("{journald: true}" if direct else "")
        (setup.folder / "offsite").rmdir()
        (setup.folder / "offsite").write_text("a file, where a folder should be")
        command = [sys.executable, "-m", "pipeline", "run", "pipeline.yaml"]
        environ = {**os.environ, "PYTHONPATH": str(ROOT)}
        code, entries = journald.journal_of(command, setup.folder, environ, reads_stderr=True)
        assert code == 3
        priorities = {}
        for entry in entries:
            name = re.match("[a-z]+ [a-z]+", entry["MESSAGE"])
            assert name, entry
            assert priorities.setdefault(name[0], entry["PRIORITY"]) == entry["PRIORITY"]
            assert entry.get("NXS_EVENT") == (name[0] if direct else None)
        assert priorities["branch failed"] == "3"
        assert priorities["run finished"] == "4"
        assert priorities["artifact committed"] == "6"
        messages = [entry["MESSAGE"] for entry in entries]
        assert len(messages) == len(set(messages))

    @pytest.mark.parametrize("way", ["", "copytruncate"])
    def test_logrotate_rotates_during_a_run_without_a_word_to_us(
        self, way: str, setup: Setup
    ) -> None:
        log = setup.folder / "run.log"
        setup.configure(f"{{file: {log}, format: json}}", WAITING)
        setup.folder.chmod(0o755)  # or logrotate does not trust it
        (setup.folder / "rotate.conf").write_text(f"{log} {{\n  rotate 3\n  {way}\n}}\n")
        process = setup.start()
        wait_for(lambda: setup.has("begun") and b"artifact started" in log.read_bytes(), PATIENCE)
        program = find_program("logrotate")
        state = setup.folder / "state"
        command = [program, "--force", "--state", str(state), str(setup.folder / "rotate.conf")]
        subprocess.run(command, check=True, timeout=PATIENCE)
        setup.go()
        process.communicate(timeout=PATIENCE)
        assert process.returncode == 0
        texts = [path.read_text() for path in (setup.folder / "run.log.1", log)]
        parts = [[json.loads(line)["event"] for line in text.splitlines()] for text in texts]
        assert parts[0] == ["run started", "backup started", "artifact started"]
        assert parts[1][0] == "artifact committed"
        assert parts[1][-1] == "run finished"
