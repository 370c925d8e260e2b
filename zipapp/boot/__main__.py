# Start of the archive. Python 2.7 and every 3.x parse it: it is what turns an old one away.
import os
import sys

import _build

_AGAIN = "NXS_BACKUP_RESTARTED"
_PROBE = (
    "import sys; sys.exit(sys.version_info[:2] != (3, %d)"
    " or sys.implementation.name != 'cpython' or 't' in sys.abiflags)"
)


def _fits():
    major, minor = sys.version_info[:2]
    return (
        major == 3
        and minor in _build.PYTHONS
        and sys.implementation.name == "cpython"
        and "t" not in sys.abiflags
    )


def _restart():
    """Go on with the newest Python in PATH that fits, if there is one."""
    if os.environ.get(_AGAIN):
        return
    for minor in _build.PYTHONS:
        for folder in os.environ.get("PATH", "").split(os.pathsep):
            python = os.path.join(folder, "python3.%d" % minor)
            if folder and os.access(python, os.X_OK) and _works(python, minor):
                os.environ[_AGAIN] = "1"
                sys.stdout.flush()
                os.execv(python, [python] + sys.argv)


def _works(python, minor):
    """Version managers leave programs of that name in PATH that only print an error."""
    import subprocess  # not needed by a usual start

    with open(os.devnull, "w") as null:
        command = [python, "-I", "-S", "-c", _PROBE % minor]
        return subprocess.call(command, stdout=null, stderr=null) == 0


def _refuse():
    oldest, newest = min(_build.PYTHONS), max(_build.PYTHONS)
    wanted = "3.%d" % newest if oldest == newest else "3.%d to 3.%d" % (oldest, newest)
    kind = "free-threaded " if "t" in getattr(sys, "abiflags", "") else ""
    if "PyPy" in sys.version:
        kind = "PyPy "
    sys.stderr.write(
        'nxs-backup: needs CPython %s, but "%s" is %s%d.%d.%d: put a python3.%d in PATH\n'
        % ((wanted, sys.executable, kind) + tuple(sys.version_info[:3]) + (newest,))
    )
    sys.exit(78)


if __name__ == "__main__":
    if not _fits():
        _restart()
        _refuse()
    os.environ.pop(_AGAIN, None)
    import _boot

    _boot.main(_build.BUILD, _build.PLATFORMS)
