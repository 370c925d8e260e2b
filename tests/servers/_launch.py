"""Starts a server, and ends all that came of it when the server or the test run ends.

Run by path as ``python -I -S _launch.py OPTIONS PROGRAM...``. OPTIONS is JSON: ``parent`` (pid),
``uid`` and ``gid`` (or null), ``fsize`` (bytes or null), ``patience`` (seconds).

It stays between the test run and the server. As the subreaper of its descendants it inherits those
whose parent died, such as the sessions of a killed sshd, which would otherwise outlive the run:
one that is stopped does not even notice that its client has gone.
"""

import contextlib
import ctypes
import json
import os
import resource
import signal
import sys
import time

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


def prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl failed")


def become_server(options: dict[str, int | None], argv: list[str]) -> None:
    if options["uid"] is not None and options["gid"] is not None:
        os.setgroups([])
        os.setgid(options["gid"])
        os.setuid(options["uid"])
    if options["fsize"] is not None:
        # Ignored, so that a write beyond the limit fails with EFBIG and does not end the server.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (options["fsize"],) * 2)
    os.execv(argv[0], argv)


def children() -> list[int]:
    found = []
    for entry in os.listdir("/proc"):
        with contextlib.suppress(OSError), open(f"/proc/{entry}/stat") as stat:
            if int(stat.read().rpartition(")")[2].split()[1]) == os.getpid():
                found.append(int(entry))
    return found


def end_all() -> None:
    """Kill children until there are none; the children of a killed one become ours."""
    with contextlib.suppress(ChildProcessError):
        while True:
            for child in children():
                os.kill(child, signal.SIGKILL)  # Ours and not reaped: the pid is not reused.
            os.waitpid(-1, 0)


def ask_to_end(server: int, patience: float) -> None:
    os.kill(server, signal.SIGCONT)
    os.kill(server, signal.SIGTERM)
    deadline = time.monotonic() + patience
    with contextlib.suppress(ChildProcessError):
        while time.monotonic() < deadline and os.waitpid(-1, os.WNOHANG)[0] != server:
            time.sleep(0.005)


def main() -> None:
    options = json.loads(sys.argv[1])
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    server = os.fork()
    if server == 0:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        become_server(options, sys.argv[2:])
    try:
        prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM))
        if os.getppid() == options["parent"]:
            while os.waitpid(-1, 0)[0] != server:
                pass
    except SystemExit:
        ask_to_end(server, options["patience"])
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        end_all()


main()
