"""One branch of the fan-out: from its channel to an object that is complete but not visible yet,
then the commit.
"""

from __future__ import annotations

import threading
import time
from functools import partial
from hashlib import sha256

from pipeline.channel import Channel, Trailer
from pipeline.context import StageContext
from pipeline.errors import Aborted, NxsError, StorageError, StorageUnavailable
from pipeline.graph import BranchPlan
from pipeline.naming import ObjectName
from pipeline.stage import Writer
from pipeline.streams import Meter, chained


class BranchRun:
    """The state of one branch while one artifact runs. `pump` and `commit` run in threads of their
    own.
    """

    def __init__(self, plan: BranchPlan, name: ObjectName, token: str, buffer: int) -> None:
        self.plan = plan
        self.name = name
        self.channel = Channel(buffer)
        self.context = StageContext()
        self.meter = Meter(plan.name)
        self.error: BaseException | None = None
        self.stored: Trailer | None = None
        """Set when everything is with the storage, ready to commit."""
        self.committed = False
        self.finished_pumping = False
        self._token = token
        self._writer: Writer | None = None
        self._manifest: Writer | None = None
        self._lock = threading.Lock()
        self._aborting = threading.Lock()
        self._cut = False

    @property
    def has_work(self) -> bool:
        """True while it connects, has something to write, or waits for the storage."""
        idle = self._writer is not None and self.channel.is_empty
        return not (idle or self.finished_pumping)

    # -- in the branch's thread ------------------------------------------------------------------

    def pump(self) -> None:
        """Write the whole stream; never raises, a failure stays with this branch."""
        try:
            writer = self._adopt(self.plan.storage.create(self.name.path, self._token))
            self.stored = self._write(writer)
        except BaseException as error:
            self.fail(error)
            self._wake()
        finally:
            self.finished_pumping = True

    def _write(self, writer: Writer) -> Trailer:
        digest = sha256() if self.plan.changes_bytes else None
        size = 0
        steps = [partial(node.transform.apply, context=self.context) for node in self.plan.stages]
        with chained(iter(self.channel), steps) as chunks:
            for chunk in chunks:
                writer.write(chunk)
                size += len(chunk)
                self.meter.bytes = size
                if digest is not None:
                    digest.update(chunk)
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

    def commit(self, manifest: bytes) -> None:
        """Make the object visible, then its manifest; never raises.

        The manifest is with the storage before the object becomes visible, so that little can fail
        in between, and what a kill leaves there can be told to be ours (`pipeline.sweep`).
        """
        try:
            if self._writer is None or self.stored is None:
                raise StorageError("nothing was stored")
            self._manifest = self.plan.storage.create(self.name.manifest, self._token)
            self._manifest.write(manifest)
            self._manifest.flush()
            self._writer.commit()
            self._commit_manifest(self._manifest)
            self.committed = True
        except BaseException as error:
            self.fail(error)
            self.abort()

    def _commit_manifest(self, manifest: Writer) -> None:
        try:
            manifest.commit()
        except BaseException:
            # Without its manifest the object is no backup: take it back.
            self.plan.storage.delete([self.name.path])
            raise

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
        self._wake()
        if self._writer is not None and not self.committed:
            # A write that waits for a dead server wakes up only when its writer is aborted.
            threading.Thread(target=self.abort, name="interrupt", daemon=True).start()

    def abort(self) -> None:
        """Stop, and leave no trace. May take as long as the storage needs to answer."""
        self._wake()
        with self._aborting:
            for writer in (self._writer, self._manifest):
                if writer is not None and not self.committed:
                    writer.abort()

    def _wake(self) -> None:
        self._cut = True
        self.channel.abort()
        self.context.teardown.abort()


class StallWatch:
    """Tells how long a branch has had work and done none."""

    def __init__(self, branch: BranchRun) -> None:
        self._branch = branch
        self._seen = -1
        self._since = time.monotonic()

    def idle_seconds(self, now: float) -> float:
        """Seconds without progress; 0 while the branch has nothing to do."""
        progress = self._branch.channel.received + self._branch.meter.bytes
        if progress != self._seen or not self._branch.has_work:
            self._seen, self._since = progress, now
        return now - self._since


def describe(error: BaseException) -> str:
    """One line for people; an error that is not ours is named with its type."""
    return str(error) if isinstance(error, NxsError) else f"{type(error).__name__}: {error}"
