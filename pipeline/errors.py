"""Everything that can go wrong, as types.

::

    NxsError
    +-- ConfigError            the configuration is wrong (exit 78)
    +-- StageError             a stage failed; the runner adds which, of which backup and artifact
    |   +-- SourceError
    |   +-- TransformError
    |   +-- StorageError
    |       +-- StorageRefused       the other side said no; retrying cannot help
    |       |   +-- StorageDenied    the credentials do not permit this
    |       |   +-- ObjectMissing
    |       +-- StorageUnavailable   the other side did not answer; retrying may help
    +-- UnknownName            no such backup, storage or artifact
    +-- NotifierError          a message was not delivered; never changes the outcome
    +-- LockHeld               another run holds the lock (exit 11)
    +-- Interrupted            SIGINT or SIGTERM (exit 130)

Messages: lower case, no final period, the object in double quotes, then a hint.
"""

from __future__ import annotations

from collections.abc import Iterator


class NxsError(Exception):
    """Base of all our errors."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


class ConfigError(NxsError):
    """The configuration, or a name given on the command line, cannot be used."""


class UnknownName(NxsError):
    """A backup, storage or artifact was asked for that does not exist."""


class StageError(NxsError):
    """A stage failed."""

    stage: str | None = None
    """Which one; the engine knows, and fills it in."""

    def __str__(self) -> str:
        text = super().__str__()
        return f"{self.stage}: {text}" if self.stage else text


class SourceError(StageError):
    """The source could not be read to its end."""


class TransformError(StageError):
    """A transform could not convert the stream, or its input is damaged."""


class StorageError(StageError):
    """A storage could not keep or return an object."""


class StorageRefused(StorageError):
    """The storage said no: retrying cannot help."""


class StorageUnavailable(StorageError):
    """The storage did not answer, or went away: retrying may help."""


class StorageDenied(StorageRefused):
    """The storage knows us, and does not permit this."""


class ObjectMissing(StorageRefused):
    """There is no such object."""


class NotifierError(NxsError):
    """A notification was not delivered; never changes the outcome of a run."""


class LockHeld(NxsError):
    """Another run of the same backup is under way."""


class Interrupted(NxsError):
    """The run was told to stop from outside."""


class Aborted(Exception):
    """This stage was stopped because of something that happened elsewhere; never a root cause.

    Not an `NxsError`: whoever handles those must not take it for a failure of its own.
    """

    def __init__(self) -> None:
        super().__init__("stopped, because the run is being stopped")


def root_causes(error: BaseException) -> Iterator[BaseException]:
    """The leaves of an exception group that are causes, not consequences of being stopped.

    Task groups raise groups even for one error; this flattens them once.
    """
    nested = getattr(error, "exceptions", None)
    if nested is not None:
        for child in nested:
            yield from root_causes(child)
    elif not isinstance(error, Aborted):
        yield error
