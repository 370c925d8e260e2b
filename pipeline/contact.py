"""Whether the other side of a notifier is there: found out while the backups run, so that at their
end nobody waits for one that is dead.

One that has answered gets its whole `timeout` for the last message, retries included: it may be
slow. One that has not, since the run began, gets `LAST_CALL`. The message is on its way by then, as
far as there is a way: a service that takes its time in a run that was over sooner than its first
answer still has it, but nobody waits to hear so.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio

LAST_CALL = 0.4
"""Seconds after the end of the run, and after the first question."""
DEAD_AFTER = 3.0
"""Seconds without an answer, after which there is little hope;"""
LAST_WORD = 0.2
"""and as many are left then for the message to be on its way, in case there is someone again."""
_STEP = 0.03
"""They are counted in steps of this, so that time in which we are busy ourselves hardly counts."""
PATIENCE = 10.0
"""Seconds for one answer while the run goes on."""
LONGEST_PAUSE = 60.0


class Contact:
    """What is known of one notifier."""

    def __init__(self) -> None:
        self.answered = False
        self.given_up = False
        """Whether the end of the run has run out of patience."""
        self._asked: float | None = None

    def heard(self) -> None:
        """It has answered: there is time."""
        self.answered = True

    async def seek(self, reach: Callable[[], Awaitable[None]]) -> None:
        """Ask until there is an answer, less and less often."""
        pause = 1.0
        while not self.answered:
            self._asked = self._asked or anyio.current_time()
            with anyio.move_on_after(PATIENCE):
                try:
                    await reach()
                except Exception:
                    pass  # it is not there yet; a message that is not delivered will say why
                else:
                    self.heard()
                    return
            await anyio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)

    async def limit(
        self, scope: anyio.CancelScope, timeout: float, hurry: Callable[[], None]
    ) -> None:
        """Cancel `scope` when the time is up that is left at the end of a run.

        Args:
            timeout: seconds for one that has answered.
            hurry: called when half of the time is up of one that has not.
        """
        now = anyio.current_time()
        end, left = now + timeout, LAST_CALL
        if self._asked is not None and now - self._asked > DEAD_AFTER:
            left = LAST_WORD
        half = left / 2
        while left > 0 and not self.answered and anyio.current_time() < end:
            await anyio.sleep(_STEP)
            left -= _STEP if self._asked is not None else 0
            if left < half:
                hurry()
        if self.answered:
            await anyio.sleep_until(end)
        self.given_up = True
        scope.cancel()
