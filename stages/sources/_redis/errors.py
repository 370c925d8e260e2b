"""What the driver and the server say, in our words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import redis

from pipeline.context import StageContext
from pipeline.errors import SourceError

_LEAST = "the user needs +sync +psync +replconf +info +ping"
_HINTS = {
    "NOPERM": _LEAST,
    "NOAUTH": "set password, and user when it is not `default`",
    "WRONGPASS": "check user and password",
    "DENIED": "the server is in protected mode: it takes no connection from elsewhere",
    "LOADING": "try again when it has loaded its data",
    "NOMASTERLINK": "this replica has lost its primary; read from another one",
}
_UNKNOWN = "a managed service may forbid replication: then no dump can be had over the network"


def refused(said: str) -> SourceError:
    """The error for an error reply of a server."""
    text = " ".join(said.removeprefix("-").split()).rstrip(".")
    code = text.partition(" ")[0]
    hint = _UNKNOWN if "unknown command" in text.lower() else _HINTS.get(code)
    return SourceError(f"the server refused: {text[:200]}", hint)


@contextmanager
def translated(server: str, context: StageContext) -> Iterator[None]:
    """Turn errors of the driver and of the network into ours.

    Raises:
        SourceError: for each. Aborted: it is a consequence of the run being stopped.
    """
    try:
        yield
    except redis.AuthenticationError as error:
        why = _in_one_line(error)
        raise SourceError(f'"{server}" refused the login: {why}', _HINTS["WRONGPASS"]) from None
    except redis.exceptions.NoPermissionError as error:
        raise refused(f"NOPERM {error}") from None
    except redis.ResponseError as error:
        raise refused(str(error)) from None
    except (redis.TimeoutError, TimeoutError):
        context.teardown.check()
        raise SourceError(f'"{server}" does not answer', "see `timeout`") from None
    except (redis.RedisError, OSError) as error:
        context.teardown.check()
        raise SourceError(f'the connection to "{server}" failed: {_in_one_line(error)}') from None


def _in_one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")[:300]
