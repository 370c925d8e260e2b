"""One stream, handed to every branch without copying; a branch that fails is cut off, the others go
on.
"""

from __future__ import annotations

from pipeline.channel import Channel, Trailer
from pipeline.context import Teardown
from pipeline.errors import Aborted


class FanOut:
    """The writing end of all branch channels; used by the transforms' thread only."""

    def __init__(self, channels: list[Channel], teardown: Teardown) -> None:
        self._live = list(channels)
        self._teardown = teardown

    def send(self, chunk: bytes) -> None:
        """Hand the chunk to every branch that is left.

        Raises:
            Aborted: no branch is left, or the run is being stopped.
        """
        for channel in tuple(self._live):
            try:
                channel.send(chunk)
            except Aborted:
                self._teardown.check()
                self._live.remove(channel)
        if not self._live:
            raise Aborted

    def finish(self, trailer: Trailer) -> None:
        for channel in self._live:
            channel.finish(trailer)
