"""The local storage beyond the contract: file systems, permissions and full disks."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.errors import StorageDenied, StorageError, StorageRefused, StorageUnavailable
from pipeline.stage import CHUNK
from pipeline.tryout import try_out
from schemas.storages import LocalStorage
from stages.storages._publish import by_exclusive_rename, by_link, by_rename, publish
from stages.storages.local import Local, storage_error
from tests.contracts.storage_subject import NAME, TOKEN, names, put, read

IS_ROOT = os.geteuid() == 0
NOBODY = 65534


@pytest.fixture
def root() -> Iterator[Path]:
    """A directory that every user can reach."""
    path = Path(tempfile.mkdtemp(prefix="nxs-local-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def local(root: Path, fsync: bool = True) -> Local:
    return Local(LocalStorage(type="local", path=str(root), fsync=fsync))


@contextmanager
def not_root() -> Iterator[None]:
    """Permissions do not stop root; this is somebody whom they do."""
    if IS_ROOT:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if IS_ROOT:
            os.seteuid(0)


def files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*")}


class TestPublish:
    WAYS = (by_link, by_exclusive_rename, by_rename)

    @pytest.mark.parametrize("way", WAYS)
    def test_moves(self, tmp_path: Path, way: Callable[[str, str], None]) -> None:
        (tmp_path / "part").write_text("new")
        way(str(tmp_path / "part"), str(tmp_path / "final"))
        assert files(tmp_path) == {"final"}
        assert (tmp_path / "final").read_text() == "new"

    @pytest.mark.parametrize("way", WAYS)
    @pytest.mark.parametrize("kind", ["file", "dangling link"])
    def test_never_overwrites(
        self, tmp_path: Path, way: Callable[[str, str], None], kind: str
    ) -> None:
        part, final = tmp_path / "part", tmp_path / "final"
        part.write_text("new")
        if kind == "file":
            final.write_text("old")
        else:
            final.symlink_to("nowhere")
        with pytest.raises(FileExistsError):
            way(str(part), str(final))
        assert part.read_text() == "new"
        assert not final.exists() or final.read_text() == "old"

    @pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.EINVAL])
    def test_goes_on_to_the_next_way(self, tmp_path: Path, number: int) -> None:
        def unsupported(_part: str, final: str) -> None:
            raise OSError(number, os.strerror(number), final)

        (tmp_path / "part").write_text("new")
        ways = (unsupported, by_rename)
        publish(str(tmp_path / "part"), str(tmp_path / "final"), ways)
        assert files(tmp_path) == {"final"}

    def test_a_real_error_is_not_retried(self, tmp_path: Path) -> None:
        def broken(_part: str, final: str) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO), final)

        (tmp_path / "part").write_text("new")
        with pytest.raises(OSError, match="Input/output"):
            publish(str(tmp_path / "part"), str(tmp_path / "final"), (broken, by_rename))
        assert files(tmp_path) == {"part"}


class TestErrors:
    @pytest.mark.parametrize(
        ("number", "kind"),
        [
            (errno.ENOSPC, StorageRefused),
            (errno.EDQUOT, StorageRefused),
            (errno.EACCES, StorageDenied),
            (errno.EROFS, StorageRefused),
            (errno.ENAMETOOLONG, StorageRefused),
            (errno.EIO, StorageUnavailable),
            (errno.ESTALE, StorageUnavailable),
            (errno.EHOSTDOWN, StorageUnavailable),
            (errno.ETIMEDOUT, StorageUnavailable),
        ],
    )
    def test_what_may_pass_is_told_from_what_will_not(
        self, number: int, kind: type[StorageError]
    ) -> None:
        error = storage_error(OSError(number, os.strerror(number)), "/srv/x")
        assert type(error) is kind
        assert '"/srv/x"' in str(error)

    def test_full_disk_says_so(self) -> None:
        error = storage_error(OSError(errno.ENOSPC, "No space left on device"), "/srv/x")
        assert str(error) == 'no space left for "/srv/x"; the disk or a quota is full'

    def test_full_disk(self, root: Path) -> None:
        # Where we may not mount a small disk, a limit on the size of files stands in for it.
        code = (
            "import resource, sys\n"
            "from tests.contracts.push_object import open_storage\n"
            "from pipeline.errors import StorageRefused\n"
            "if sys.argv[2] == 'limit': resource.setrlimit(resource.RLIMIT_FSIZE, (9 << 20,) * 2)\n"
            "storage = open_storage(sys.argv[1])\n"
            "writer = storage.create('a/b', '01234567-20261123T031500Z-abcdef')\n"
            "try:\n"
            "    for _ in range(20): writer.write(bytes(1 << 20))\n"
            "except StorageRefused as error: print(error)\n"
            "try: writer.commit()\n"
            "except StorageRefused: print('not committed')\n"
            "writer.abort()\n"
            "print(storage.list(''), storage.unfinished(''))\n"
        )
        mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(root)]
        mounted = IS_ROOT and not subprocess.run(mount, stderr=subprocess.DEVNULL).returncode
        spec = json.dumps({"type": "local", "path": str(root)})
        argv = [sys.executable, "-c", code, spec, "mounted" if mounted else "limit"]
        try:
            done = subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=True)
        finally:
            if mounted:
                subprocess.run(["umount", str(root)], check=True)
        first, second, third = done.stdout.splitlines()
        assert first.startswith("no space left for" if mounted else '"')
        assert mounted or "file too large" in first
        assert (second, third) == ("not committed", "[] []")

    def test_directory_that_cannot_be_written(self, root: Path) -> None:
        root.chmod(0o555)
        with not_root(), pytest.raises(StorageRefused, match="permission denied"):
            local(root).create(NAME, TOKEN)
        with not_root(), pytest.raises(StorageRefused, match="permission denied"):
            try_out(local(root))

    def test_directory_that_cannot_be_read(self, root: Path) -> None:
        put(local(root), NAME, [b"content"])
        root.chmod(0o300 if not IS_ROOT else 0o700)
        try:
            for call in (local(root).list, local(root).unfinished):
                with not_root(), pytest.raises(StorageRefused, match="permission denied"):
                    call("")
        finally:
            root.chmod(0o755)

    def test_what_cannot_be_deleted_is_told_and_the_rest_deleted(self, root: Path) -> None:
        storage = local(root)
        put(storage, "a/1", [b"content"])
        (root / "b" / "directory").mkdir(parents=True)
        with pytest.raises(StorageRefused, match="b/directory"):
            storage.delete(["b/directory", "a/1"])
        assert names(storage) == []

    @pytest.mark.parametrize("call", ["create", "list", "probe"])
    def test_root_that_is_a_file(self, root: Path, call: str) -> None:
        (root / "file").write_text("x")
        storage = local(root / "file")
        arguments = {"create": (NAME, TOKEN), "list": ("",), "probe": ()}[call]
        with pytest.raises(StorageRefused, match="cannot be used"):
            getattr(storage, call)(*arguments)

    def test_name_too_long(self, root: Path) -> None:
        with pytest.raises(StorageRefused, match="name too long"):
            local(root).create("a/" + "n" * 250, TOKEN)
        assert files(root) <= {"a"}


class TestFiles:
    @pytest.mark.parametrize("fsync", [True, False])
    def test_objects_are_private(self, root: Path, fsync: bool) -> None:
        put(local(root / "deep" / "er", fsync), NAME, [b"content"])
        path = root / "deep" / "er" / NAME
        assert path.read_bytes() == b"content"
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.stat().st_nlink == 1
        for directory in (path.parent, root / "deep"):
            assert directory.stat().st_mode & 0o027 == 0

    def test_home_is_not_expanded(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(root)
        put(Local(LocalStorage(type="local", path="~")), "a/b", [b"content"])
        assert (root / "~" / "a" / "b").exists()

    @pytest.mark.parametrize("end", ["delete", "abort", "sweep"])
    def test_empty_directories_go_but_never_the_root(self, root: Path, end: str) -> None:
        storage = local(root / "backups")
        (root / "backups" / "a").mkdir(parents=True)
        (root / "backups" / "a" / "foreign").write_text("x")
        if end == "delete":
            put(storage, "a/b/c", [b"content"])
            storage.delete(["a/b/c"])
        else:
            writer = storage.create("a/b/c", TOKEN)
            if end == "sweep":
                storage.sweep(storage.unfinished(""))
            writer.abort()
        assert files(root / "backups") == {"a", "a/foreign"}
        storage.delete(["a/foreign"])
        assert files(root) == {"backups"}

    def test_only_our_files_are_listed(self, root: Path) -> None:
        storage = local(root)
        put(storage, "a/object", [b"content"])
        (root / "a" / ".hidden").write_text("x")
        (root / "a" / ".object.tmp.part").write_text("x")
        (root / ".git" / "objects").mkdir(parents=True)
        (root / ".git" / "objects" / "x").write_text("x")
        (root / "a" / "link").symlink_to("object")
        (root / "linked").symlink_to("a")
        os.mkfifo(root / "a" / "fifo")
        assert names(storage) == ["a/object"]
        assert storage.unfinished("") == []

    def test_an_unfinished_file_is_not_followed_through_a_link(self, root: Path) -> None:
        target = root / "target"
        target.write_text("precious")
        (root / "a").mkdir()
        (root / "a" / f".b.{TOKEN}.part").symlink_to(target)
        with pytest.raises(StorageRefused):
            local(root).create("a/b", TOKEN)
        assert target.read_text() == "precious"

    def test_truncated_while_it_is_read(self, root: Path) -> None:
        storage = local(root)
        put(storage, NAME, [bytes(3 * CHUNK)])
        chunks = storage.open(NAME)
        next(chunks)
        os.truncate(root / NAME, CHUNK)
        with pytest.raises(StorageRefused, match="ended"):
            list(chunks)

    def test_no_descriptor_stays_open_after_abort(self, root: Path) -> None:
        before = set(os.listdir("/proc/self/fd"))
        writer = local(root).create(NAME, TOKEN)
        writer.abort()
        assert set(os.listdir("/proc/self/fd")) == before

    def test_free_space_is_reported(self, root: Path) -> None:
        facts = local(root).probe()
        assert any(fact.startswith("free space: ") for fact in facts)
        assert files(root) == set()

    def test_content_is_whole_with_fsync(self, root: Path) -> None:
        content = os.urandom(CHUNK + 1)
        put(local(root), NAME, [content])
        assert read(local(root), NAME) == content
