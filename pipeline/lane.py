"""One stream on its way to all storages: a channel, transforms, the fan-out, a branch each.

An artifact has a lane for its data. One of a series of increments has a second one for its index,
which is written at the same time: it would be too large to wait in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import sha256

from pipeline.branch import BranchRun
from pipeline.channel import Channel, Trailer
from pipeline.context import StageContext
from pipeline.errors import Aborted
from pipeline.fanout import FanOut
from pipeline.graph import INDEX_BUFFER, TRUNK, Plan, StageNode
from pipeline.naming import ObjectName
from pipeline.streams import Meter, chained, steps_of

NameFor = Callable[[str], ObjectName]
"""The name of an object, from what its stages add to the suffix."""


class Lane:
    """The way of one stream; `convert` runs in a thread of its own, and so does each branch."""

    def __init__(
        self,
        capacity: int,
        nodes: Sequence[StageNode],
        branches: Sequence[BranchRun],
        context: StageContext,
    ) -> None:
        self.trunk = Channel(capacity)
        self.branches = branches
        self.meters = [Meter(node.name) for node in nodes]
        self._nodes = nodes
        self._context = context

    @property
    def has_work(self) -> bool:
        """Whether a storage has something to do, and is perhaps what everybody waits for."""
        return any(branch.has_work for branch in self.branches)

    def convert(self) -> None:
        """The transforms, the digest of what will be stored, the fan-out."""
        out = FanOut([branch.channel for branch in self.branches], self._context.teardown)
        digest, size = sha256(), 0
        transforms = [node.transform for node in self._nodes]
        steps = steps_of(transforms, self.meters, self._context)
        with chained(iter(self.trunk), steps) as chunks:
            for chunk in chunks:
                digest.update(chunk)
                size += len(chunk)
                out.send(chunk)
        if self.trunk.trailer is None:
            raise Aborted
        out.finish(Trailer(size, digest.hexdigest()))

    def interrupt(self) -> None:
        """Make everything on it stop soon; from any thread."""
        self.trunk.abort()
        for branch in self.branches:
            branch.interrupt()


def data_lane(plan: Plan, token: str, name_for: NameFor, context: StageContext) -> Lane:
    """The lane of what the source produces."""
    branches = [
        BranchRun(branch, name_for(plan.suffix_to(branch)), token, plan.buffer)
        for branch in plan.branches
    ]
    return Lane(TRUNK, plan.stages, branches, context)


def index_lane(plan: Plan, token: str, name_for: NameFor, context: StageContext) -> Lane:
    """The lane of its index: encrypted perhaps, and to the same storages."""
    nodes = [StageNode("index", plan.index_key)] if plan.index_key else []
    name = name_for("".join(node.transform.suffix for node in nodes))
    branches = [
        BranchRun(replace(branch, stages=()), name, token, INDEX_BUFFER) for branch in plan.branches
    ]
    return Lane(INDEX_BUFFER, nodes, branches, context)
