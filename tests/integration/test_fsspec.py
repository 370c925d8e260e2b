"""Storage fsspec: which file systems it takes, which it refuses, and what it tells about them."""

from __future__ import annotations

import gc
import json
import secrets
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import fsspec  # type: ignore[import-untyped]
import pytest
from fsspec.implementations.local import LocalFileSystem  # type: ignore[import-untyped]
from fsspec.spec import AbstractFileSystem  # type: ignore[import-untyped]

from pipeline.errors import StorageRefused, StorageUnavailable
from pipeline.stage import CHUNK
from schemas.storages import FsspecStorage
from stages.storages._fsspec import kinds
from stages.storages._fsspec.begin import begin
from stages.storages.fsspec import Fsspec
from tests.contracts.storage_subject import (
    NAME,
    OTHER_TOKEN,
    TOKEN,
    everything,
    put,
    read,
)
from tests.integration.fsspec_storage import over_ssh, spec_of
from tests.servers.base import HOST
from tests.servers.proxy import Proxy
from tests.servers.smb import PASSWORD as SMB_PASSWORD
from tests.servers.smb import SHARE, Smbd
from tests.servers.smb import USER as SMB_USER
from tests.servers.sshd import Sshd

pytestmark = pytest.mark.integration

Make = Callable[[FsspecStorage], Fsspec]


@pytest.fixture(scope="module")
def sshd() -> Iterator[Sshd]:
    with Sshd() as server:
        yield server


@pytest.fixture
def make() -> Iterator[Make]:
    """Makes storages, and closes them."""
    with ExitStack() as stack:

        def made(spec: FsspecStorage) -> Fsspec:
            storage = Fsspec(spec)
            stack.callback(storage.close)
            return storage

        yield made


class TestRefused:
    @pytest.mark.parametrize(
        ("url", "options", "message"),
        [
            ("http://127.0.0.1/x", {}, "its driver can only read"),
            ("zip://x::file:///tmp/x.zip", {}, "in an archive nothing can be renamed"),
            ("tar://x::file:///tmp/x.tar", {}, "its driver can only read"),
            ("reference://x", {"fo": {}}, "its driver can only read"),
            ("ftp://127.0.0.1/x", {}, "use type: ftp"),
            ("simplecache::file:///tmp/x", {}, "keeps a copy .* leave the cache out of url"),
            ("filecache::memory://x", {}, "keeps a copy .* leave the cache out of url"),
            ("webdav://x", {"base_url": "http://127.0.0.1:9"}, "use type: webdav"),
            ("nonesuch://x", {}, 'no driver for "nonesuch" is known; pip install --target'),
            ("hdfs://host/x", {}, '"pyarrow" is not installed; pip install --target DIRECTORY'),
            ("oss://bucket/x", {}, '"ossfs" is not installed; pip install --target DIRECTORY'),
            ("sftp:///x", {}, "does not take storage_options"),
            ("s3://", {}, "url names no directory"),
            ("file:///", {}, "url names no directory"),
        ],
    )
    def test_what_cannot_be_a_storage(
        self, make: Make, url: str, options: dict[str, Any], message: str
    ) -> None:
        storage = make(spec_of(url, storage_options=options))
        for action in (storage.probe, lambda: storage.create(NAME, TOKEN)):
            with pytest.raises(StorageRefused, match=message):
                action()


