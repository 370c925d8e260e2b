"""Every source through its contract, and what is particular to each."""

from __future__ import annotations

import fcntl
import os
import pty
import pwd
import signal
import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from pipeline.context import StageContext
from pipeline.errors import Aborted, SourceError
from pipeline.stage import CHUNK, Source
from schemas.sources import CommandSource, FilesSource, SourceSpec, StdinSource
from stages.sources.command import Command
from stages.sources.files import Files
from stages.sources.stdin import Stdin
from tests.contracts.source import Case, Make, SourceContract, start

BLOCK = bytes(range(256)) * 4096
PRINT = "import sys; sys.stdout.buffer.write(bytes(range(256)) * 4096 * %d); sys.stdout.flush(); "


def build(backup: str = "shop", **spec: Any) -> Source:
    """A source as a user writes it."""
    model: Any = TypeAdapter(SourceSpec).validate_python(spec)
    if isinstance(model, FilesSource):
        return Files(model, backup)
    if isinstance(model, CommandSource):
        return Command(model, backup)
    assert isinstance(model, StdinSource)
    return Stdin(model, backup)


def tree(place: Path, _cleanup: ExitStack) -> Source:
    root = place / "data"
    if not root.exists():
        (root / "sub").mkdir(parents=True)
        (root / "big").write_bytes(BLOCK * 5 + b"tail")
        for number in range(300):
            (root / "sub" / f"{number}").write_bytes(BLOCK[: number * 37])
    return build(type="files", paths=[str(root)])


def tree_that_fails(place: Path, _cleanup: ExitStack) -> Source:
    """The first file shrinks to a third as soon as reading has begun."""
    root = place / "data"
    root.mkdir()
    (root / "big").write_bytes(BLOCK * 9)

    class Shrinking(Files):
        def stream(self, artifact: Any, context: StageContext) -> Iterator[bytes]:
            for chunk in super().stream(artifact, context):
                os.truncate(root / "big", 3 * CHUNK)
                yield chunk

    return Shrinking(FilesSource(type="files", paths=[str(root)], on_unreadable="fail"))


def no_tree(place: Path, _cleanup: ExitStack) -> Source:
    return build(type="files", paths=[str(place / "nothing-here")])


def python(code: str) -> Make:
    return lambda _place, _cleanup: build(type="command", command=[sys.executable, "-c", code])


def no_program(_place: Path, _cleanup: ExitStack) -> Source:
    return build(type="command", command=["no-such-program-anywhere"])


def reading(fd: int) -> Source:
    return Stdin(StdinSource(type="stdin"), "shop", fd)


def writer(fd: int, data: bytes, end: Callable[[], None]) -> threading.Thread:
    def write() -> None:
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(fd, rest) :]
        except BrokenPipeError:
            return
        end()

    return threading.Thread(target=write)


def file_as_input(place: Path, cleanup: ExitStack) -> Source:
    (place / "input").write_bytes(BLOCK * 6 + b"end")
    return reading(cleanup.enter_context(open(place / "input", "rb")).fileno())


def open_pipe(_place: Path, cleanup: ExitStack) -> Source:
    """What somebody has begun to write and does not end."""
    out, into = os.pipe()
    cleanup.callback(os.close, out)
    cleanup.callback(os.close, into)
    fcntl.fcntl(into, fcntl.F_SETPIPE_SZ, CHUNK)
    assert os.write(into, BLOCK) == CHUNK
    return reading(out)


def reset_connection(_place: Path, cleanup: ExitStack) -> Source:
    """An input that fails: the other side resets the connection once 1 MiB has been read."""
    server = cleanup.enter_context(socket.create_server(("127.0.0.1", 0)))
    ours = cleanup.enter_context(socket.create_connection(server.getsockname()))
    theirs = cleanup.enter_context(server.accept()[0])
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    class Reset(Stdin):
        def stream(self, artifact: Any, context: StageContext) -> Iterator[bytes]:
            sender = threading.Thread(target=theirs.sendall, args=(BLOCK + BLOCK[:99],))
            sender.start()
            for chunk in super().stream(artifact, context):
                yield chunk
                sender.join()
                # Closes the connection, while its number stays in use.
                os.dup2(server.fileno(), theirs.fileno())

    return Reset(StdinSource(type="stdin"), "shop", ours.fileno())


