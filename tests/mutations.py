"""What happens to trees between two copies: every kind of change, chosen by numbers."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path

_NAMES = [b"a", b"b", b"c", b"log.0", b"log.1", b"\xff\xfe bad\n name", b"=x", b"n" * 180, b" "]


@dataclass
class Tree:
    """A tree that is changed step by step.

    Args:
        numbers: decide what happens to what; at their end everything is as at the first.
        without: names of methods that are not called.
    """

    root: Path
    numbers: Iterable[int]
    without: Collection[str] = ()
    _count: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self._numbers = iter(self.numbers)
        self._root = os.fsencode(self.root)

    def grow(self, steps: int) -> None:
        """Make some directories with files."""
        self.root.mkdir(exist_ok=True)
        for _ in range(steps):
            self._make_directory()
            self._create()
            self._create()

    def change(self, steps: int) -> None:
        """Let something happen several times; what is not possible does not."""
        actions = [action for action in ACTIONS if action not in self.without]
        for _ in range(steps):
            try:
                getattr(self, actions[self._number(len(actions))])()
            except OSError:
                continue

    def _number(self, below: int) -> int:
        return next(self._numbers, 0) % below

    def _name(self) -> bytes:
        self._count += 1
        name = _NAMES[self._number(len(_NAMES))]
        return name if self._number(2) else b"%b-%d" % (name, self._count)

    def _content(self) -> bytes:
        self._count += 1
        return b"%d " % self._count * (1 + self._number(300))

    def _directories(self, with_root: bool = True) -> list[bytes]:
        found = sorted(directory for directory, _, _ in os.walk(self._root))
        return found if with_root else found[1:]

    def _directory(self, with_root: bool = True) -> bytes:
        found = self._directories(with_root)
        if not found:
            raise FileNotFoundError
        return found[self._number(len(found))]

    def _file(self) -> bytes:
        found = sorted(
            directory + b"/" + name
            for directory, _, names in os.walk(self._root)
            for name in names
            if stat.S_ISREG(os.lstat(directory + b"/" + name).st_mode)
        )
        if not found:
            raise FileNotFoundError
        return found[self._number(len(found))]

    def _item(self) -> bytes:
        return self._file() if self._number(2) else self._directory(with_root=False)

    def _new_path(self) -> bytes:
        return self._directory() + b"/" + self._name()

    def _write(self, path: bytes) -> None:
        if os.path.lexists(path) and not stat.S_ISREG(os.lstat(path).st_mode):
            # A FIFO would block, and a link may lead outside.
            raise FileExistsError
        with open(path, "wb") as file:
            file.write(self._content())

    def _make_directory(self) -> None:
        path = self._new_path()
        if not os.path.lexists(path):
            os.mkdir(path)

    def _create(self) -> None:
        path = self._new_path()
        if not os.path.isdir(path):
            self._write(path)

    def _modify(self) -> None:
        self._write(self._file())

    def _modify_secretly(self) -> None:
        """The same size and time as before."""
        path = self._file()
        found = os.lstat(path)
        with open(path, "r+b") as file:
            file.write(b"?" * found.st_size)
        os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))

    def _delete(self) -> None:
        os.unlink(self._file())

    def _delete_directory(self) -> None:
        if self._number(2):
            shutil.rmtree(self._directory(with_root=False))

    def _rename(self) -> None:
        path = self._item()
        os.rename(path, os.path.dirname(path) + b"/" + self._name())

    def _move(self) -> None:
        os.rename(self._item(), self._new_path())

    def _swap(self) -> None:
        one, other = self._item(), self._item()
        if not (other + b"/").startswith(one + b"/") and not (one + b"/").startswith(other + b"/"):
            os.rename(one, self._root + b"/swap")
            os.rename(other, one)
            os.rename(self._root + b"/swap", other)

    def _take_over(self) -> None:
        """rm -rf b; mv a b."""
        one, other = self._directory(with_root=False), self._directory(with_root=False)
        if not (one + b"/").startswith(other + b"/") and not (other + b"/").startswith(one + b"/"):
            shutil.rmtree(other)
            os.rename(one, other)

    def _turn_inside_out(self) -> None:
        """mv a/b c; mv a c."""
        inner = self._directory(with_root=False)
        outer = os.path.dirname(inner)
        if outer != self._root:
            os.rename(inner, self._root + b"/turned")
            os.rename(outer, self._root + b"/turned/" + self._name())

    def _wrap(self) -> None:
        """mkdir new; mv a new/a, or back to the name it had."""
        inner = self._directory(with_root=False)
        os.rename(inner, self._root + b"/wrapped")
        where = inner if self._number(2) else os.path.dirname(inner) + b"/" + self._name()
        os.mkdir(where)
        os.rename(self._root + b"/wrapped", where + b"/" + os.path.basename(inner))

    def _file_to_directory(self) -> None:
        path = self._file()
        os.unlink(path)
        os.mkdir(path)
        self._write(path + b"/inside")

    def _directory_to_file(self) -> None:
        path = self._directory(with_root=False)
        shutil.rmtree(path)
        self._write(path)

    def _file_to_link(self) -> None:
        path = self._file()
        os.unlink(path)
        os.symlink(b"../" * self._number(3) + b"a", path)

    def _chmod(self) -> None:
        os.chmod(self._item(), (0o700, 0o755, 0o644, 0o4755, 0o500)[self._number(5)])

    def _touch_back(self) -> None:
        time = self._number(4_000_000_000) * 10**9 - 10**18 + self._number(10**9)
        os.utime(self._item(), ns=(time, time))

    def _link(self) -> None:
        os.link(self._file(), self._new_path())

    def _symlink(self) -> None:
        os.symlink(self._content()[:90], self._new_path())

    def _fifo(self) -> None:
        os.mkfifo(self._new_path())

    def _attribute(self) -> None:
        os.setxattr(self._item(), b"user.note", self._content()[:50])

    def _rotate(self) -> None:
        directory = self._directory()
        for number in (1, 0):
            path = directory + b"/log.%d" % number
            if os.path.isfile(path) and not os.path.isdir(directory + b"/log.%d" % (number + 1)):
                os.rename(path, directory + b"/log.%d" % (number + 1))
        self._write(directory + b"/log.0")

    def _do_nothing(self) -> None:
        pass


ACTIONS = [
    "_make_directory",
    "_create",
    "_modify",
    "_modify_secretly",
    "_delete",
    "_delete_directory",
    "_rename",
    "_move",
    "_swap",
    "_take_over",
    "_turn_inside_out",
    "_wrap",
    "_file_to_directory",
    "_directory_to_file",
    "_file_to_link",
    "_chmod",
    "_touch_back",
    "_link",
    "_symlink",
    "_fifo",
    "_attribute",
    "_rotate",
    "_do_nothing",
]
