"""``${cmd:...}``: what a program prints. It is asked only when that was allowed."""

from __future__ import annotations

import contextlib
import os
import selectors
import shlex
import signal
import subprocess
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from schemas.document import Scalar, parse
from schemas.document import Sequence as SequenceNode
from schemas.outside import LARGEST, NoValue, text_of
from schemas.problems import Problems

PATIENCE = 30.0
"""Seconds that a program may take."""

_COMMAND = 'the program of "${cmd:...}"'
_TAIL = 4096
_SHOWN = 200
_SHORTEST_SECRET = 4


def words_of(text: str) -> list[str]:
    """Program and arguments of ``${cmd:...}``: a list as in YAML, or words as for a shell.

    Raises:
        NoValue: they are neither, or there are none.
    """
    hint = "write ${cmd: [program, argument]} or ${cmd:program argument}; no shell is involved"
    argv: Sequence[str] | None = None
    if text.startswith("["):
        node = parse(text.encode(), "", Problems())
        if isinstance(node, SequenceNode):
            words = [item for item in node.items if isinstance(item, Scalar) and not item.broken]
            argv = [item.text for item in words] if len(words) == len(node.items) else None
    else:
        with contextlib.suppress(ValueError):  # a quote that is not closed
            argv = shlex.split(text)
    if not argv or not argv[0]:
        raise NoValue('"${cmd:...}" is no command', hint)
    return list(argv)


def printed_by(
    argv: Sequence[str], folder: Path, environ: Mapping[str, str], secrets: Collection[str]
) -> str:
    """What a program prints, without its last line break. No shell is involved.

    Args:
        folder: where it runs.
        secrets: what must not be shown of its standard error.

    Raises:
        NoValue: it cannot be started, fails, says nothing or too much, or takes too long.
    """
    try:
        process = subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=folder,
            env=dict(environ),
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "a zero byte in an argument"
        reason = (reason or "unknown error").lower()
        raise NoValue(f"{_COMMAND} cannot be started: {reason}") from None
    with process:
        try:
            said, complained = _listen(process, time.monotonic() + PATIENCE)
        finally:
            if process.returncode is None:  # given up: what it has started ends with it
                os.killpg(process.pid, signal.SIGKILL)
    if process.returncode:
        code = process.returncode
        how = f"exit code {code}" if code > 0 else f"signal {-code}"
        tail = _last_line(complained, [*secrets, *said.decode(errors="replace").splitlines()])
        raise NoValue(f"{_COMMAND} failed with {how}" + (f": {tail}" if tail else ""))
    if not said.strip():
        raise NoValue(f"{_COMMAND} printed nothing")
    return text_of(said, f"the output of {_COMMAND}")


def _listen(process: subprocess.Popen[bytes], deadline: float) -> tuple[bytes, bytes]:
    """All of its standard output, and the end of its standard error, once it has ended."""
    assert process.stdout is not None
    assert process.stderr is not None
    heard = {process.stdout.fileno(): b"", process.stderr.fileno(): b""}
    output = process.stdout.fileno()
    with selectors.DefaultSelector() as selector:
        for pipe in heard:
            selector.register(pipe, selectors.EVENT_READ)
        while selector.get_map():
            if time.monotonic() > deadline:
                raise _too_slow()
            for key, _ in selector.select(max(0.0, deadline - time.monotonic())):
                data = os.read(key.fd, 65536)
                if not data:
                    selector.unregister(key.fd)
                heard[key.fd] += data
                if key.fd != output:
                    heard[key.fd] = heard[key.fd][-_TAIL:]
                elif len(heard[key.fd]) > LARGEST:
                    raise NoValue(f"{_COMMAND} printed more than 1MiB", "it should print one value")
    try:
        process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        raise _too_slow() from None
    return heard[output], next(data for pipe, data in heard.items() if pipe != output)


def _too_slow() -> NoValue:
    return NoValue(f"{_COMMAND} did not end within {PATIENCE:g} s")


def _last_line(said: bytes, secrets: Collection[str]) -> str:
    lines = [line.strip() for line in said.decode(errors="replace").splitlines() if line.strip()]
    line = lines[-1] if lines else ""
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= _SHORTEST_SECRET:
            line = line.replace(secret, "[secret]")
    return "".join(letter if letter.isprintable() else "?" for letter in line)[:_SHOWN]
