"""The first start of a build: unpack it into a private directory, once, whoever else starts too."""

import binascii
import contextlib
import errno
import io
import json
import os
import shutil
import sys
import tempfile
import time

import _boot
import _layout

_KEPT_DAYS = 30
# Another directory may do better.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)


class _DamagedError(Exception):
    pass


def unpack(name, directories, platform):
    """Unpack into the first directory that can take it; return where the program is."""
    problems = []
    for directory in _usable(directories, problems):
        try:
            return _unpack_into(directory, name, platform)
        except OSError as error:
            if error.errno not in _FULL:
                raise
            problems.append(f'"{directory}": {_reason(error)}')
        except _DamagedError as error:
            _boot.refuse(f'"{_boot.ARCHIVE}" is damaged: {error}, download it again')
        except ImportError as error:
            _boot.refuse(f'this Python has no module "{error.name}": install all of Python')
    return _boot.refuse(
        f"there is no directory to unpack into ({'; '.join(problems)}): "
        "set NXS_BACKUP_CACHE_DIR to one with 60 MB free"
    )


def _usable(directories, problems):
    """Directories one by one, so that those behind the first good one are not even made.

    Where nothing may be executed comes last: there, every start copies compiled modules to memory.
    """
    noexec = []
    for directory in directories:
        problem = _refusal(directory)
        if problem:
            problems.append(f'"{directory}": {problem}')
        elif os.statvfs(directory).f_flag & os.ST_NOEXEC:
            noexec.append(directory)
        else:
            yield directory
    yield from noexec


def _refusal(directory):
    """Why a directory cannot be used; it is made when it is missing."""
    try:
        os.makedirs(directory, 0o700, exist_ok=True)
        flags = os.statvfs(directory).f_flag
    except OSError as error:
        return _reason(error)
    if not _boot.is_private(directory):
        return "others can write to it, or it belongs to somebody else"
    if flags & os.ST_RDONLY or not os.access(directory, os.W_OK | os.X_OK):
        return "it is not writable"
    return None


def _reason(error):
    return (error.strerror or str(error)).lower()


def _unpack_into(directory, name, platform):
    root = os.path.join(directory, name)
    with _lock(directory):
        if os.path.exists(os.path.join(root, _boot.MARKER)):
            return root
        _tidy(directory)
        temporary = tempfile.mkdtemp(prefix=".unpacking-", dir=directory)
        try:
            for part in _parts(platform):
                _unpack_part(part, platform, temporary)
            _copy_build_info(temporary)
            with open(os.path.join(temporary, _boot.MARKER), "wb") as marker:
                marker.write(_boot.boot_id())
            _publish(temporary, root)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return root


