"""What the driver and the server say, in our words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pymongo import errors

from pipeline.context import Teardown
from pipeline.errors import SourceError

_LOGIN = "check user, password and auth_source"
_HINTS = {
    13: "the user needs the role `backup` in `admin`",
    18: _LOGIN,
    43: "the server has dropped the cursor: it was restarted, or something ended the session",
    175: "the collection was dropped or renamed during the dump",
    8000: _LOGIN,
}
_AUTHENTICATION = (18, 8000)


@contextmanager
def translated(server: str, teardown: Teardown) -> Iterator[None]:
    """Turn errors of the driver into ours.

    Raises:
        SourceError: for each. Aborted: it is a consequence of the run being stopped.
    """
    try:
        yield
    except errors.OperationFailure as error:
        teardown.check()
        raise _refused(server, error) from None
    except (errors.NetworkTimeout, errors.ServerSelectionTimeoutError) as error:
        teardown.check()
        why = _in_one_line(error)
        raise SourceError(f'"{server}" does not answer: {why}', "see `timeout`") from None
    except errors.ConnectionFailure as error:
        teardown.check()
        raise SourceError(f'the connection to "{server}" failed: {_in_one_line(error)}') from None
    except (errors.PyMongoError, OSError) as error:
        teardown.check()
        raise SourceError(f'"{server}" cannot be read: {_in_one_line(error)}') from None


def _refused(server: str, error: errors.OperationFailure) -> SourceError:
    said = _in_one_line(error)
    if error.code in _AUTHENTICATION:
        return SourceError(f'"{server}" refused the login: {said}', _LOGIN)
    return SourceError(f'"{server}" refused: {said}', _HINTS.get(error.code or 0))


def _in_one_line(error: Exception) -> str:
    """What the driver says, without its description of all servers, and without settings."""
    text = str(error).partition(", full error:")[0].partition(", Timeout:")[0]
    text = text.partition(" (configured timeouts")[0]
    return " ".join(text.split()).rstrip(".")[:300]
