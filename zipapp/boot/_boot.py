"""Every start: find the unpacked program, shut out the host's packages, and run it.

This file is compiled anew at every start, so what is seldom needed is in `_unpack` and `_loaders`.
"""

import os
import sys

ARCHIVE = os.path.dirname(os.path.abspath(__file__))
MARKER = ".complete"
"""Written last: a build that has it is whole. It holds the id of the boot in which it was written,
until it has been proved in a later one: after a loss of power, files may be empty.
"""
_ENTRY = "pipeline.cli.main"
_DAY = 86400


def main(build, platforms):
    """Run the program that this archive holds and exit with its code."""
    here = platform()
    if here not in platforms:
        refuse(f'this archive is for {" and ".join(platforms)}, not for "{here}"')
    name = f"{build}-{here}-cp3{sys.version_info[1]}"
    directories = candidates(os.environ, os.geteuid())
    root = _find(name, directories, here)
    if root is None:
        root = _unpacking().unpack(name, directories, here)
        _hold(root)
    _isolate(root)
    os.environ["NXS_BACKUP_PYZ"] = ARCHIVE
    from importlib import import_module

    sys.exit(import_module(_ENTRY).main())


def refuse(message):
    """Say why the program cannot start, and exit."""
    sys.stderr.write(f"nxs-backup: {message}\n")
    sys.exit(78)


def platform():
    """This machine, as payloads are named: `x86_64-gnu`, `aarch64-musl`."""
    try:
        libc = os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (ValueError, OSError):  # musl does not know the name
        libc = ""
    machine = os.uname().machine
    if sys.maxsize < 2**32:
        machine += "-32bit"
    return machine + ("-gnu" if "glibc" in libc else "-musl")


def candidates(environ, uid):
    """Directories that may hold the unpacked program, the best one first."""
    chosen = environ.get("NXS_BACKUP_CACHE_DIR")
    if chosen:
        return [os.path.abspath(chosen)]
    found = ["/var/cache/nxs-backup"] if uid == 0 else []
    home = environ.get("HOME")
    caches = environ.get("XDG_CACHE_HOME") or (os.path.join(home, ".cache") if home else "")
    if caches:
        found.append(os.path.join(caches, "nxs-backup"))
    for shared in (
        environ.get("XDG_RUNTIME_DIR"),
        "/var/tmp",
        environ.get("TMPDIR"),
        "/tmp",
        "/dev/shm",
    ):
        if shared:
            found.append(os.path.join(shared, f"nxs-backup-{uid}"))
    return [path for path in found if os.path.isabs(path)]


def is_private(path):
    """Tell whether nobody but us and root can have put something there: we are going to run it."""
    try:
        status = os.lstat(path)
    except OSError:
        return False
    is_directory = status.st_mode & 0o170000 == 0o040000
    is_ours = status.st_uid in (0, os.geteuid())
    return is_directory and is_ours and not status.st_mode & 0o022


def _find(name, directories, here):
    """The program as unpacked by an earlier start, if there is one."""
    for directory in directories:
        root = os.path.join(directory, name)
        try:
            used = os.stat(os.path.join(root, MARKER)).st_mtime
        except OSError:
            continue
        if not (is_private(directory) and is_private(root)):
            continue
        written = _hold(root)
        is_proved = written in (b"", boot_id())
        if written is None or not (is_proved or _unpacking().prove(root, here)):
            continue
        if _now() - used > _DAY:
            _unpacking().refresh(root)
        return root
    return None


def _unpacking():
    import _unpack  # not needed by a usual start

    return _unpack


def _now():
    from time import time

    return time()


def boot_id():
    """What is the same until the machine is started anew; nothing where that cannot be known."""
    try:
        with open("/proc/sys/kernel/random/boot_id", "rb") as file:
            return file.read()
    except OSError:
        return b""


def _hold(root):
    """Keep a build from being removed while we run: what its marker holds, None when it is gone."""
    import fcntl

    try:
        held = os.open(os.path.join(root, MARKER), os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(held, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:  # somebody is removing it
        return None
    except OSError:
        pass  # a file system without locks; nothing is removed there
    return os.read(held, 100) if os.fstat(held).st_nlink else None


def _isolate(root):
    """Import from the program and the standard library only, whatever the host has installed.

    The host's `site` ran before us: what its .pth files imported or hooked in is dropped as well.
    """
    library = os.path.dirname(os.__file__)
    archived = f"python3{sys.version_info[1]}.zip"

    def is_standard(path):
        if path.startswith(library + os.sep) or path == library:
            return "/site-packages" not in path and "/dist-packages" not in path
        return path.endswith("/lib-dynload") or "/lib-dynload/" in path or path.endswith(archived)

    sys.path[:] = [root] + [path for path in sys.path if is_standard(path)]
    for name, module in list(sys.modules.items()):
        path = getattr(module, "__file__", None) or next(
            iter(getattr(module, "__path__", ())), None
        )
        if path and name != "__main__" and not is_standard(path):
            del sys.modules[name]
    sys.meta_path[:] = [
        finder
        for finder in sys.meta_path
        if getattr(finder, "__module__", "").startswith("_frozen_importlib")
    ]
    is_noexec = os.statvfs(root).f_flag & os.ST_NOEXEC
    if is_noexec or sys.dont_write_bytecode:
        _loaders(is_noexec, root)


def _loaders(is_noexec, root):
    sys.path.insert(0, ARCHIVE)
    import _loaders

    del sys.path[0], sys.modules["_loaders"]
    if is_noexec:
        sys.meta_path.insert(0, _loaders.MemoryFinder(root))
    if sys.dont_write_bytecode:
        sys.path_hooks.insert(0, _loaders.bytecode_hook(root))
