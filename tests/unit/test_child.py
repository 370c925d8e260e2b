"""Child programs, with real ones."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.context import StageContext
from pipeline.errors import Aborted, SourceError, TransformError
from pipeline.stage import CHUNK
from stages._child import TAIL, Child, Program, capture, locate, stream
from tests.contracts.transform import leaving_nothing

ROOT = Path(__file__).parents[2]
IGNORING = "trap '' TERM; echo ready; while :; do sleep 1; done"


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    with leaving_nothing():
        yield


def shell(script: str, *args: str, **more: object) -> Program:
    return Program(["sh", "-c", script, "sh", *args], **more)  # type: ignore[arg-type]


def run(program: Program, chunks: list[bytes] | None = None) -> bytes:
    return b"".join(stream(program, StageContext(), SourceError, chunks))


def gone(pid: int) -> bool:
    """Ended; perhaps nobody has waited for it yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


class TestOutput:
    def test_all_of_it_arrives(self) -> None:
        assert run(shell("seq 200000")) == b"".join(b"%d\n" % n for n in range(1, 200_001))

    def test_nothing_is_no_chunk(self) -> None:
        assert list(stream(Program(["true"]), StageContext(), SourceError)) == []

    def test_short_writes_become_large_chunks(self) -> None:
        script = "import os\nfor _ in range(4096): os.write(1, bytes(1024))"
        program = Program([sys.executable, "-c", script])
        sizes = [len(chunk) for chunk in stream(program, StageContext(), SourceError)]
        assert sum(sizes) == 4 * CHUNK
        assert max(sizes) < 2 * CHUNK
        assert len(sizes) <= 9

    def test_a_pause_hands_on_what_is_there(self, tmp_path: Path) -> None:
        """The program waits for a file that is only made after its first output was seen."""
        seen = tmp_path / "seen"
        script = 'echo first; while [ ! -e "$1" ]; do sleep 0.02; done; echo second'
        chunks = stream(shell(script, str(seen)), StageContext(), SourceError)
        assert next(chunks) == b"first\n"
        seen.touch()
        assert b"".join(chunks) == b"second\n"

    def test_what_a_background_process_still_writes_is_part_of_it(self) -> None:
        assert run(shell("(sleep 0.3; echo late) & echo early")) == b"early\nlate\n"

    def test_environment_and_directory(self, tmp_path: Path) -> None:
        program = shell('echo "$GREETING $HOME"; pwd', env={"GREETING": "hi"}, cwd=str(tmp_path))
        assert run(program).decode() == f"hi {os.environ['HOME']}\n{tmp_path}\n"

    def test_standard_input_is_empty_unless_asked_for(self) -> None:
        assert run(Program(["cat"])) == b""

    def test_our_standard_input_can_be_inherited(self) -> None:
        script = (
            "from stages._child import *\n"
            "from pipeline.errors import SourceError\n"
            "program = Program(['cat'], inherit_stdin=True)\n"
            "print(b''.join(stream(program, StageContext(), SourceError)))"
        )
        done = subprocess.run(
            [sys.executable, "-c", script], cwd=ROOT, input=b"hi", capture_output=True, check=True
        )
        assert done.stdout == b"b'hi'\n"

    def test_a_short_answer_is_captured(self) -> None:
        assert capture(shell("echo 1; echo 2"), StageContext(), SourceError) == b"1\n2\n"

    def test_an_endless_answer_is_not(self) -> None:
        with pytest.raises(SourceError, match='"yes" printed more'):
            capture(Program(["yes"]), StageContext(), SourceError)


