"""Child programs: bytes in, bytes out, and nothing left running.

::

    def stream(self, artifact, context):
        program = Program(["pg_dump", "shop"], env={"PGPASSWORD": secret})
        yield from stream(program, context, SourceError)

    yield from stream(program, context, TransformError, chunks)      # a filter: its input
    version = capture(Program(["pg_dump", "--version"]), StageContext(), SourceError)

    with Child(program, context, SourceError) as child:              # the same, with a handle
        yield from child.output()
    child.stderr, child.exit_code

One thread serves all three pipes with `poll`: the input is pulled in the thread of whoever pulls
the output (generators must not be shared between threads), and no thread can be left over.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import pwd
import select
import shutil
import subprocess
import termios
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.context import StageContext
from pipeline.errors import StageError
from pipeline.stage import CHUNK
from stages._group import ProcessGroup, describe_exit

TAIL = 4096
"""So many last bytes of standard error are kept."""
_TICK = 0.25
_MOMENT = 0.001
_FULL = CHUNK // 2
_CAPTURED = 16 * CHUNK
_SHORTEST_SECRET = 6


@dataclass(frozen=True)
class Program:
    """What to run; no shell is involved."""

    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Added to our own environment: the place for secrets."""
    cwd: str | None = None
    user: str | None = None
    """Whom to run as, with the groups of that user; default: as we do."""
    pass_fds: Collection[int] = ()
    """Open files it inherits under the same numbers, such as `/dev/fd/7` with a password."""
    inherit_stdin: bool = False
    """Give it our own standard input; without this and without chunks it reads from /dev/null."""
    timeout: float | None = None
    """Seconds after which it is ended."""
    silence: float | None = None
    """Seconds without a sign of life, while we wait for one, after which it is ended."""
    ok_exit_codes: Collection[int] = (0,)
    linger: float = 10.0
    """Seconds that processes it left behind may keep its pipes open in silence."""

    @property
    def name(self) -> str:
        """What messages call it; the arguments may hold secrets."""
        return os.path.basename(self.argv[0]) or self.argv[0]


def locate(name: str, error: type[StageError], path: str | None = None) -> str:
    """The full path of a program; `path` is searched instead of our own PATH.

    Raises:
        error: it is not installed.
    """
    found = shutil.which(name, path=path)
    if found is None:
        raise _not_found(name, error)
    return found


def installed(*names: str, path: str | None = None) -> list[str]:
    """The full paths of those programs that are there; see `locate`."""
    return [found for name in names if (found := shutil.which(name, path=path))]


def stream(
    program: Program,
    context: StageContext,
    error: type[StageError],
    chunks: Iterable[bytes] | None = None,
) -> Iterator[bytes]:
    """Run a program and yield its output; see `Child.output`. Closing the generator ends it."""
    with Child(program, context, error, feed=chunks is not None) as child:
        yield from child.output(chunks)


def capture(program: Program, context: StageContext, error: type[StageError]) -> bytes:
    """The whole output of a program that says little.

    Raises:
        error: it failed, or said more than 16 MiB.
    """
    output = bytearray()
    with Child(program, context, error) as child:
        for chunk in child.output():
            output += chunk
            if len(output) > _CAPTURED:
                raise error(f'"{program.name}" printed more than the expected few lines')
    return bytes(output)


