"""Tries a delivery until it works, cannot work, or the time is up; the same for every notifier."""

from __future__ import annotations

import random
import ssl
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

import anyio

from pipeline.errors import NotifierError

FIRST_DELAY = 0.5
LONGEST_DELAY = 15.0


@dataclass(frozen=True)
class Failure:
    """Why an attempt did not deliver."""

    what: str
    """Goes after the name of the host; never text that came from there."""
    hint: str | None = None
    may_pass: bool = False
    """Whether another attempt may succeed."""
    retry_after: float = 0.0
    """Seconds that the other side asked us to wait."""


async def deliver(
    whom: str, attempt: Callable[[], Awaitable[Failure | None]], timeout: float
) -> None:
    """Make attempts, with growing pauses, as long as they may succeed and there is time.

    A message may arrive twice when only the answer to it was lost.

    Args:
        whom: the other side, as errors name it.
        timeout: seconds for all attempts together.

    Raises:
        NotifierError: it was not delivered.
    """
    failure: Failure | None = Failure("did not answer", may_pass=True)
    with anyio.move_on_after(timeout) as scope:
        for back_off in _back_offs():
            failure = await attempt()
            if failure is None or not failure.may_pass:
                break
            delay = max(back_off, failure.retry_after)
            if anyio.current_time() + delay >= scope.deadline:
                break
            await anyio.sleep(delay)
    if failure is not None:
        gave_up = f"; gave up after {timeout:g}s" if failure.may_pass else ""
        raise NotifierError(f'"{whom}" {failure.what}{gave_up}', failure.hint)


def _back_offs() -> Iterator[float]:
    """Seconds before each new attempt: doubling, with jitter as many hosts may call at once."""
    longest = FIRST_DELAY
    while True:
        yield longest * random.uniform(0.5, 1.0)
        longest = min(longest * 2, LONGEST_DELAY)


def trusting(ca: str) -> ssl.SSLContext:
    """A context that trusts the authorities of a file, and no others.

    Raises:
        NotifierError: the file cannot be used.
    """
    try:
        return ssl.create_default_context(cafile=ca)
    except OSError as error:
        raise NotifierError(
            f'the trust file "{ca}" cannot be read',
            error.strerror or "it must hold certificates in PEM form",
        ) from None


def causes(error: BaseException) -> Iterator[BaseException]:
    """The error, and what led to it."""
    current: BaseException | None = error
    while current is not None:
        yield current
        current = current.__cause__ or current.__context__


def is_distrust(error: BaseException) -> bool:
    """Whether it comes from a certificate that was not accepted."""
    return any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes(error))


DISTRUST = Failure("has a certificate that is not trusted", "set `ca` to the file of its authority")
