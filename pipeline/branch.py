"""One branch of the fan-out: from its channel to an object that is complete but not visible yet,
then the commit.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from hashlib import sha256

from pipeline.channel import Channel, Trailer
from pipeline.context import StageContext
from pipeline.errors import Aborted, NxsError, StorageError, StorageRefused, StorageUnavailable
from pipeline.graph import BranchPlan
from pipeline.naming import ObjectName
from pipeline.stage import Writer
from pipeline.streams import Meter, chained, steps_of


class BranchRun:
    """The state of one branch while one artifact runs. `pump` and `commit` run in threads of their
    own.
    """

    def __init__(self, plan: BranchPlan, name: ObjectName, token: str, buffer: int) -> None:
        self.plan = plan
        self.name = name
        self.channel = Channel(buffer)
        self.context = StageContext()
        self.meters = [Meter(node.name) for node in plan.stages]
        self.meter = Meter(plan.name)
        """Of the storage."""
        self.error: BaseException | None = None
        self.stored: Trailer | None = None
        """Set when everything is with the storage, ready to commit."""
        self.committed = False
        self._token = token
        self._writer: Writer | None = None
        self._manifest: Writer | None = None
        self._lock = threading.Lock()
        self._aborting = threading.Lock()
        self._cut = False
        self._finished_pumping = False
        self._busy = True
        """Connecting, writing or flushing: not just waiting for the next chunk."""
        self._keep_mark = False
        """The object may be visible without its manifest: leave what tells that it is ours."""

    @property
    def has_work(self) -> bool:
        """True while it connects, has something to write, or waits for the storage."""
        return not self._finished_pumping and (self._busy or not self.channel.is_empty)

    def progress(self) -> int:
        """Grows whenever the branch has done something."""
        return self.channel.received + self.meter.bytes

    # -- in the branch's thread ------------------------------------------------------------------

    def pump(self) -> None:
        """Write the whole stream; never raises, a failure stays with this branch."""
        try:
            with self.meter.running():
                writer = self._adopt(self.plan.storage.create(self.name.path, self._token))
                self.stored = self._write(writer)
        except BaseException as error:
            self.fail(error)
            self.abort()
        finally:
            self._finished_pumping = True

    def _write(self, writer: Writer) -> Trailer:
        digest = sha256() if self.plan.changes_bytes else None
        size = 0
        transforms = [node.transform for node in self.plan.stages]
        steps = steps_of(transforms, self.meters, self.context)
        with chained(iter(self.channel), steps) as chunks:
            self._busy = False
            for chunk in chunks:
                self._busy = True
                writer.write(chunk)
                self._busy = False
                size += len(chunk)
                self.meter.bytes = size
                if digest is not None:
                    digest.update(chunk)
        self._busy = True
        writer.flush()
        trailer = self.channel.trailer
        if trailer is None:
            raise StorageError("the stream ended without its trailer")
        return trailer if digest is None else Trailer(size, digest.hexdigest())

    def _adopt(self, writer: Writer) -> Writer:
        """Make the writer known to `abort`; one that comes too late is aborted at once."""
        self._writer = writer
        if self._cut:
            writer.abort()
        return writer

    # -- commit, in a thread ---------------------------------------------------------------------

    def commit(self, document: bytes, index: BranchRun | None = None) -> None:
        """Make the object visible, after its index if there is one, then its manifest; never
        raises.

        The manifest is with the storage, unfinished, before the object becomes visible: little can
        fail in between, and whatever does leaves a mark by which `stages.rotate` finds the object.
        """
        try:
            with self.meter.running():
                if self._writer is None or self.stored is None:
                    raise StorageError("nothing was stored")
                self._manifest = self.plan.storage.create(self.name.manifest, self._token)
                self._manifest.write(document)
                self._manifest.flush()
                self._publish(self._writer, self._manifest, index)
                self.committed = True
        except BaseException as error:
            self.fail(error)
            self.abort()

    def _publish(self, writer: Writer, manifest: Writer, index: BranchRun | None) -> None:
        self._keep_mark = True
        visible = []
        try:
            if index is not None:
                index._show()
                visible.append(index.name.path)
            writer.commit()
        except StorageRefused:
            self._take_back(visible)
            raise
        try:
            manifest.commit()
        except BaseException as error:
            # Perhaps only the answer was lost.
            lost = [] if isinstance(error, StorageRefused) else [self.name.manifest]
            self._take_back([*lost, self.name.path, *visible])
            raise

    def _show(self) -> None:
        """Make the object visible; for an index, whose manifest is that of the data."""
        if self._writer is None or self.stored is None:
            raise StorageError("the index was not stored")
        self._writer.commit()
        self.committed = True

    def _take_back(self, names: Sequence[str]) -> None:
        """What is visible without its manifest is no backup: remove it, or leave the mark."""
        try:
            if names:
                self.plan.storage.delete(names)
            self._keep_mark = False
        except StorageError:
            return  # the error that led here is the one to tell

    # -- from any thread -------------------------------------------------------------------------

    def fail(self, error: BaseException) -> None:
        """Note the first error that is a cause; what follows from it is of no interest."""
        with self._lock:
            if self.error is None or isinstance(self.error, Aborted):
                self.error = error

    def stalled(self, seconds: float) -> None:
        self.fail(StorageUnavailable(f"no progress for {seconds:g} s", "see `stall_timeout`"))

    def interrupt(self) -> None:
        """Make the branch stop soon; returns at once."""
        first = not self._cut
        self._wake()
        if first and self._writer is not None and not self.committed:
            # A write that waits for a dead server wakes up only when its writer is aborted.
            threading.Thread(target=self.abort, name="interrupt", daemon=True).start()

    def abort(self) -> None:
        """Stop, and leave no trace. May take as long as the storage needs to answer."""
        self._wake()
        with self._aborting:
            if self.committed:
                return
            self._abort_writer(self._writer)
            if not self._keep_mark:
                self._abort_writer(self._manifest)

    def _abort_writer(self, writer: Writer | None) -> None:
        try:
            if writer is not None:
                writer.abort()
        except Exception as error:
            self.fail(error)  # against its contract; it must not cost the other branches

    def _wake(self) -> None:
        self._cut = True
        self.channel.abort()
        self.context.teardown.abort()


def describe(error: BaseException) -> str:
    """One line for people; an error that is not ours is named with its type."""
    if isinstance(error, NxsError):
        return str(error)
    stage = getattr(error, "stage", "")
    return f"{stage}: {type(error).__name__}: {error}".removeprefix(": ")