class Child:
    """A running program in a process group of its own.

    Leaving the `with` block ends the whole group: SIGTERM, after 2 seconds SIGKILL. So does
    an abort of the run.

    Args:
        error: the class of the errors it raises.
        feed: its standard input will be given to `output`.
    """

    def __init__(
        self,
        program: Program,
        context: StageContext,
        error: type[StageError],
        feed: bool = False,
    ) -> None:
        self._program = program
        self._teardown = context.teardown
        self._error = error
        self._feed = feed
        self._stack = contextlib.ExitStack()
        self._poll = select.poll()
        self._held: list[bytes] = []
        self._held_size = 0
        self._said = b""
        self._lost = False
        self._secrets = sorted(
            (v.encode() for v in program.env.values() if len(v) >= _SHORTEST_SECRET),
            key=len,
            reverse=True,
        )
        self._longest = max(map(len, self._secrets), default=0)
        self._deaf = False
        self._worth_reading = 0
        """Bytes; less waits a moment for more, where the pipe has room for that."""
        self._watcher: int | None = None

    @property
    def exit_code(self) -> int | None:
        """Known when the output has ended; negative for a signal."""
        return self._group.exit_code

    @property
    def stderr(self) -> str:
        """The last lines of its standard error, without the values of `env`."""
        said = self._said
        for value in self._secrets:
            said = said.replace(value, b"***")
        # Masked before it is cut. Where the beginning is lost, it may be a part of a secret that
        # nothing matches any more, and that is shorter than the longest of them.
        said = said[self._longest if self._lost else 0 :][-TAIL:]
        return said.decode(errors="replace").strip()

    def __enter__(self) -> Child:
        self._teardown.check()
        process = _start(self._program, self._feed, self._error)
        self._group = ProcessGroup(process)
        self._stack.callback(self._group.end)
        # Closed before the group is ended: a program that waits for its pipes then ends by itself.
        self._pipes = self._stack.enter_context(contextlib.ExitStack())
        self._stdin, self._stdout, self._stderr = (
            None if pipe is None else self._pipes.enter_context(pipe).fileno()
            for pipe in (process.stdin, process.stdout, process.stderr)
        )
        self._stdin_pipe = process.stdin
        self._prepare_pipes()
        self._stack.enter_context(self._teardown.calling(self._group.terminate))
        self._started = self._last_sign = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def output(self, chunks: Iterable[bytes] | None = None) -> Iterator[bytes]:
        """Yield standard output while feeding `chunks`; to be used once.

        Short reads are joined to chunks of 0.5 to 1.5 MiB, unless the program pauses. The end is
        only reached after the program has exited well and has read all of its input.

        Raises:
            error: it exited with another code, did not read its input, or took too long.
            Aborted: the run is being stopped.
        """
        for chunk in chunks or ():
            yield from self._give(chunk)
            if self._deaf:
                break
        self._close_stdin()
        while self._stdout is not None:
            self._pump()
            yield from self._ready()
        yield from self._ready(everything=True)
        while not self._group.exited():
            self._pump()
        self._judge()

    def _give(self, chunk: bytes) -> Iterator[bytes]:
        rest = memoryview(chunk)
        while rest and not self._deaf:
            if self._pump():
                rest = rest[self._write(rest) :]
            yield from self._ready()

    def _write(self, data: memoryview) -> int:
        assert self._stdin is not None
        try:
            return os.write(self._stdin, data)
        except BlockingIOError:
            return 0
        except BrokenPipeError:
            self._deaf = True
            return 0

    def _ready(self, everything: bool = False) -> Iterator[bytes]:
        pause = time.monotonic() - self._last_sign >= _TICK
        if self._held and (everything or pause or self._held_size >= _FULL):
            whole = self._held[0] if len(self._held) == 1 else b"".join(self._held)
            self._held, self._held_size = [], 0
            yield whole

    def _pump(self) -> bool:
        """Wait a moment for the pipes, take what the program says; whether it would take input."""
        self._check()
        events = self._poll.poll(self._patience() * 1000)
        for fd, _ in events:
            if fd == self._stdout:
                self._read_stdout(fd)
            elif fd == self._stderr:
                self._read_stderr(fd)
        if events:
            self._last_sign = time.monotonic()
        else:
            self._refuse_silence()
        return any(fd == self._stdin for fd, _ in events)

    def _patience(self) -> float:
        # With its output closed only the exit is awaited, which is no event: look often at first.
        silence = time.monotonic() - self._last_sign
        return _TICK if self._stdout is not None else min(_TICK, max(0.001, silence / 4))

    def _check(self) -> None:
        self._teardown.check()
        now, program = time.monotonic(), self._program
        if program.timeout is not None and now - self._started > program.timeout:
            raise self._error(f'"{program.name}" did not end within {program.timeout:g} s')
        if now - self._last_sign > program.linger and self._group.exited():
            raise self._error(
                f'"{program.name}" ended, but something it started still holds its pipes',
                "redirect input and output of background processes",
            )

    def _refuse_silence(self) -> None:
        # Only after a look at the pipes: whoever takes the output may have been slow, not it.
        most = self._program.silence
        if most is not None and time.monotonic() - self._last_sign > most:
            raise self._error(
                f'"{self._program.name}" was silent for {most:g} s', "see `idle_timeout`"
            )

    def _read_stdout(self, fd: int) -> None:
        waiting = _unread_bytes(fd)
        if waiting < self._worth_reading:
            # Programs write a little at a time: to be woken for each piece costs both sides more.
            time.sleep(_MOMENT)
            waiting = _unread_bytes(fd)
        data = os.read(fd, max(waiting, 1))
        if data:
            self._held.append(data)
            self._held_size += len(data)
        else:
            self._poll.unregister(fd)
            self._stdout = None

    def _read_stderr(self, fd: int) -> None:
        data = os.read(fd, CHUNK)
        self._said += data
        keep = TAIL + self._longest
        self._lost = self._lost or len(self._said) > keep
        self._said = self._said[-keep:]
        if not data:
            self._poll.unregister(fd)
            self._stderr = None

    def _prepare_pipes(self) -> None:
        for fd in (self._stdout, self._stderr):
            assert fd is not None
            self._poll.register(fd, select.POLLIN)
            room = _enlarge(fd)
            if fd == self._stdout and room >= CHUNK:
                self._worth_reading = room // 4
        if self._stdin is not None:
            self._poll.register(self._stdin, select.POLLOUT)
            _enlarge(self._stdin)
            os.set_blocking(self._stdin, False)

    def _close_stdin(self) -> None:
        if self._stdin is None or self._stdin_pipe is None:
            return
        self._poll.unregister(self._stdin)
        # What is still in the pipe after the exit was never read, and only a reader can ask for it.
        self._watcher = _reader_of(self._stdin)
        if self._watcher is not None:
            self._pipes.callback(os.close, self._watcher)
        self._stdin_pipe.close()
        self._stdin = None

    def _judge(self) -> None:
        # An exit because of our own SIGTERM is no failure of the program.
        self._teardown.check()
        while self._stderr is not None and self._poll.poll(0):
            self._read_stderr(self._stderr)
        if self.exit_code not in self._program.ok_exit_codes:
            self._fail(describe_exit(self.exit_code))
        if self._deaf or _unread_bytes(self._watcher):
            self._fail("exited without reading all of its input")

    def _fail(self, what: str) -> None:
        said = " | ".join(line.strip() for line in self.stderr.splitlines() if line.strip())
        raise self._error(f'"{self._program.name}" {what}' + (f": {said}" if said else ""))