class TestFacts:
    def test_local_files(self, make: Make, tmp_path: Path) -> None:
        facts = make(spec_of(f"file://{tmp_path}")).probe()
        assert "an object is written under another name, and then renamed" in facts
        assert "an upload that breaks cannot go on: it fails" in facts
        assert "type: local does the same, and more" in facts
        assert any(fact.startswith("driver: fsspec 20") for fact in facts)

    def test_host_keys(self, make: Make, sshd: Sshd) -> None:
        checked = make(over_ssh(sshd, sshd.data)).probe()
        assert not any(fact.startswith("warning") for fact in checked)
        unchecked = make(over_ssh(sshd, sshd.data, options={"known_hosts": None})).probe()
        assert any("warning: the host key is not checked" in fact for fact in unchecked)

    def test_host_keys_are_checked_unless_told_otherwise(
        self, make: Make, sshd: Sshd, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HOME", str(sshd.client_dir / "nowhere"))
        spec = over_ssh(sshd, sshd.data)
        del spec.storage_options["known_hosts"]
        with pytest.raises(StorageRefused, match="cannot be told from an impostor"):
            make(spec).probe()


class TestDrivers:
    def test_a_directory_of_drivers(self, tmp_path: Path) -> None:
        package = tmp_path / "drivers" / "our_driver"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text(
            "from fsspec.implementations.memory import MemoryFileSystem\n"
            "__version__ = '7.1'\n"
            "class OurFileSystem(MemoryFileSystem):\n"
            "    protocol = 'ours'\n"
        )
        metadata = tmp_path / "drivers" / "our_driver-7.1.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: our-driver\nVersion: 7.1")
        (metadata / "entry_points.txt").write_text(
            "[fsspec.specs]\nours = our_driver.OurFileSystem\n"
        )
        code = (
            "import sys\n"
            "from tests.integration.fsspec_storage import spec_of\n"
            "from stages.storages.fsspec import Fsspec\n"
            "storage = Fsspec(spec_of('ours://x/y', drivers=sys.argv[1]))\n"
            "print(*storage.probe(), sep='\\n')\n"
            "storage.close()\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "drivers")],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert "driver: our_driver 7.1" in done.stdout

    def test_no_driver_starts_or_writes_anything(self, sshd: Sshd, tmp_path: Path) -> None:
        spec = over_ssh(sshd, sshd.data)
        options = {**spec.storage_options, "client_keys": [str(sshd.key)]}
        code = (
            "import json, sys\n"
            "from tests.integration.fsspec_storage import spec_of\n"
            "from stages.storages.fsspec import Fsspec\n"
            "storage = Fsspec(spec_of(sys.argv[1], storage_options=json.loads(sys.argv[2])))\n"
            "storage.list('')\n"
            "storage.close()\n"
        )
        trace = tmp_path / "trace"
        strace = ["strace", "-f", "-e", "trace=execve,openat,creat", "-o", str(trace)]
        python = [sys.executable, "-B", "-c", code, spec.url, json.dumps(options)]
        subprocess.run(strace + python, check=True)
        calls = trace.read_text()
        assert calls.count("execve(") == 1
        assert "O_CREAT" not in calls
        assert "creat(" not in calls


class SlowCopies(LocalFileSystem):  # type: ignore[misc]
    """A driver that nothing is known about, and that may take its time."""

    protocol = "slow-copies"
    seconds = 0.0

    def cp_file(self, path1: str, path2: str, **kwargs: Any) -> None:
        time.sleep(self.seconds)
        super().cp_file(path1, path2, **kwargs)


class OnlyMoves(LocalFileSystem):  # type: ignore[misc]
    protocol = "only-moves"
    cp_file = AbstractFileSystem.cp_file


class Neither(OnlyMoves):
    protocol = "neither"
    mv = AbstractFileSystem.mv


class Spools(SlowCopies):
    protocol = "spools"

    def _open(self, path: str, mode: str = "rb", **kwargs: Any) -> Any:
        made = tempfile.SpooledTemporaryFile()  # noqa: SIM115
        weakref.finalize(made, made.close)
        return made


class TestUnknownDrivers:
    @pytest.fixture(autouse=True)
    def registered(self, monkeypatch: pytest.MonkeyPatch) -> None:
        # They stand on the driver for local files, which is known.
        monkeypatch.delitem(kinds._KINDS, "fsspec.implementations.local.LocalFileSystem")
        for each in (SlowCopies, OnlyMoves, Neither, Spools):
            fsspec.register_implementation(each.protocol, each, clobber=True)

    def test_publishing_copies_and_says_so(self, make: Make, tmp_path: Path) -> None:
        storage = make(spec_of(f"slow-copies://{tmp_path}"))
        put(storage, NAME, [b"content"])
        assert read(storage, NAME) == b"content"
        assert any(fact.startswith("warning: publishing copies") for fact in storage.probe())
        storage.delete([NAME])
        assert everything(storage) == []

    def test_a_copy_may_take_longer_than_other_calls(
        self, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(SlowCopies, "seconds", 1.0)
        storage = make(spec_of(f"slow-copies://{tmp_path}", timeout="300ms"))
        with pytest.raises(StorageUnavailable, match="stands still"):
            put(storage, NAME, [b"content"])
        put(storage, f"{NAME}.large", [bytes(CHUNK)] * 20)  # 5 s more.
        assert [info.size for info in storage.list("shop/crm")][-1] == 20 * CHUNK

    def test_what_is_not_known_to_rename_is_told(self, make: Make, tmp_path: Path) -> None:
        storage = make(spec_of(f"only-moves://{tmp_path}"))
        put(storage, NAME, [b"content"])
        assert read(storage, NAME) == b"content"
        with pytest.raises(StorageRefused, match="already exists"):
            put(storage, NAME, [b"more"], OTHER_TOKEN)
        assert any(fact.startswith("warning: publishing moves") for fact in storage.probe())
        storage.delete([NAME])

    def test_neither_copy_nor_rename(self, make: Make, tmp_path: Path) -> None:
        with pytest.raises(StorageRefused, match="can neither copy nor rename"):
            make(spec_of(f"neither://{tmp_path}")).create(NAME, TOKEN)

    def test_no_object_is_held_in_memory_or_on_disk(self, make: Make, tmp_path: Path) -> None:
        storage = make(spec_of(f"spools://{tmp_path}"))
        with pytest.raises(StorageRefused, match="would keep the whole object"):
            storage.create(NAME, TOKEN)
        assert everything(storage) == []


class TestLostAnswers:
    def test_a_rename_that_was_done_counts(self, make: Make, sshd: Sshd) -> None:
        path = sshd.data / secrets.token_hex(8)
        with Proxy(sshd.port) as proxy:
            storage = make(over_ssh(sshd, path, proxy.port, timeout="20s"))
            writer: Any = storage.create(NAME, TOKEN)
            writer.write(b"content")
            writer.flush()
            rename = writer._upload._publish

            def muted() -> None:
                proxy.mute()
                rename()

            writer._upload._publish = muted
            committing = threading.Thread(target=writer.commit)
            committing.start()
            while not (path / NAME).exists():
                assert committing.is_alive()
                time.sleep(0.01)
            proxy.cut()
            proxy.thaw()
            committing.join()
            assert everything(storage) == [NAME]
            assert read(storage, NAME) == b"content"


class TestLateBeginnings:
    def test_an_upload_that_began_too_late_leaves_nothing(
        self, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        began = threading.Event()
        go_on = threading.Event()

        def late(*args: Any) -> Any:
            upload = begin(*args)
            began.set()
            go_on.wait()
            return upload

        monkeypatch.setattr("stages.storages.fsspec.begin", late)
        storage = make(spec_of(f"file://{tmp_path}", timeout="200ms"))
        with pytest.raises(StorageUnavailable, match="stands still"):
            storage.create(NAME, TOKEN)
        began.wait()
        assert len(storage.unfinished("")) == 1
        go_on.set()
        while everything(storage):
            time.sleep(0.01)


class TestSmb:
    @pytest.fixture
    def share(self, make: Make) -> Iterator[tuple[Smbd, Fsspec]]:
        with Smbd() as server:
            login = {"username": SMB_USER, "password": SMB_PASSWORD}
            url = f"smb://{HOST}:{server.port}/{SHARE}/a/b"
            yield server, make(spec_of(url, storage_options=login))

    def test_objects_come_and_go(self, share: tuple[Smbd, Fsspec]) -> None:
        server, storage = share
        content = secrets.token_bytes(5 * CHUNK + 7)
        put(storage, NAME, [content[:CHUNK], content[CHUNK:]])
        assert (server.data / "a" / "b" / NAME).read_bytes() == content
        assert read(storage, NAME) == content
        assert b"".join(storage.open(NAME, CHUNK + 1)) == content[CHUNK + 1 :]
        aborted = storage.create(f"{NAME}.aborted", TOKEN)
        aborted.write(content)
        aborted.abort()
        with pytest.raises(StorageRefused, match="already exists"):
            put(storage, NAME, [b"more"], OTHER_TOKEN)
        assert everything(storage) == [NAME]
        storage.delete([NAME])
        assert everything(storage) == []

    @pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
    def test_a_server_that_was_killed_and_is_back(self, share: tuple[Smbd, Fsspec]) -> None:
        server, storage = share
        writer = storage.create(NAME, TOKEN)
        writer.write(bytes(CHUNK))
        server.kill()
        with pytest.raises(StorageUnavailable):
            writer.commit()
        writer.abort()
        del writer
        gc.collect()  # The library complains about handles that it could not close.
        server.start()
        storage.sweep(storage.unfinished(""))
        put(storage, NAME, [b"content"])
        assert everything(storage) == [NAME]