class TestInput:
    @pytest.mark.parametrize("sizes", [[], [1], [CHUNK] * 5, [1000] * 3000, [7 * CHUNK + 1]])
    def test_it_comes_out_again(self, sizes: list[int]) -> None:
        chunks = [os.urandom(size) for size in sizes]
        assert run(Program(["cat"]), chunks) == b"".join(chunks)

    def test_a_program_that_reads_all_before_it_writes(self) -> None:
        data = os.urandom(5 * CHUNK)
        assert run(shell("d=$(mktemp); cat > $d; cat $d; rm $d"), [data]) == data

    def test_a_program_that_answers_without_reading_blocks_nobody(self) -> None:
        script = "head -c 8000000 /dev/zero; cat > /dev/null; head -c 8000000 /dev/zero"
        assert len(run(shell(script), [bytes(CHUNK)] * 8)) == 16_000_000

    @pytest.mark.parametrize("size", [1, 60_000, 8 * CHUNK])
    def test_unread_input_is_an_error(self, size: int) -> None:
        with pytest.raises(
            SourceError, match=r'^"sh" exited without reading all of its input: enough'
        ):
            run(shell("echo enough >&2"), [bytes(size)])

    def test_a_failure_is_told_before_unread_input(self) -> None:
        with pytest.raises(SourceError, match=r'^"sh" failed with exit code 7: no disk$'):
            run(shell("echo no disk >&2; exit 7"), [bytes(CHUNK)] * 8)

    def test_an_error_of_the_input_passes_through(self) -> None:
        def broken() -> Iterator[bytes]:
            yield bytes(CHUNK)
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            list(stream(Program(["cat"]), StageContext(), TransformError, broken()))


class TestFailure:
    def test_the_class_of_the_error_is_chosen(self) -> None:
        with pytest.raises(TransformError, match=r'"false" failed with exit code 1$'):
            list(stream(Program(["false"]), StageContext(), TransformError))

    def test_it_comes_after_the_output(self) -> None:
        chunks = stream(shell("echo data; exit 2"), StageContext(), SourceError)
        assert next(chunks) == b"data\n"
        with pytest.raises(SourceError, match="exit code 2"):
            next(chunks)

    def test_a_signal_has_a_name(self) -> None:
        with pytest.raises(SourceError, match='"sh" was ended by SIGKILL'):
            run(shell("kill -9 $$"))

    def test_other_exit_codes_may_be_fine(self) -> None:
        assert run(shell("echo changed; exit 1", ok_exit_codes=(0, 1))) == b"changed\n"
        with pytest.raises(SourceError, match="exit code 0"):
            run(Program(["true"], ok_exit_codes=(5,)))

    def test_the_last_of_a_long_complaint_is_kept(self) -> None:
        script = "for n in $(seq 20000); do echo complaint $n; done >&2; exit 1"
        with pytest.raises(SourceError) as raised:
            run(shell(script))
        assert raised.value.message.endswith("complaint 19999 | complaint 20000")
        assert len(raised.value.message) < 2 * TAIL

    @pytest.mark.parametrize("cut", [0, 1, 7, 12, 13])
    def test_a_value_cut_by_the_tail_is_masked_too(self, cut: int) -> None:
        """The tail begins inside the value: what is left of it must not be shown."""
        secret = "correct-horse"
        rest = 4096 - len(secret) + cut
        script = f'printf "login $PASSWORD" >&2; head -c {rest} /dev/zero | tr "\\0" x >&2; exit 1'
        with pytest.raises(SourceError) as caught:
            run(shell(script, env={"PASSWORD": secret}))
        for start in range(len(secret) - 3):
            assert secret[start:] not in str(caught.value)
        assert "x" * 3000 in str(caught.value), "the rest is still told"

    def test_values_of_the_environment_are_masked(self) -> None:
        program = shell("echo password is $PASSWORD >&2; exit 1", env={"PASSWORD": "correct-horse"})
        assert "correct-horse" not in repr(program)
        with pytest.raises(SourceError, match=r"password is \*\*\*$"):
            run(program)

    @pytest.mark.parametrize("name", ["no-such-program", "/no/such/program"])
    def test_a_missing_program(self, name: str) -> None:
        with pytest.raises(SourceError) as raised:
            run(Program([name, "--password=x"]))
        assert str(raised.value) == f'"{name}" was not found; install it or give its full path'
        with pytest.raises(SourceError, match="was not found"):
            locate(name, SourceError)

    def test_a_file_that_is_no_program(self, tmp_path: Path) -> None:
        (tmp_path / "plain").write_text("text")
        with pytest.raises(SourceError, match='"plain" could not be started: Permission denied'):
            run(Program([str(tmp_path / "plain")]))

    def test_a_missing_directory(self) -> None:
        with pytest.raises(SourceError, match='working directory "/nonexistent" does not exist'):
            run(Program(["true"], cwd="/nonexistent"))

    def test_a_nul_byte_in_an_argument(self) -> None:
        with pytest.raises(SourceError, match='"true" could not be started: embedded null byte'):
            run(Program(["true", "a\0b"]))

    def test_a_lost_exit_code_is_no_success(self) -> None:
        """Where SIGCHLD is ignored the kernel forgets exit codes."""
        script = (
            "import signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
            "from stages._child import *\n"
            "from pipeline.errors import SourceError\n"
            "try: capture(Program(['false']), StageContext(), SourceError)\n"
            "except SourceError as error: print(error)"
        )
        done = subprocess.run(
            [sys.executable, "-c", script], cwd=ROOT, capture_output=True, check=True, text=True
        )
        assert done.stdout == '"false" ended, and its exit code was lost\n'


