"""Ways to import that only some hosts need."""

import importlib.machinery as machinery
import importlib.util
import os
import sys


class MemoryFinder:
    """Finds extension modules below a directory on a file system that is mounted noexec.

    The same bytes in an anonymous file of the kernel may be mapped for execution.
    """

    def __init__(self, root):
        self._root = root
        self._libraries = set()

    def find_spec(self, name, path=None, target=None):  # noqa: ARG002 (the protocol of finders)
        last = name.rpartition(".")[2]
        for directory in map(str, path or [self._root]):
            for suffix in machinery.EXTENSION_SUFFIXES:
                file = os.path.join(directory, last + suffix)
                if directory.startswith(self._root) and os.path.exists(file):
                    if directory not in self._libraries:
                        self._libraries.add(directory)
                        _load_libraries(directory + ".libs")
                    copy = _copy(file)
                    loader = machinery.ExtensionFileLoader(name, copy)
                    return importlib.util.spec_from_file_location(name, copy, loader=loader)
        return None


def _load_libraries(directory):
    """Load what comes with the modules of a package; they find it by name where it is loaded.

    Each library needs others, so the ones that fail are tried again as long as that helps.
    """
    if not os.path.isdir(directory):
        return
    import ctypes

    rest = [_copy(os.path.join(directory, name)) for name in sorted(os.listdir(directory))]
    waiting = []
    while len(waiting) != len(rest):
        waiting, rest = rest, []
        for library in waiting:
            try:
                ctypes.CDLL(library)
            except OSError:
                rest.append(library)


def _copy(file):
    """Copy a file to memory; it stays open, and so exists, for as long as we run."""
    with open(file, "rb") as source:
        rest = memoryview(source.read())
    copy = os.memfd_create(os.path.basename(file))
    while rest:
        rest = rest[os.write(copy, rest) :]
    return f"/proc/{os.getpid()}/fd/{copy}"


class _BytecodeLoader(machinery.SourceFileLoader):
    """Keeps bytecode although PYTHONDONTWRITEBYTECODE is set.

    That variable is about other people's directories; without bytecode every start would take
    half a second longer.
    """

    def get_code(self, fullname):
        kept, sys.dont_write_bytecode = sys.dont_write_bytecode, False
        try:
            return super().get_code(fullname)
        finally:
            sys.dont_write_bytecode = kept


def bytecode_hook(root):
    """A path hook for the directories below `root`, which is ours alone."""
    hook = machinery.FileFinder.path_hook(
        (machinery.ExtensionFileLoader, machinery.EXTENSION_SUFFIXES),
        (_BytecodeLoader, machinery.SOURCE_SUFFIXES),
    )

    def below_root(path):
        if path != root and not path.startswith(root + os.sep):
            raise ImportError("not ours", path=path)
        return hook(path)

    return below_root