def terminal(_place: Path, cleanup: ExitStack) -> Source:
    ours, theirs = pty.openpty()
    cleanup.callback(os.close, ours)
    cleanup.callback(os.close, theirs)
    return reading(theirs)


WAIT = "import time; time.sleep(3600)"


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(Case(tree, tree_that_fails, no_tree), id="files"),
        pytest.param(
            Case(
                sound=python(PRINT % 6),
                broken=python(PRINT % 3 + "sys.exit(3)"),
                blocked=python(PRINT % 3 + WAIT),
                unusable=no_program,
            ),
            id="command",
        ),
        pytest.param(
            Case(file_as_input, reset_connection, terminal, blocked=open_pipe), id="stdin"
        ),
    ],
)
class TestSources(SourceContract):
    pass


def read(source: Source, context: StageContext | None = None) -> bytes:
    return b"".join(start(source, context or StageContext())[1])


def run_python(code: str, **spec: Any) -> Source:
    return build(type="command", command=[sys.executable, "-c", code], **spec)


class TestCommand:
    def test_the_artifact_is_named_after_the_backup(self) -> None:
        (artifact,) = build(type="command", command=["x"], suffix=".sql").artifacts()
        assert (artifact.name, artifact.suffix, artifact.min_size) == ("shop", ".sql", 1)

    def test_a_name_of_its_own_and_a_least_size_are_passed_on(self) -> None:
        source = build(type="command", command=["x"], name="dump", min_size="2KiB")
        (artifact,) = source.artifacts()
        assert (artifact.name, artifact.min_size) == ("dump", 2048)

    def test_the_error_says_why_the_program_failed(self) -> None:
        source = run_python("import sys; print('no such table', file=sys.stderr); sys.exit(2)")
        with pytest.raises(SourceError, match=r"exit code 2: no such table"):
            read(source)

    def test_a_secret_of_its_environment_is_not_repeated(self) -> None:
        code = "import os, sys; print(os.environ['PASSWORD'], file=sys.stderr); sys.exit(1)"
        with pytest.raises(SourceError) as raised:
            read(run_python(code, env={"PASSWORD": "correct horse"}))
        assert "correct horse" not in str(raised.value)
        assert "***" in str(raised.value)

    def test_the_environment_reaches_the_program(self) -> None:
        code = "import os; print(os.environ['PASSWORD'] + os.environ['PATH'], end='')"
        read_back = read(run_python(code, env={"PASSWORD": "correct horse"}))
        assert read_back == b"correct horse" + os.environb[b"PATH"]

    def test_the_signal_that_ended_it_is_named(self) -> None:
        code = f"import os; os.kill(os.getpid(), {signal.SIGKILL})"
        with pytest.raises(SourceError, match="SIGKILL"):
            read(run_python(code))

    def test_other_exit_codes_can_mean_success(self) -> None:
        source = run_python("print('x', end=''); raise SystemExit(1)", ok_exit_codes=[0, 1])
        assert read(source) == b"x"

    def test_exit_code_0_can_mean_failure(self) -> None:
        with pytest.raises(SourceError, match="exit code 0"):
            read(run_python("print('x')", ok_exit_codes=[4]))

    def test_it_ends_at_its_timeout(self) -> None:
        with pytest.raises(SourceError, match="did not end within"):
            read(run_python(WAIT, timeout="300ms"))

    def test_it_runs_in_its_directory(self, tmp_path: Path) -> None:
        source = run_python("import os; print(os.getcwd(), end='')", cwd=str(tmp_path))
        assert read(source) == os.fsencode(tmp_path)

    @pytest.mark.parametrize("way", ["probe", "stream"])
    def test_a_missing_directory_is_named(self, tmp_path: Path, way: str) -> None:
        source = run_python("pass", cwd=str(tmp_path / "gone"))
        with pytest.raises(SourceError, match='gone" does not exist'):
            source.probe() if way == "probe" else read(source)

    def test_a_file_that_cannot_be_executed_fails_the_probe(self, tmp_path: Path) -> None:
        (tmp_path / "script").write_text("#!/bin/sh\n")
        with pytest.raises(SourceError, match="was not found"):
            build(type="command", command=[str(tmp_path / "script")]).probe()

    def test_no_shell_sees_the_arguments(self) -> None:
        code = "import sys; print(sys.argv[1], end='')"
        source = build(type="command", command=[sys.executable, "-c", code, "$HOME; `id` *"])
        assert read(source) == b"$HOME; `id` *"

    def test_a_shell_line_fails_when_any_part_of_a_pipe_does(self) -> None:
        assert read(build(type="command", shell="printf a; echo b | cat")) == b"ab\n"
        for line in (
            "false | cat",
            "false; echo x",
            "echo $not_set",
            "echo x | head -c0 | no-such",
        ):
            with pytest.raises(SourceError, match="bash"):
                read(build(type="command", shell=line))

    def test_each_item_is_an_artifact(self) -> None:
        code = "import sys; print(sys.argv[1:], end='')"
        source = run_python(code, for_each=["shop", "c r/m"])
        assert isinstance(source, Command)
        spec = source._spec
        assert spec.command is not None
        more = spec.model_copy(update={"command": [*spec.command, "--db={item}", "{name}{item}"]})
        source = Command(more, "shop")
        plan = source.artifacts()
        assert [artifact.name for artifact in plan] == ["shop", "c r/m"]
        content = b"".join(source.stream(plan[1], StageContext()))
        assert content == b"['--db=c r/m', 'c r/mc r/m']"

    def test_a_shell_line_gets_its_item_from_the_environment(self) -> None:
        source = build(type="command", shell='printf "%s %s" "$NAME" "$ITEM"', for_each=["$(id)"])
        assert read(source) == b"$(id) $(id)"

    def test_a_program_can_list_the_items(self) -> None:
        lister = [sys.executable, "-c", "print('one\\ttable 1\\n\\ntwo')"]
        source = build(type="command", command=["echo", "{name}={item}"], list_command=lister)
        plan = source.artifacts()
        assert [artifact.name for artifact in plan] == ["one", "two"]
        streams = [b"".join(source.stream(artifact, StageContext())) for artifact in plan]
        assert streams == [b"one=table 1\n", b"two=two\n"]
        assert source.probe()[-1] == "2 items"

    @pytest.mark.parametrize(
        ("code", "message"),
        [
            ("pass", "printed no items"),
            ("print('a\\tx\\na\\ty')", "named an item twice"),
            ("print('\\tx')", "without a name"),
            ("raise SystemExit(3)", "exit code 3"),
        ],
    )
    def test_a_list_that_cannot_be_used_is_a_failure(self, code: str, message: str) -> None:
        lister = [sys.executable, "-c", code]
        with pytest.raises(SourceError, match=message):
            build(type="command", command=["echo", "{item}"], list_command=lister).artifacts()

    def test_a_file_that_is_named_as_v3_wants_it_is_read_and_removed(self, tmp_path: Path) -> None:
        path = tmp_path / "dump"
        path.write_bytes(BLOCK + b"end")
        code = f"import json; print(json.dumps({{'full_path': {str(path)!r}}}))"
        source = run_python(code, prints="path")
        (artifact,) = source.artifacts()
        assert read(source) == BLOCK + b"end"
        assert path.exists(), "it is not stored yet"
        source.release(artifact)
        assert not path.exists()
        with pytest.raises(SourceError, match="cannot be read: no such file"):
            read(source)
        with pytest.raises(SourceError, match="cannot be removed: no such file"):
            source.release(artifact)

    def test_there_is_nothing_to_remove_of_a_program_that_prints_the_data(self) -> None:
        source = run_python("print('data')")
        (artifact,) = source.artifacts()
        assert read(source) == b"data\n"
        source.release(artifact)

    @pytest.mark.parametrize("printed", ["", "done", "[]", "{}", '{"full_path": "dump"}'])
    def test_anything_else_than_a_path_is_a_failure(self, printed: str) -> None:
        with pytest.raises(SourceError, match="did not print"):
            read(run_python(f"print({printed!r})", prints="path"))

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else")
    def test_it_runs_as_another_user_with_the_groups_of_that_user(self) -> None:
        entry = pwd.getpwnam("nobody")
        groups = sorted(os.getgrouplist("nobody", entry.pw_gid))
        told = read(build(type="command", shell="id -u; id -G; echo $HOME", user="nobody"))
        uid, numbers, home = told.decode().splitlines()
        assert (int(uid), home) == (entry.pw_uid, entry.pw_dir)
        assert sorted(map(int, numbers.split())) == groups

    def test_a_user_that_does_not_exist_is_named(self) -> None:
        with pytest.raises(SourceError, match='no user "nobody-at-all"'):
            read(run_python("pass", user="nobody-at-all"))

    def test_a_program_that_says_nothing_ends_well(self) -> None:
        # That this is too small for a backup is for the engine to see.
        assert read(run_python("pass")) == b""


