"""The places of the `log` section, each with a receiver of the test's own."""

from __future__ import annotations

import os
import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline._logs.file import LogFile, try_out
from pipeline._logs.journald import Journal, is_journal
from pipeline._logs.syslog import Syslog
from pipeline.events import Event, EventBus, LoggingFailed
from pipeline.log_targets import Logs
from pipeline.logs import text_lines
from pipeline.redact import Redactor
from schemas.log import LogSpec, SyslogSpec
from tests.unit.config_folder import MINIMAL, Folder
from tests.unit.log_records import COMMITTED, PROGRESS, SKIPPED, record


@pytest.fixture
def target(tmp_path: Path) -> Iterator[LogFile]:
    file = LogFile(str(tmp_path / "run.log"), lambda found: found.event.name)
    yield file
    file.close()


class TestFile:
    def test_it_is_made_for_its_owner_alone_and_appended_to(
        self, target: LogFile, tmp_path: Path
    ) -> None:
        target.write(record(COMMITTED))
        second = LogFile(str(tmp_path / "run.log"), lambda _: "second")
        second.write(record(COMMITTED))
        second.close()
        target.write(record(SKIPPED))
        path = tmp_path / "run.log"
        assert path.read_text() == "artifact committed\nsecond\nitems skipped\n"
        assert path.stat().st_mode & 0o777 == 0o600

    def test_the_mode_of_a_file_that_exists_is_left_alone(self, tmp_path: Path) -> None:
        path = tmp_path / "shared.log"
        path.touch(0o640)
        path.chmod(0o640)
        LogFile(str(path), lambda _: "x").close()
        assert path.stat().st_mode & 0o777 == 0o640

    @pytest.mark.parametrize("remove", [False, True], ids=["renamed", "removed"])
    def test_it_follows_when_it_is_moved_away(
        self, remove: bool, target: LogFile, tmp_path: Path
    ) -> None:
        path = tmp_path / "run.log"
        target.write(record(COMMITTED))
        path.unlink() if remove else path.rename(tmp_path / "run.log.1")
        target.write(record(SKIPPED))
        assert path.read_text() == "items skipped\n"
        if not remove:
            assert (tmp_path / "run.log.1").read_text() == "artifact committed\n"

    def test_it_is_opened_anew_at_once_when_asked(self, target: LogFile, tmp_path: Path) -> None:
        path = tmp_path / "run.log"
        path.rename(tmp_path / "run.log.1")
        target.reopen()
        assert path.read_text() == ""

    def test_one_that_cannot_be_opened_anew_goes_on_where_it_was(
        self, target: LogFile, tmp_path: Path
    ) -> None:
        old = tmp_path / "run.log.1"
        (tmp_path / "run.log").rename(old)
        (tmp_path / "run.log").mkdir()
        with pytest.raises(OSError, match="directory"):
            target.reopen()
        (tmp_path / "run.log").rmdir()
        old.rename(tmp_path / "run.log")
        target.write(record(COMMITTED))
        assert (tmp_path / "run.log").read_text() == "artifact committed\n"

    def test_a_pipe_that_nobody_reads_is_refused_without_waiting(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        for use in (try_out, lambda path: LogFile(path, lambda _: "")):
            with pytest.raises(OSError):  # noqa: PT011
                use(str(tmp_path / "pipe"))

    def test_a_device_is_refused(self) -> None:
        with pytest.raises(OSError, match="not a regular file"):
            try_out("/dev/null")

    def test_trying_it_out_leaves_nothing(self, tmp_path: Path) -> None:
        try_out(str(tmp_path / "run.log"))
        assert list(tmp_path.iterdir()) == []
        with pytest.raises(FileNotFoundError):
            try_out(str(tmp_path / "none" / "run.log"))


def parse_5424(message: bytes) -> dict[str, str]:
    """The header and the message, as RFC 5424 defines them."""
    match = re.fullmatch(
        rb"<(?P<priority>\d{1,3})>1 (?P<time>\S+) (?P<host>\S+) (?P<app>\S+) (?P<pid>\S+) "
        rb"(?P<kind>\S+) - (?P<text>.*)",
        message,
        re.DOTALL,
    )
    assert match, message
    return {name: value.decode() for name, value in match.groupdict().items()}


class TestSyslog:
    def make(self, address: str, host: str = "web 1") -> Syslog:
        spec = SyslogSpec(address=address, facility="local3")
        return Syslog(spec, text_lines(Redactor(), stamped=False), host)

    def test_the_local_socket_gets_what_the_c_library_sends(self, tmp_path: Path) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
            receiver.bind(str(tmp_path / "log"))
            receiver.settimeout(10)
            syslog = self.make(str(tmp_path / "log"))
            syslog.write(record(SKIPPED))
            message = receiver.recv(65536).decode()
            syslog.close()
        match = re.fullmatch(
            r"<(\d+)>[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d nxs-backup\[(\d+)\]: (.*)", message
        )
        assert match
        assert match.groups() == (
            str(19 * 8 + 4),
            str(os.getpid()),
            "items skipped backup=db artifact=crm number=2 items='/a: gone, /b: gone'",
        )

    def test_a_server_over_udp_gets_rfc_5424(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
            receiver.bind(("127.0.0.1", 0))
            receiver.settimeout(10)
            syslog = self.make(f"udp://127.0.0.1:{receiver.getsockname()[1]}")
            syslog.write(record(COMMITTED))
            found = parse_5424(receiver.recv(65536))
            syslog.close()
        text = found.pop("text")
        assert text.startswith("artifact committed backup=db")
        assert found == {
            "priority": str(19 * 8 + 6),
            "time": "2026-11-23T12:00:00.250Z",
            "host": "web1",
            "app": "nxs-backup",
            "pid": str(os.getpid()),
            "kind": "artifact_committed",
        }

    def test_over_tcp_each_message_has_its_length_and_a_new_server_is_found(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.settimeout(10)
            syslog = self.make(f"tcp://127.0.0.1:{server.getsockname()[1]}")
            for event in (COMMITTED, replace(SKIPPED, items=("ü" * 9000,))):
                writing = threading.Thread(target=syslog.write, args=[record(event)])
                writing.start()
                with server.accept()[0] as connection, connection.makefile("rb") as stream:
                    length = int(b"".join(iter(lambda: stream.read(1), b" ")))
                    found = parse_5424(stream.read(length))
                writing.join(10)
                assert found["kind"] == event.name.replace(" ", "_")
                assert length <= 8000
            syslog.close()

    def test_over_tcp_one_connection_takes_many_messages(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.settimeout(10)
            syslog = self.make(f"tcp://127.0.0.1:{server.getsockname()[1]}")
            syslog.write(record(COMMITTED))
            with server.accept()[0] as connection:
                for _ in range(100):
                    syslog.write(record(COMMITTED))
                syslog.close()
                received = b"".join(iter(lambda: connection.recv(65536), b""))
        assert received.count(b"artifact committed") == 101

    def test_what_is_not_there_is_an_error_that_does_not_last(self, tmp_path: Path) -> None:
        syslog = self.make(str(tmp_path / "log"))
        with pytest.raises(FileNotFoundError):
            syslog.write(record(COMMITTED))
        with pytest.raises(OSError, match="a moment ago"):
            syslog.write(record(COMMITTED))


def parse_journal(datagram: bytes) -> list[tuple[str, str]]:
    """The fields of a datagram in the native protocol of the journal."""
    found = []
    while datagram:
        line, _, datagram = datagram.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            length = int.from_bytes(datagram[:8], "little")
            value, datagram = datagram[8 : 8 + length], datagram[9 + length :]
        found.append((name.decode(), value.decode()))
    return found


class TestJournal:
    def test_it_gets_the_fields_of_an_event(self, tmp_path: Path) -> None:
        event = replace(SKIPPED, items=("/two\nlines=: gone", "/b: gone"))
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
            receiver.bind(str(tmp_path / "journal"))
            receiver.settimeout(10)
            journal = Journal(text_lines(Redactor(), stamped=False), str(tmp_path / "journal"))
            journal.write(record(event))
            found = parse_journal(receiver.recv(1 << 20))
            journal.close()
        message = "items skipped backup=db artifact=crm number=2 items='/two\\\\nlines=: gone, "
        assert found.pop(0) == ("MESSAGE", message + "/b: gone'")
        assert found == [
            ("PRIORITY", "4"),
            ("SYSLOG_IDENTIFIER", "nxs-backup"),
            ("NXS_EVENT", "items skipped"),
            ("NXS_RUN", "r1"),
            ("NXS_BACKUP", "db"),
            ("NXS_ARTIFACT", "crm"),
            ("NXS_NUMBER", "2"),
            ("NXS_ITEMS", "/two\nlines=: gone"),
            ("NXS_ITEMS", "/b: gone"),
        ]

    def test_stderr_is_the_journal_only_when_it_is_the_stream_that_is_named(
        self, tmp_path: Path
    ) -> None:
        with open(tmp_path / "stream", "w") as stream, open(tmp_path / "other", "w") as other:
            found = os.fstat(stream.fileno())
            environ = {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}
            assert is_journal(stream.fileno(), environ)
            assert not is_journal(other.fileno(), environ)
            assert not is_journal(stream.fileno(), {})


class TestTargets:
    def test_one_that_fails_is_told_of_once_and_counted_at_the_end(self, tmp_path: Path) -> None:
        seen: list[Event] = []
        bus = EventBus(seen.append)
        spec = LogSpec(
            file=str(tmp_path / "run.log"), syslog=SyslogSpec(address=str(tmp_path / "none"))
        )
        logs = Logs(spec, "web-1", bus)
        for _ in range(20):
            bus.emit(COMMITTED)
        logs.close()
        failures = [event for event in seen if isinstance(event, LoggingFailed)]
        assert [event.target for event in failures] == ["syslog", "syslog"]
        assert failures[0].error == "no such file or directory"
        # The failure itself is something to log, if it comes in time.
        assert failures[1].error in ("20 lines are missing there", "21 lines are missing there")
        lines = (tmp_path / "run.log").read_text().splitlines()
        assert sum("artifact committed" in line for line in lines) == 20
        assert sum("logging failed" in line for line in lines) == 2

    def test_a_server_that_takes_nothing_holds_up_nobody(self, tmp_path: Path) -> None:
        path = tmp_path / "log"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
            receiver.bind(str(path))
            bus = EventBus()
            logs = Logs(LogSpec(syslog=SyslogSpec(address=str(path))), "web-1", bus)
            emitting = threading.Thread(target=lambda: [bus.emit(COMMITTED) for _ in range(20_000)])
            emitting.start()
            emitting.join(30)
            assert not emitting.is_alive()
            seen: list[Event] = []
            bus.subscribe(seen.append)
            logs.close()
            assert any(isinstance(event, LoggingFailed) for event in seen)

    def test_at_debug_there_is_progress_from_time_to_time(self, tmp_path: Path) -> None:
        for level in ("info", "debug"):
            path = tmp_path / level
            bus = EventBus()
            logs = Logs(LogSpec(file=str(path), level=level), "web-1", bus)  # type: ignore[arg-type]
            for tick in range(200):
                bus.emit(replace(PROGRESS, seconds=tick / 5))
            logs.close()
            assert path.read_text().count("progressed") == (2 if level == "debug" else 0)


class TestConfiguration:
    @pytest.fixture
    def folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
        monkeypatch.chdir(tmp_path)
        return Folder(tmp_path)

    def test_everything_it_can_say(self, folder: Folder) -> None:
        text = "log: {file: /var/log/x, level: debug, format: json, syslog: {}, journald: true}"
        spec = folder.load(text + MINIMAL).pipeline.log
        assert spec is not None
        assert spec.syslog is not None
        assert (spec.syslog.scheme, spec.syslog.path) == ("unix", "/dev/log")

    @pytest.mark.parametrize(
        ("address", "expected"),
        [
            ("udp://logs", ("udp", "logs", 514)),
            ("tcp://logs.internal:6514", ("tcp", "logs.internal", 6514)),
            ("tcp://[2001:db8::1]:514", ("tcp", "2001:db8::1", 514)),
        ],
    )
    def test_addresses(self, address: str, expected: tuple[str, str, int]) -> None:
        spec = SyslogSpec(address=address)
        assert (spec.scheme, spec.host, spec.port) == expected

    @pytest.mark.parametrize(
        ("section", "problem"),
        [
            ("{file: run.log}", "1:13: log.file: must be an absolute path"),
            ("{format: json}", "1:6: log: says how to log, but not where"),
            ("{syslog: {address: 'http://x'}}", "1:25: log.syslog.address: must be a socket"),
            ("{syslog: {address: 'tcp://x:99999'}}", "1:25: log.syslog.address: must be a socket"),
            ("{syslog: {facility: kern}}", "1:26: log.syslog.facility: must be user, daemon"),
            ("{file: /x, size: 1}", "1:17: log.size: unknown key"),
        ],
    )
    def test_what_is_wrong(self, section: str, problem: str, folder: Folder) -> None:
        (error,) = folder.errors(f"log: {section}" + MINIMAL)
        assert error.startswith(f"pipeline.yaml:{problem}")

    def test_a_problem_found_later_has_its_place(self, folder: Folder) -> None:
        loaded = folder.load(MINIMAL + "log:\n  file: /none/run.log\n")
        problem = loaded.problem(("log", "file"), "cannot be opened: no such file", "make it")
        assert str(problem) == (
            "pipeline.yaml:7:9: log.file: cannot be opened: no such file\n    hint: make it"
        )
