"""The contracts of the kinds of stage. Each rule has a test in tests/contracts/.

A stage is built from its frozen model (`schemas/`) and is ready after `__init__`, which does no
I/O. Its methods are plain blocking functions: the engine calls them in threads of their own. A
stage says what failed (`pipeline.errors`); the engine adds which stage, backup and artifact.

Data moves as *chunks*: immutable, non-empty `bytes` of about 1 MiB (`CHUNK`), free to hand to any
number of branches. An iterator of chunks that ends normally is complete; one that raises is not.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pipeline.context import StageContext
from pipeline.errors import SourceError

if TYPE_CHECKING:
    from pipeline.events import Event, RunStarted
    from pipeline.report import RunReport

CHUNK = 1 << 20
"""The usual size of a chunk, in bytes (measured: larger wins nothing, smaller costs per hop)."""


@dataclass(frozen=True)
class Shard:
    """The place of an artifact among those that only together are a backup."""

    of: str
    """What they are together."""
    number: int
    """From 1 on."""
    count: int


@dataclass(frozen=True)
class Artifact:
    """One named stream of a backup."""

    name: str
    suffix: str
    """What the stream is, before any transform: `.tar`, `.sql`; may be empty."""
    target: object = None
    """Whatever the source needs to find it again; opaque to the engine."""
    min_size: int = 1
    """Fewer plain bytes than this are a failure: an empty dump is no backup."""
    extract: str = ""
    """The standard command that takes the plain stream from its standard input, such as `tar -x`.
    """
    shard: Shard | None = None


@dataclass(frozen=True)
class Needed:
    """A program that a stage runs."""

    name: str
    """What people call it; where one of several will do: `mysqldump or mariadb-dump`."""
    paths: Sequence[str]
    """Where it is installed; empty: nowhere."""
    install: str = "it, or give its full path"
    """What to install, as the end of a hint: the package that has it."""
    tells_version: bool = True
    """Whether `--version` makes it tell that, and do nothing else."""
    to_restore: bool = False
    """Whether only a restore needs it."""


class Source(ABC):
    """Where the bytes come from."""

    memory: int = 3 * CHUNK
    """Bytes it may hold at most, for the run's memory ceiling."""
    processes: int = 1
    """So many artifacts are streamed at the same time, each in a process of its own."""
    periods: Sequence[str] = ()
    """Of the levels of a series of increments (see `pipeline.series`); empty: there is none."""
    index_identity: str | None = None
    """File with the age key that the indexes of a series are encrypted to, and read with."""
    first: Sequence[str] = ()
    """Names of artifacts that others need when they are brought back, such as roles."""
    last: Sequence[str] = ()
    """Names of artifacts that need others, such as grants."""

    def refuses(self, artifact: Artifact, index: Iterator[bytes]) -> str | None:  # noqa: ARG002
        """Why an increment cannot be built on a copy with this index, or None when it can."""
        return "increments are not made here"

    @abstractmethod
    def artifacts(self) -> list[Artifact]:
        """Plan what will be produced; never empty.

        Raises:
            SourceError: nothing matches, or the source cannot be reached.
        """

    @abstractmethod
    def stream(self, artifact: Artifact, context: StageContext) -> Iterator[bytes]:
        """Produce the chunks of one artifact.

        Reaching the end means that everything was read and, for a program, that it exited well.
        Items that could not be read are noted in `context.findings`. Whatever may block registers
        with `context.teardown`.

        Raises:
            SourceError: the stream is not complete.
        """

    def programs(self) -> Sequence[Needed]:
        """Look for the programs that it runs; nothing is connected, and nothing is run."""
        return ()

    @abstractmethod
    def probe(self) -> list[str]:
        """Check what the source needs, without reading data: the facts found, one line each.

        Raises:
            SourceError: a run would fail.
        """

    def release(self, artifact: Artifact) -> None:
        """Let go of what an artifact was read from, such as a file that was made for it.

        Called when it is committed where it has to be; never when it failed.

        Raises:
            SourceError: that is still there; it becomes a warning.
        """

    def close(self) -> None:
        """Let go of what is held between the artifacts of a run, such as a snapshot.

        Called when the last one has ended, however it ended.

        Raises:
            SourceError: something could not be put back as it was.
        """

    def apply(
        self,
        chunks: Iterator[bytes],  # noqa: ARG002
        artifact: Artifact,
        target: Path,  # noqa: ARG002
    ) -> Sequence[str]:
        """Bring an increment back, onto what `restore` and earlier increments left in `target`.

        Returns:
            What could not be restored exactly as it was, one line each.
        """
        raise SourceError(f'"{artifact.name}" is no increment: this source makes none')

    def restore(
        self, chunks: Iterator[bytes], artifact: Artifact, target: Path, overwrite: bool
    ) -> Sequence[str]:
        """Bring a plain stream back to `target`; by default a file named after the artifact.

        Returns:
            What could not be restored exactly as it was, one line each.

        Raises:
            SourceError: the target exists and `overwrite` is false, or it cannot be written.
        """
        from pipeline.restore import write_file

        write_file(chunks, target, artifact.name + artifact.suffix, overwrite)
        return []

    def load(
        self,
        chunks: Iterator[bytes],  # noqa: ARG002
        artifact: Artifact,
        url: str,  # noqa: ARG002
        overwrite: bool,  # noqa: ARG002
        context: StageContext,  # noqa: ARG002
    ) -> Sequence[str]:
        """Bring a plain stream back into a server, whose address `restore --to` has named.

        Args:
            url: such as `mysql://user@host:3306/database`; a password comes from the environment
                or from the configuration of this source, never from the command line.
            overwrite: replace what is there.

        Returns:
            What could not be restored exactly as it was, one line each.

        Raises:
            SourceError: the address is not understood, or the server did not take everything.
        """
        raise SourceError(
            f'"{artifact.name}" cannot be restored into a server',
            "give --to a directory or a file",
        )

    def examine(self, chunks: Iterator[bytes], context: StageContext) -> str:
        """Read a plain stream through for `verify`, and check what its format lets one check.

        Returns:
            A few words on what was found, or nothing.

        Raises:
            SourceError: the stream is not what this source produces.
        """
        for _ in chunks:
            context.teardown.check()
        return ""