class TestStdin:
    def test_a_pipe_is_read_to_its_end(self) -> None:
        data = BLOCK * 7 + b"the end"
        out, into = os.pipe()
        thread = writer(into, data, lambda: os.close(into))
        thread.start()
        try:
            assert read(reading(out)) == data
        finally:
            thread.join()
            os.close(out)

    def test_a_slow_writer_does_not_make_small_chunks(self) -> None:
        out, into = os.pipe()

        def drip() -> None:
            for at in range(0, len(BLOCK), 4096):
                os.write(into, BLOCK[at : at + 4096])
            os.close(into)

        thread = threading.Thread(target=drip)
        thread.start()
        chunks = list(start(reading(out), StageContext())[1])
        thread.join()
        os.close(out)
        assert chunks == [BLOCK]

    def test_how_much_is_expected_is_known_of_a_file_and_not_of_a_pipe(
        self, tmp_path: Path
    ) -> None:
        (tmp_path / "dump").write_bytes(BLOCK)
        with open(tmp_path / "dump", "rb", buffering=0) as file:
            file.seek(1000)  # as a shell leaves it that has read a part
            context = StageContext()
            content = b"".join(start(reading(file.fileno()), context)[1])
        assert context.expected == len(content) == len(BLOCK) - 1000
        out, into = os.pipe()
        os.close(into)
        context = StageContext()
        assert list(start(reading(out), context)[1]) == []
        os.close(out)
        assert context.expected is None

    def test_no_input_is_an_empty_stream(self) -> None:
        # That this is too small for a backup is for the engine to see.
        with open(os.devnull, "rb") as nothing:
            assert read(reading(nothing.fileno())) == b""

    def test_a_terminal_is_refused_with_a_hint(self, tmp_path: Path) -> None:
        with ExitStack() as cleanup, pytest.raises(SourceError, match="terminal; pipe"):
            read(terminal(tmp_path, cleanup))

    @pytest.mark.parametrize("way", ["probe", "stream"])
    def test_a_closed_input_is_an_error(self, way: str) -> None:
        out, into = os.pipe()
        os.close(out)
        os.close(into)
        with pytest.raises(SourceError, match="is closed"):
            reading(out).probe() if way == "probe" else read(reading(out))

    def test_a_non_blocking_pipe_is_waited_for(self) -> None:
        out, into = os.pipe2(os.O_NONBLOCK)
        os.set_blocking(into, True)

        def write() -> None:
            os.write(into, b"late")
            os.close(into)

        late = threading.Timer(0.1, write)
        late.start()
        assert read(reading(out)) == b"late"
        late.join()
        os.close(out)

    def test_an_abort_while_it_ends_does_not_touch_other_files(self) -> None:
        for _ in range(50):
            out, into = os.pipe()
            os.write(into, b"x")
            os.close(into)
            context = StageContext()
            aborter = threading.Thread(target=context.teardown.abort)
            aborter.start()
            try:
                read(reading(out), context)
            except Aborted:
                pass
            aborter.join()
            os.close(out)