class TestEnding:
    def test_a_program_that_takes_too_long(self) -> None:
        with pytest.raises(SourceError, match=r'"sleep" did not end within 0\.2 s'):
            run(Program(["sleep", "1000"], timeout=0.2))

    def test_one_that_falls_silent_is_ended(self) -> None:
        program = shell("echo begun; sleep 1000", silence=0.5)
        chunks = stream(program, StageContext(), SourceError)
        assert next(chunks) == b"begun\n"
        with pytest.raises(SourceError, match=r'"sh" was silent for 0\.5 s; see `idle_timeout`'):
            next(chunks)

    def test_a_slow_taker_is_no_silent_program(self) -> None:
        script = "for n in 1 2 3 4 5 6; do head -c 2000000 /dev/zero; done"
        sizes = []
        for chunk in stream(shell(script, silence=0.4), StageContext(), SourceError):
            sizes.append(len(chunk))
            if len(sizes) < 3:
                time.sleep(1)
        assert sum(sizes) == 12_000_000

    @pytest.mark.parametrize("script", ["echo ready; sleep 1000", IGNORING], ids=["sleep", "trap"])
    def test_closing_ends_the_whole_group(self, script: str) -> None:
        with Child(shell(f"echo $$; {script}"), StageContext(), SourceError) as child:
            pid = int(next(child.output()).split()[0])
            assert not gone(pid)
        assert gone(pid)

    @pytest.mark.parametrize("script", ["echo ready; sleep 1000", IGNORING], ids=["sleep", "trap"])
    def test_an_abort_ends_the_whole_group(self, script: str) -> None:
        context = StageContext()
        chunks = stream(shell(script), context, SourceError)
        assert next(chunks) == b"ready\n"
        timer = threading.Timer(0.1, context.teardown.abort)
        timer.start()
        with pytest.raises(Aborted):
            next(chunks)
        timer.join()

    def test_an_aborted_run_starts_nothing(self, tmp_path: Path) -> None:
        context = StageContext()
        context.teardown.abort()
        with pytest.raises(Aborted):
            list(stream(Program(["touch", str(tmp_path / "made")]), context, SourceError))
        assert not (tmp_path / "made").exists()

    @pytest.mark.parametrize("trap", ["", "trap '' TERM; "])
    def test_what_it_leaves_running_is_ended(self, trap: str) -> None:
        script = f"{trap}sleep 1000 > /dev/null 2>&1 < /dev/null & echo $!"
        assert gone(int(run(shell(script))))

    def test_output_that_is_held_open_in_silence_is_an_error(self) -> None:
        """It would be a guess that nothing more was to come."""
        with pytest.raises(SourceError, match="something it started still holds its pipes"):
            run(shell("sleep 1000 & echo done", linger=0.3))

    def test_complaints_that_are_held_open_are_not_waited_for(self) -> None:
        assert run(shell("sleep 1000 > /dev/null & echo done")) == b"done\n"

    def test_a_handle_tells_how_it_ended(self) -> None:
        program = shell("echo warning >&2; exit 4", ok_exit_codes=(4,))
        with Child(program, StageContext(), SourceError) as child:
            assert list(child.output()) == []
        assert (child.exit_code, child.stderr) == (4, "warning")

    def test_it_has_a_session_of_its_own(self) -> None:
        """A Ctrl-C in the terminal must not reach it before we have decided what happens."""
        script = "import os; print(os.getpid() == os.getpgid(0) == os.getsid(0))"
        assert run(Program([sys.executable, "-c", script])) == b"True\n"