@contextlib.contextmanager
def _lock(directory):
    import fcntl

    with open(os.path.join(directory, ".lock"), "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:
            pass  # a file system without locks: the work is done twice, the rename keeps it whole
        yield


def _tidy(directory):
    """Remove what a killed start left behind, and builds that have not been used for a while."""
    for entry in os.listdir(directory):
        path = os.path.join(directory, entry)
        if entry.startswith(".unpacking-"):
            shutil.rmtree(path, ignore_errors=True)
        else:
            _remove_stale(path)


def _remove_stale(root):
    import fcntl

    try:
        with open(os.path.join(root, _boot.MARKER), "rb") as marker:
            if time.time() - os.fstat(marker.fileno()).st_mtime > _KEPT_DAYS * 86400:
                # Whoever runs it holds a lock, for months if it is `serve`.
                fcntl.flock(marker, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(root, ignore_errors=True)
    except OSError:
        pass  # no build, or one in use


def refresh(root):
    """Note that a build is in use, so that neither we nor the host takes it for an old one.

    What cleans the temporary directories of a host looks at each file. Changing the time of the
    last access also sets that of the last change; the time of modification belongs to bytecode.
    """
    now = time.time_ns()
    for folder, _, names in os.walk(root):
        for name in names:
            path = os.path.join(folder, name)
            try:
                os.utime(path, ns=(now, os.stat(path).st_mtime_ns))
            except OSError:  # a read-only image of the cache, where nothing is removed
                return
    os.utime(os.path.join(root, _boot.MARKER))


def prove(root, platform):
    """Tell whether a build has outlived the end of the boot it is from; a damaged one is undone."""
    if not os.access(root, os.W_OK):
        return True  # an image: it was written as a whole
    try:
        is_whole = all(_is_as_packed(part, platform, root) for part in _parts(platform))
    except _DamagedError as error:
        _boot.refuse(f'"{_boot.ARCHIVE}" is damaged: {error}, download it again')
    if not is_whole:
        os.unlink(os.path.join(root, _boot.MARKER))
        return False
    for folder, folders, _ in os.walk(root):
        if "__pycache__" in folders:  # bytecode has no checksum
            shutil.rmtree(os.path.join(folder, "__pycache__"), ignore_errors=True)
    _copy_build_info(root)
    with open(os.path.join(root, _boot.MARKER), "wb"):
        return True


def _is_as_packed(name, platform, root):
    with _opened(name) as content:
        for path, size, checksum, is_wanted in _entries(content, platform):
            if is_wanted and not _is_there(os.path.join(root, path), size, checksum):
                return False
    return True


def _is_there(path, size, checksum):
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError:
        return False
    return len(content) == size and binascii.crc32(content) == checksum


def _publish(temporary, root):
    """Give the finished directory its name; one that is incomplete may be in the way."""
    if os.path.isdir(root) and not os.path.exists(os.path.join(root, _boot.MARKER)):
        shutil.rmtree(root, ignore_errors=True)
    try:
        os.rename(temporary, root)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise


def _copy_build_info(root):
    name = "nxs_build_info.json"
    content = __loader__.get_data(os.path.join(_boot.ARCHIVE, name))
    with open(os.path.join(root, name), "wb") as file:
        file.write(content)


def _parts(platform):
    names = ("app", "common", platform.partition("-")[0], platform)
    return [name for name in names if name in _layout.PARTS]


def _unpack_part(name, platform, root):
    with _opened(name) as content:
        for path, size, checksum, is_wanted in _entries(content, platform):
            data = _read(content, size)
            if binascii.crc32(data) != checksum:
                raise _DamagedError(f'the checksum of "{path}" is wrong')
            if is_wanted:
                _write(os.path.join(root, path), data)


@contextlib.contextmanager
def _opened(name):
    """The content of a part, decompressed."""
    import lzma

    try:
        with open(_boot.ARCHIVE, "rb") as archive, lzma.open(_part(archive, name)) as content:
            yield content
    except (lzma.LZMAError, EOFError, ValueError) as error:
        raise _DamagedError("it cannot be decompressed") from error


def _entries(content, platform):
    """The index of a part, up to the last group that this Python needs."""
    groups = json.loads(_read(content, int.from_bytes(_read(content, 4), "little")).decode())
    target = f"{platform}-cp3{sys.version_info[1]}"
    needed = [targets is None or target in targets for targets, _ in groups]
    while needed and not needed[-1]:
        needed.pop()
    for (_, rows), is_wanted in zip(groups, needed):  # noqa: B905 (`needed` may be shorter)
        for path, size, checksum in rows:
            yield path, size, checksum, is_wanted


def _read(content, size):
    data = content.read(size)
    if len(data) != size:
        raise _DamagedError("it is too short")
    return data


def _write(path, data):
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        os.makedirs(folder)
    with open(path, "wb") as file:
        file.write(data)


def _part(archive, name):
    return io.BufferedReader(_Part(archive, *_layout.PARTS[name]), 1 << 16)


class _Part(io.RawIOBase):
    """One part of the payload, which lies in the archive in pieces (see zipapp/assembly.py)."""

    def __init__(self, archive, offset, size):
        self._archive, self._at, self._end = archive, offset, offset + size

    def readable(self):
        return True

    def readinto(self, buffer):
        piece, start = divmod(self._at, _layout.CHUNK)
        size = min(len(buffer), self._end - self._at, _layout.CHUNK - start)
        self._archive.seek(_layout.FIRST + piece * _layout.STRIDE + start)
        data = self._archive.read(size)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)
