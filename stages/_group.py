"""The process group of a child program: its exit, and ending all of it."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time

from pipeline import children

GRACE = 2.0
"""Seconds between SIGTERM and SIGKILL."""
_LOST = 1 << 16


class ProcessGroup:
    """A program that leads a group (`start_new_session`), with whatever it has started.

    The leader is left a zombie until `end`, so that no signal can reach a stranger with its number.
    `terminate` may be called from any thread at any time.
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        children.add(process.pid)
        self._lock = threading.Lock()
        self._gone = False
        self.exit_code: int | None = None
        """Of the leader, negative for a signal; None until `exited` has seen it."""

    def exited(self) -> bool:
        """Whether the leader has ended."""
        if self.exit_code is None:
            self.exit_code = _look_for_exit(self._process.pid)
        return self.exit_code is not None

    def terminate(self) -> None:
        """Ask the whole group to end; does not wait and never raises."""
        self._signal(signal.SIGTERM)

    def end(self) -> None:
        """End what is left of the group: SIGTERM, after `GRACE` seconds SIGKILL."""
        deadline = time.monotonic() + GRACE
        self._signal(signal.SIGTERM)
        while not self.exited() and time.monotonic() < deadline:
            time.sleep(0.005)
        if not self.exited():
            self._signal(signal.SIGKILL)
        try:
            self._process.wait(GRACE)
        except subprocess.TimeoutExpired:
            # Stuck in the kernel (a dead network file system); nothing more can be done from here.
            pass
        self._wait_for_members(deadline)
        if self._signal(signal.SIGKILL):
            self._wait_for_members(time.monotonic() + GRACE)
        with self._lock:
            self._gone = True
        children.discard(self._process.pid)

    def _wait_for_members(self, deadline: float) -> None:
        while self._signal(0) and self._has_members() and time.monotonic() < deadline:
            time.sleep(0.02)

    def _signal(self, number: int) -> bool:
        """Signal the group; whether there was anything to signal."""
        with self._lock:
            if self._gone:
                return False
            try:
                os.killpg(self._process.pid, number)
            except (ProcessLookupError, PermissionError):
                return False
            return True

    def _has_members(self) -> bool:
        """Whether more than zombies is left: a container may have no init that reaps them."""
        return any(
            state != "Z" and group == self._process.pid
            for state, group in map(_state_and_group, filter(str.isdigit, os.listdir("/proc")))
        )


def describe_exit(code: int | None) -> str:
    """What happened to the program, to follow its name in a message."""
    if code is None or code == _LOST:
        return "ended, and its exit code was lost"
    if code >= 0:
        return f"failed with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"


def _look_for_exit(pid: int) -> int | None:
    try:
        ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        # Whoever started us had SIGCHLD ignored: the kernel then throws exit codes away.
        return _LOST
    if ended is None:
        return None
    return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status


def _state_and_group(pid: str) -> tuple[str, int]:
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            state, _, group = file.read().rpartition(")")[2].split()[:3]
    except OSError:
        return "Z", 0
    return state, int(group)
