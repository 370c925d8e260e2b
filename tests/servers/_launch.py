"""Becomes a server process: drops root, ties its life to the test run, then executes the server.

Run by path as ``python -I -S _launch.py OPTIONS PROGRAM...``, so that nothing has to run between
fork and exec of a process that has threads. OPTIONS is JSON: ``parent`` (pid), ``uid`` and ``gid``
(or null), ``fsize`` (bytes or null).
"""

import ctypes
import json
import os
import resource
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    options = json.loads(sys.argv[1])
    if options["uid"] is not None:
        os.setgroups([])
        os.setgid(options["gid"])
        os.setuid(options["uid"])
    if options["fsize"] is not None:
        # Ignored, so that a write beyond the limit fails with EFBIG and does not end the server.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (options["fsize"],) * 2)
    # After setuid: a change of user clears it.
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != options["parent"]:
        sys.exit("the test run has ended")
    os.execv(sys.argv[2], sys.argv[2:])


main()