def _start(program: Program, feed: bool, error: type[StageError]) -> subprocess.Popen[bytes]:
    idle = None if program.inherit_stdin else subprocess.DEVNULL
    if program.cwd is not None and not os.path.isdir(program.cwd):
        raise error(f'the working directory "{program.cwd}" does not exist')
    identity = _identity(program.user, error) if program.user else None
    try:
        return subprocess.Popen(
            list(program.argv),
            bufsize=0,
            stdin=subprocess.PIPE if feed else idle,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=program.cwd,
            env={**os.environ, **(identity.env if identity else {}), **program.env},
            pass_fds=tuple(program.pass_fds),
            start_new_session=True,
            user=identity.uid if identity else None,
            group=identity.gid if identity else None,
            extra_groups=identity.groups if identity else None,
        )
    except FileNotFoundError:
        raise _not_found(program.argv[0], error) from None
    except (OSError, ValueError) as problem:
        # A ValueError is a NUL byte somewhere; its text does not repeat the value.
        reason = problem.strerror if isinstance(problem, OSError) else str(problem)
        raise error(f'"{program.name}" could not be started: {reason}') from None


@dataclass(frozen=True)
class _Identity:
    uid: int
    gid: int
    groups: list[int]
    env: dict[str, str]


def _identity(user: str, error: type[StageError]) -> _Identity:
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        raise error(f'there is no user "{user}"') from None
    groups = os.getgrouplist(user, entry.pw_gid)
    env = {"HOME": entry.pw_dir, "USER": user, "LOGNAME": user}
    return _Identity(entry.pw_uid, entry.pw_gid, groups, env)


def _not_found(name: str, error: type[StageError]) -> StageError:
    return error(f'"{name}" was not found', "install it or give its full path")


def _enlarge(fd: int) -> int:
    """Give a pipe more room; how many bytes it has."""
    with contextlib.suppress(OSError):  # Over the user's limit for pipes: slower, not wrong.
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, CHUNK)
    return fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ)


def _reader_of(fd: int) -> int | None:
    try:
        return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None


def _unread_bytes(fd: int | None) -> int:
    if fd is None:
        return 0
    unread = array.array("i", [0])
    fcntl.ioctl(fd, termios.FIONREAD, unread)
    return unread[0]
