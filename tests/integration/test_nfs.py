"""NFS against a real server: who may mount and write what, and what lies there then."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import StorageRefused, StorageUnavailable
from pipeline.naming import part_name
from pipeline.stage import CHUNK
from pipeline.tryout import try_out
from stages.storages._nfs import calls as nfs
from stages.storages._nfs.list import Listing
from stages.storages._nfs.rpc import Service
from stages.storages._nfs.types import NfsError, Status
from stages.storages._tcp import Interrupt
from tests.contracts.storage_subject import NAME, OTHER_TOKEN, TOKEN, everything, put, read
from tests.integration.nfs_storage import MakeStorage, NfsTests, path_of, works
from tests.servers.base import GID, HOST, UID, free_port
from tests.servers.nfs import Ganesha

STRANGER = 20001


class TestMount(NfsTests):
    @pytest.fixture(scope="class")
    @classmethod
    def server(cls) -> Iterator[Ganesha]:
        with Ganesha(portmapper=True) as ganesha:
            yield ganesha

    def test_the_portmapper_knows_the_ports(self, server: Ganesha, storage_on: MakeStorage) -> None:
        ports = {"nfs_port": None, "mount_port": None, "portmapper_port": server.portmapper_port}
        assert works(storage_on(server, **ports))

    def test_a_service_that_the_portmapper_does_not_know(
        self, server: Ganesha, storage_on: MakeStorage
    ) -> None:
        client = storage_on(server, portmapper_port=server.portmapper_port)._client
        with pytest.raises(StorageUnavailable, match="does not offer NFS version 3"):
            client._find_port(Service(100999, 3), Interrupt())

    def test_no_portmapper(self, server: Ganesha, storage_on: MakeStorage) -> None:
        ports = {"nfs_port": None, "mount_port": None, "portmapper_port": free_port()}
        with pytest.raises(StorageUnavailable, match="set nfs_port and mount_port"):
            storage_on(server, **ports).list("")

    @pytest.mark.parametrize("export", ["/no/such/export", "/"])
    def test_missing_export(self, server: Ganesha, storage_on: MakeStorage, export: str) -> None:
        with pytest.raises(StorageRefused, match=f'does not let us mount "{export}"'):
            storage_on(server, export=export).list("")

    def test_a_directory_below_the_export_can_be_mounted(
        self, server: Ganesha, storage_on: MakeStorage
    ) -> None:
        put(storage_on(server, path="a"), "b/c", [b"content"])
        below = storage_on(server, export=f"{server.export}/a", path="")
        assert read(below, "b/c") == b"content"
        below.delete(["b/c"])
        assert (server.data / "a").is_dir()

    @pytest.mark.parametrize("port", ["nfs_port", "mount_port"])
    def test_refused(self, server: Ganesha, storage_on: MakeStorage, port: str) -> None:
        with pytest.raises(StorageUnavailable, match="cannot be reached: connection refused"):
            storage_on(server, **{port: free_port()}).list("")

    def test_unknown_host(self, server: Ganesha, storage_on: MakeStorage) -> None:
        with pytest.raises(StorageUnavailable, match=r'"no-such-host\.invalid" cannot be reached'):
            storage_on(server, host="no-such-host.invalid").list("")

    def test_another_service(self, server: Ganesha, storage_on: MakeStorage) -> None:
        storage = storage_on(server, mount_port=server.portmapper_port)
        with pytest.raises(StorageRefused, match="does not offer this service"):
            storage.list("")

    @pytest.mark.parametrize("port", ["nfs_port", "mount_port"])
    @pytest.mark.parametrize(
        "answer",
        [
            b"HTTP/1.1 400 Bad Request\r\n" * 100,  # Says that 1.2 GB follow.
            bytes.fromhex("80000004 00000000"),
            bytes.fromhex("00000000") * 4 + bytes.fromhex("80000008 00000000 00000001"),
        ],
    )
    def test_not_an_nfs_server(
        self, server: Ganesha, storage_on: MakeStorage, port: str, answer: bytes
    ) -> None:
        with socket.create_server((HOST, 0)) as other:

            def speak() -> None:
                connection, _ = other.accept()
                with connection, suppress(ConnectionError):
                    call = connection.recv(1000)
                    # Under the number of the call, if it is long enough to have one.
                    connection.sendall(answer.replace(bytes(4), call[4:8], 1))
                    connection.recv(1000)

            thread = threading.Thread(target=speak)
            thread.start()
            storage = storage_on(server, **{port: other.getsockname()[1]})
            with pytest.raises(StorageRefused, match="does not speak NFS"):
                storage.list("")
            thread.join()

    def test_silent_server(self, server: Ganesha, storage_on: MakeStorage) -> None:
        with socket.create_server((HOST, 0)) as silent:
            port = silent.getsockname()[1]
            for ports in ({"nfs_port": port}, {"mount_port": port}):
                storage = storage_on(server, timeout="300ms", **ports)
                with pytest.raises(StorageUnavailable, match=r"no answer for 0\.15 s"):
                    storage.list("")

    def test_privileged_port(self, storage_on: MakeStorage) -> None:
        with Ganesha(privileged=True) as server:
            assert works(storage_on(server))
            code = (
                "import os, sys\n"
                "from pipeline.errors import StorageRefused\n"
                "from schemas.storages import NfsStorage\n"
                "from stages.storages.nfs import Nfs\n"
                "storage = Nfs(NfsStorage.model_validate_json(sys.argv[2]))\n"
                "storage.list('')\n"  # Everything is imported now, which another user may not read.
                "storage.close()\n"
                "os.setuid(int(sys.argv[1]))\n"
                "try:\n"
                "    print(storage.list(''))\n"
                "except StorageRefused as error:\n"
                "    print(error)\n"
            )
            spec = storage_on(server)._spec.model_dump_json(exclude_unset=True)
            command = [sys.executable, "-c", code, str(STRANGER), spec]
            said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            assert "source port below 1024, which only root can have" in said


class TestUser(NfsTests):
    def test_files_are_private(self, server: Ganesha, storage_on: MakeStorage) -> None:
        storage = storage_on(server)
        before = time.time()
        put(storage, NAME, [])
        path = path_of(server, storage, NAME)
        found = path.stat()
        assert min(found.st_mtime, found.st_atime) > before - 3600
        assert max(found.st_mtime, found.st_atime) < before + 3600
        assert (found.st_mode & 0o777, found.st_uid, found.st_gid) == (0o600, UID, GID)
        assert path.parent.stat().st_mode & 0o007 == 0

    def test_the_user_is_that_of_the_process(
        self, server: Ganesha, storage_on: MakeStorage
    ) -> None:
        storage = storage_on(server, uid=None, gid=None)
        put(storage, NAME, [b"content"])
        found = path_of(server, storage, NAME).stat()
        assert (found.st_uid, found.st_gid) == (os.geteuid(), os.getegid())

    def test_more_groups(self, server: Ganesha, storage_on: MakeStorage) -> None:
        shared = server.data / "shared"
        shared.mkdir()
        os.chown(shared, 0, 4321)
        shared.chmod(0o770)
        assert works(storage_on(server, path="shared", uid=STRANGER, gids=[7, 4321]))
        with pytest.raises(StorageRefused, match="did not permit to write"):
            works(storage_on(server, path="shared", uid=STRANGER, gids=[7]))

    def test_permission_denied(self, server: Ganesha, storage_on: MakeStorage) -> None:
        put(storage_on(server), NAME, [b"content"])
        stranger = storage_on(server, uid=STRANGER, gid=STRANGER)
        refused = [
            lambda: stranger.create("new", TOKEN),
            lambda: read(stranger, NAME),
            lambda: stranger.list(""),
            lambda: stranger.delete([NAME]),
            lambda: try_out(stranger),
        ]
        for call in refused:
            with pytest.raises(StorageRefused, match=f"did not permit .*we are uid {STRANGER}"):
                call()

    def test_a_user_who_may_only_write(self, server: Ganesha, storage_on: MakeStorage) -> None:
        box = server.data / "box"
        box.mkdir()
        box.chmod(0o733)
        os.chown(box, 0, 0)
        storage = storage_on(server, path="box")
        put(storage, NAME, [b"content"])
        with pytest.raises(StorageRefused, match="did not permit to list"):
            storage.list("")
        (warning,) = [fact for fact in storage.probe() if fact.startswith("warning: ")]
        assert "did not permit to list" in warning
        assert try_out(storage).denied == {}  # What we make ourselves is ours.

    def test_root_is_nobody(self, storage_on: MakeStorage) -> None:
        with Ganesha(squash=True) as server:
            os.chown(server.data, 0, 0)
            with pytest.raises(StorageRefused, match="how the export maps users"):
                storage_on(server, uid=0, gid=0).create(NAME, TOKEN)

    def test_read_only_export(self, storage_on: MakeStorage) -> None:
        with Ganesha(writable=False) as server:
            storage = storage_on(server, path="")
            assert storage.list("") == []
            with pytest.raises(StorageRefused, match="read-only"):
                storage.create(NAME, TOKEN)
            with pytest.raises(StorageRefused, match="read-only"):
                try_out(storage)

    def test_probe(self, server: Ganesha, storage_on: MakeStorage) -> None:
        facts = storage_on(server).probe()
        assert any(f"as uid {UID}, gid {GID}" in fact for fact in facts)
        assert any(fact.startswith("free space: ") for fact in facts)
        assert not any(fact.startswith("warning") for fact in facts)


class TestPlace(NfsTests):
    def test_path_is_made(self, server: Ganesha, storage_on: MakeStorage) -> None:
        storage = storage_on(server, path="/not/there/")
        assert storage.list("") == []
        put(storage, NAME, [b"content"])
        assert (server.data / "not" / "there" / NAME).read_bytes() == b"content"
        storage.delete([NAME])
        assert os.listdir(server.data / "not" / "there") == []

    def test_the_export_itself(self, server: Ganesha, storage_on: MakeStorage) -> None:
        storage = storage_on(server, path="")
        put(storage, "top", [b"content"])
        assert (server.data / "top").read_bytes() == b"content"
        storage.delete(["top"])

    def test_symbolic_link(self, server: Ganesha, storage_on: MakeStorage) -> None:
        (server.data / "target").mkdir()
        (server.data / "link").symlink_to("target")
        with pytest.raises(StorageRefused, match='"link" is a symbolic link'):
            storage_on(server, path="link").create(NAME, TOKEN)

    def test_a_file_in_the_way(self, server: Ganesha, storage_on: MakeStorage) -> None:
        put(storage_on(server), "a", [b"content"])
        with pytest.raises(StorageRefused, match="not a directory"):
            storage_on(server).create("a/b", TOKEN)

    def test_a_directory_is_no_object(self, server: Ganesha, storage_on: MakeStorage) -> None:
        storage = storage_on(server)
        put(storage, "a/b/c", [b"content"])
        with pytest.raises(StorageRefused, match="does not exist"):
            read(storage, "a/b")
        with pytest.raises(StorageRefused, match="already exists"):
            storage.create("a/b", TOKEN)
        with pytest.raises(StorageRefused):
            storage.delete(["a/b"])

    def test_too_long_a_name(self, server: Ganesha, storage_on: MakeStorage) -> None:
        with pytest.raises(StorageRefused, match="too long"):
            storage_on(server).create("n" * 250, TOKEN)

    def test_links_and_other_things_are_not_listed(
        self, server: Ganesha, storage_on: MakeStorage
    ) -> None:
        storage = storage_on(server)
        put(storage, "a/b", [b"content"])
        place: Path = path_of(server, storage, "a")
        (place / "link").symlink_to("b")
        os.mkfifo(place / "fifo")
        (place / ".hidden").mkdir()
        (place / ".hidden" / "file").touch()
        assert everything(storage) == ["a/b"]

    def test_thousands_of_objects(self, server: Ganesha, storage_on: MakeStorage) -> None:
        storage: Any = storage_on(server)
        put(storage, "many/first", [b"content"])
        place = path_of(server, storage, "many")
        expected = {"many/first": 7}
        for number in range(5000):
            name = f"{'n' * (number % 150)}{number}"
            (place / name).write_bytes(b"x" * (number % 7))
            expected[f"many/{name}"] = number % 7
        (place / part_name("left", OTHER_TOKEN)).touch()
        assert {info.name: info.size for info in storage.list("")} == expected
        assert storage.unfinished("") == [f"many/{part_name('left', OTHER_TOKEN)}"]
        # As servers are asked that cannot give attributes together with names.
        with storage._client.session("list") as session:
            plain = Listing(storage._tree(session), session, with_attributes=False)
            names = {info.name for info in plain.files("many")}
        assert names - {f"many/{part_name('left', OTHER_TOKEN)}"} == set(expected)
        storage.delete(list(expected))
        storage.sweep(storage.unfinished(""))
        assert not place.exists()

    def test_a_quarter_of_a_gibibyte(self, server: Ganesha, storage_on: MakeStorage) -> None:
        storage, chunk = storage_on(server), os.urandom(CHUNK + 4321)
        writer = storage.create(NAME, TOKEN)
        sent, received = hashlib.sha256(), hashlib.sha256()
        for number in range(256):
            piece = number.to_bytes(4, "big") + chunk
            writer.write(piece)
            sent.update(piece)
        writer.commit()
        for piece in storage.open(NAME):
            received.update(piece)
        assert received.digest() == sent.digest()
        storage.delete([NAME])

    def test_create_guarded(self, server: Ganesha, storage_on: MakeStorage) -> None:
        # For servers that know no exclusive create.
        storage: Any = storage_on(server, path="")
        with storage._client.session("create") as session:
            top = storage._tree(session).directory("")
            session.call(nfs.create_guarded(top, "guarded", 0o640))
            with pytest.raises(NfsError, match=str(int(Status.EXIST))):
                session.call(nfs.create_guarded(top, "guarded", 0o640))
        assert (server.data / "guarded").stat().st_mode & 0o777 == 0o640
