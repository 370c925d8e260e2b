"""Extraction of an archive into a directory, out of which no member can break.

Every name is opened part by part, relative to an open directory and without following symbolic
links, whether they came from the archive or were there before. What exists is replaced, never
written into.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType

from pipeline.errors import SourceError
from stages.sources._files import tar as _tar
from stages.sources._files.acl import acl_bytes
from stages.sources._files.levels import Levels
from stages.sources._files.names import group_number, printable, user_number
from stages.sources._files.untar import Member, TarReader

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_SET_ID = 0o6000
_MAX_PROBLEMS = 1000
ATTRIBUTES = {record: attribute for attribute, record in _tar.ACL_RECORDS.items()}
"""Extended attribute of an ACL by its record."""


Claim = Callable[[bytes], None]
"""Told the name of the first member, before anything is restored; may raise."""


def extract(
    chunks: Iterator[bytes], target: Path, overwrite: bool, claim: Claim = lambda _: None
) -> list[str]:
    """Restore a stream below `target`; what could not be restored exactly is returned.

    Owners, device nodes and attributes outside of `user.` are restored by root only.

    Raises:
        SourceError: the target is in use, a member would leave it, or the archive is damaged.
    """
    return run(Extractor(_prepare(target, overwrite)), chunks, target, claim)


def run(
    extractor: Extractor,
    chunks: Iterator[bytes],
    target: Path,
    claim: Claim = lambda _: None,
) -> list[str]:
    """Feed an archive to an extractor, which is closed afterwards."""
    with extractor:
        member = None
        try:
            reader = TarReader(chunks)
            for number, member in enumerate(reader):
                if number == 0:
                    claim(member.name)
                extractor.add(member, reader.data)
            extractor.finish()
        except (OSError, OverflowError) as error:
            what = member.shown if member else str(target)
            reason = getattr(error, "strerror", None) or "a number is out of range"
            raise SourceError(f'cannot restore "{what}": {reason.lower()}') from error
    return extractor.problems


def opened(target: Path) -> int:
    """Descriptor of a directory, which is made when it is missing."""
    try:
        target.mkdir(parents=True, exist_ok=True)
        return os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        reason = (error.strerror or "unknown error").lower()
        raise SourceError(f'cannot restore into "{target}": {reason}') from None


def _prepare(target: Path, overwrite: bool) -> int:
    fd = opened(target)
    if not overwrite and os.listdir(fd):
        os.close(fd)
        raise SourceError(
            f'"{target}" is not empty', "name an empty or new directory, or allow overwriting"
        )
    return fd


class Extractor:
    """Puts members into a directory, whose descriptor it closes in the end."""

    def __init__(self, root: int) -> None:
        self.problems: list[str] = []
        self._levels = Levels(root, self._settle)
        self._is_root = os.geteuid() == 0
        self._now = time.time_ns()
        self._make: dict[bytes, Callable[[Member, int, bytes], None]] = {
            _tar.HARD_LINK: self._hard_link,
            _tar.SYMLINK: self._symlink,
            _tar.FIFO: self._node,
            _tar.CHARACTER: self._node,
            _tar.BLOCK_DEVICE: self._node,
        }

    def __enter__(self) -> Extractor:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._levels.close()

    def finish(self) -> None:
        """Set what directories get last."""
        self._levels.enter([])
        self._levels.settle()

    def add(self, member: Member, data: Callable[[], Iterable[memoryview]]) -> None:
        """Restore a member; `data` gives its content in pieces."""
        parts = parts_of(member.name, member)
        if member.kind == _tar.DIRECTORY:
            self._levels.enter(parts, member)
            return
        if not parts:
            raise _refused(member, "it has no name")
        parent = self._levels.enter(parts[:-1])
        if member.kind == _tar.REGULAR:
            self._file(member, parent, parts[-1], data())
        elif member.kind in self._make:
            self._make[member.kind](member, parent, parts[-1])
        else:
            raise _refused(member, "it is of an unknown kind")

    def _file(self, member: Member, parent: int, name: bytes, pieces: Iterable[memoryview]) -> None:
        fd = _replace(lambda: os.open(name, _CREATE, 0o600, dir_fd=parent), parent, name)
        try:
            _fill(fd, member, pieces)
            self._levels.disown(fd)
            self._settle(member, fd)
        finally:
            os.close(fd)

    def _hard_link(self, member: Member, parent: int, name: bytes) -> None:
        parts = parts_of(member.link, member)
        own = parts_of(member.name, member)
        if not parts:
            raise _refused(member, "it is a link to nothing")
        if parts == own:
            return
        try:
            with self._levels.visit(parts[:-1]) as other:
                _replace(
                    lambda: os.link(
                        parts[-1],
                        name,
                        src_dir_fd=other,
                        dst_dir_fd=parent,
                        follow_symlinks=False,
                    ),
                    parent,
                    name,
                )
        except FileNotFoundError:
            self._problem(member, f'it is a link to "{printable(member.link)}", which is missing')

    def _symlink(self, member: Member, parent: int, name: bytes) -> None:
        if not member.link or b"\0" in member.link:
            raise _refused(member, "it is a link to nothing")
        _replace(lambda: os.symlink(member.link, name, dir_fd=parent), parent, name)
        if self._is_root:
            uid, gid = _owner(member)
            os.chown(name, uid, gid, dir_fd=parent, follow_symlinks=False)
        self._set_xattrs(member, b"/proc/self/fd/%d/%b" % (parent, name), follow=False)
        times = (self._now, member.mtime_ns)
        os.utime(name, ns=times, dir_fd=parent, follow_symlinks=False)

    def _node(self, member: Member, parent: int, name: bytes) -> None:
        if member.kind == _tar.FIFO:
            _replace(lambda: os.mkfifo(name, 0o600, dir_fd=parent), parent, name)
        elif not self._is_root:
            self._problem(member, "only root can make device nodes")
            return
        else:
            kind = 0o020000 if member.kind == _tar.CHARACTER else 0o060000
            device = os.makedev(*member.device)
            _replace(lambda: os.mknod(name, kind | 0o600, device, dir_fd=parent), parent, name)
        fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            # Opening it for real could block or touch a device; this name leads to just this inode.
            self._levels.disown(b"/proc/self/fd/%d" % fd)
            self._settle(member, b"/proc/self/fd/%d" % fd)
        finally:
            os.close(fd)

    def _settle(self, member: Member, place: int | bytes) -> None:
        """Owner first, as changing it clears permissions; time last, as everything changes it."""
        if self._is_root:
            try:
                os.chown(place, *_owner(member))
            except OSError as error:
                self._problem(member, f"owner: {(error.strerror or '').lower()}")
        self._set_xattrs(member, place, follow=True)
        os.chmod(place, member.mode if self._is_root else member.mode & ~_SET_ID)
        for record, text in member.acls.items():
            try:
                self._set(member, place, ATTRIBUTES[record], acl_bytes(text))
            except (ValueError, KeyError):
                self._problem(member, "its ACL cannot be read, or names an unknown user or group")
        os.utime(place, ns=(self._now, member.mtime_ns))

    def _set_xattrs(self, member: Member, place: int | bytes, follow: bool) -> None:
        for name, value in member.xattrs.items():
            if self._is_root or name.startswith("user."):
                self._set(member, place, name, value, follow)

    def _set(
        self, member: Member, place: int | bytes, name: str, value: bytes, follow: bool = True
    ) -> None:
        try:
            os.setxattr(place, name, value, follow_symlinks=follow)
        except OSError as error:
            shown = printable(os.fsencode(name))
            self._problem(member, f'attribute "{shown}": {(error.strerror or "").lower()}')

    def _problem(self, member: Member, text: str) -> None:
        if len(self.problems) < _MAX_PROBLEMS:
            self.problems.append(f'"{member.shown}": {text}')


def _replace(make: Callable[[], int | None], parent: int, name: bytes) -> int:
    """Make something new, in place of what is there; never a directory."""
    try:
        made = make()
    except FileExistsError:
        os.unlink(name, dir_fd=parent)
        made = make()
    return -1 if made is None else made


def _fill(fd: int, member: Member, pieces: Iterable[memoryview]) -> None:
    extents = iter(member.extents)
    offset = left = 0
    for piece in pieces:
        while piece:
            if not left:
                offset, left = next(extents)
            written = os.pwrite(fd, piece[:left], offset)
            offset, left, piece = offset + written, left - written, piece[written:]
    if offset != member.size:
        os.ftruncate(fd, member.size)


def _owner(member: Member) -> tuple[int, int]:
    return user_number(member.user, member.uid), group_number(member.group, member.gid)


def parts_of(name: bytes, member: Member) -> list[bytes]:
    """The parts of a member name, or of what a hard link stands for."""
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    if name.startswith(b"/") or b".." in parts or b"\0" in name:
        raise _refused(member, f'"{printable(name)}" is outside of the target')
    return parts


def _refused(member: Member, why: str) -> SourceError:
    return SourceError(f'refused to restore "{member.shown}": {why}')