class Transform(ABC):
    """Bytes in, bytes out, and the way back."""

    suffix: str = ""
    """Added to the name of the object, in the order to undo it: `.zst`, `.age`."""
    encrypts: ClassVar[bool] = False
    """The plain digest must not be published beside an object that was encrypted."""
    changes_bytes: ClassVar[bool] = True
    """False for a stage that only watches or delays, such as throttle."""
    memory: int = 0
    """Bytes it may hold at most, for the run's memory ceiling."""

    @abstractmethod
    def apply(self, chunks: Iterable[bytes], context: StageContext) -> Iterator[bytes]:
        """Convert the stream. An error of the input passes through; the last flush happens before
        the end.

        Raises:
            TransformError: the stream cannot be converted.
        """

    @abstractmethod
    def invert(self, chunks: Iterable[bytes], context: StageContext) -> Iterator[bytes]:
        """Convert back, and raise at the end when the stored stream was damaged or cut off.

        Raises:
            TransformError: the stored stream is damaged, incomplete, or no key fits.
        """

    @property
    @abstractmethod
    def undo(self) -> str:
        """The shell command of a standard tool that undoes it from stdin to stdout; empty when
        there is nothing to undo.
        """

    def with_identity(self, path: str) -> Transform:  # noqa: ARG002
        """The same, with the private key in another file; for a stage that has none, itself."""
        return self

    def can_invert(self) -> str | None:
        """Why `invert` cannot work on this machine (no private key, no inverse program), or None
        when it can.
        """
        return None

    def programs(self) -> Sequence[Needed]:
        """Look for the programs that it runs; nothing is run."""
        return ()

    def probe(self) -> list[str]:
        """Check what it needs (programs, key files): the facts found, one line each.

        Raises:
            TransformError: a run would fail.
        """
        return []


class Writer(ABC):
    """An object that is being written and is not visible yet.

    `write` and `commit` are called from one thread. `abort` may be called from any thread, more
    than once, also while a `write` is blocked (which must then raise soon), before the first
    `write`, and after a failed `commit`. After `commit` has returned it does nothing.
    """

    @abstractmethod
    def write(self, chunk: bytes) -> None:
        """Take a chunk; it may be sent later. Errors of earlier chunks surface here or in `flush`.

        Raises:
            StorageError: the object cannot be completed; call `abort`.
        """

    @abstractmethod
    def flush(self) -> None:
        """Wait until everything is with the storage, so that `commit` has little left that can
        fail.

        Raises:
            StorageError: something was not stored.
        """

    @abstractmethod
    def commit(self) -> None:
        """Make the object visible under its name, whole, or not at all.

        Raises:
            StorageError: the object is not visible.
        """

    @abstractmethod
    def abort(self) -> None:
        """Leave no trace; never raises. What a dead connection keeps us from removing, `sweep`
        will.
        """


@dataclass(frozen=True)
class ObjectInfo:
    """An object on a storage."""

    name: str
    size: int


class Storage(ABC):
    """A place that keeps objects; names are relative to its `path`, with `/` between parts.

    It lists and deletes, it never decides. Its methods may be called from several threads at once.
    """

    memory: int = 0
    """Bytes one writer may hold at most, for the run's memory ceiling."""
    max_object_size: int | None = None
    """The largest object it can take, in bytes; None when there is no limit of its own."""

    @abstractmethod
    def create(self, name: str, token: str) -> Writer:
        """Start an object that stays invisible until its writer commits.

        `token` names the run: what lies there unfinished is called `.<basename>.<token>.part`
        beside the object (see `pipeline.naming.part_name`), where the storage works with names at
        all.

        Raises:
            StorageRefused: the storage rejected us, or the object exists already; retrying cannot
            help. StorageUnavailable: the storage did not answer; nothing was written.
        """

    @abstractmethod
    def open(self, name: str, offset: int = 0) -> Iterator[bytes]:
        """Read an object as chunks, from `offset` to its end.

        Raises:
            ObjectMissing: there is no such object.
            StorageError: it could not be read to its end.
        """

    @abstractmethod
    def list(self, prefix: str) -> Sequence[ObjectInfo]:
        """All finished objects below the directory `prefix` (parts joined by `/`; "" is
        everything), sorted by name.

        Unfinished objects are not listed. A prefix that does not exist is an empty list. `prefix`
        is a directory: `a/b` never lists `a/bc`.
        """

    @abstractmethod
    def delete(self, names: Sequence[str]) -> None:
        """Remove objects; one that does not exist is fine.

        Raises:
            StorageError: at least one is still there.
        """

    @abstractmethod
    def unfinished(self, prefix: str) -> Sequence[str]:
        """Full names (`dir/.<basename>.<token>.part`) of unfinished objects below the directory
        `prefix`, sorted.

        They are removed by `sweep`.
        """

    @abstractmethod
    def sweep(self, names: Sequence[str]) -> None:
        """Remove unfinished objects found by `unfinished`; one that does not exist is fine."""

    @abstractmethod
    def probe(self) -> Sequence[str]:
        """Connect, and look around: facts about server and connection, one line each.

        What is not safe is a line that starts with `warning: `. Nothing is left behind; whether
        objects can be written, read and deleted is for `pipeline.tryout` to find out.

        Raises:
            StorageError: a run would fail.
        """

    def close(self) -> None:
        """Drop connections; the storage may be used again afterwards."""


class Notifier(ABC):
    """Someone who is told. It can never fail, block or slow a backup: the engine sees to that."""

    edits: bool = False
    """Whether `show` is implemented."""
    about: RunStarted | None = None
    """The run that events belong to; set before they are sent. None for the message of a test."""

    async def reach(self) -> None:
        """See whether the other side answers, without telling anyone anything.

        Asked while the backups run; one that has not answered by their end is not waited for. By
        default nothing is asked, and it is taken to be there. Cancelled when it takes long.

        Raises:
            NotifierError: it does not answer.
        """

    async def announce(self, run: RunStarted) -> None:
        """Tell that a run has started. Cancelled when its deadline passes.

        Raises:
            NotifierError: it was not delivered.
        """
        await self.send_events([run])

    async def show(self, text: str) -> None:
        """Show how the run stands, in one message that is edited, and that `send` turns into the
        result. Cancelled when its deadline passes.

        Raises:
            NotifierError: it was not delivered.
        """
        raise NotImplementedError(text)

    @abstractmethod
    async def send(self, report: RunReport) -> None:
        """Tell the result of a run. Cancelled when its deadline passes.

        Raises:
            NotifierError: it was not delivered.
        """

    @abstractmethod
    async def send_events(self, events: Sequence[Event]) -> None:
        """Tell a batch of events, oldest first; never empty. Cancelled when its deadline passes.

        Raises:
            NotifierError: they were not delivered.
        """


class Exporter(ABC):
    """A monitoring system that is told about runs; made from the whole configuration."""

    @abstractmethod
    async def export(self, report: RunReport) -> None:
        """Tell about a run that has ended. Cancelled when its deadline passes.

        Raises:
            NxsError: it was not told.
        """

    @abstractmethod
    async def probe(self) -> Sequence[str]:
        """Look whether it would work, without telling anything: the facts found, one line each.

        Raises:
            NxsError: it would not.
        """
