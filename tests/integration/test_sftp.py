"""SFTP against a real OpenSSH server: logins, trust, and what can go wrong on the way."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import Aborted, StorageError, StorageRefused, StorageUnavailable
from pipeline.stage import CHUNK, Writer
from schemas.storages import SftpStorage
from stages.storages._ssh import Keepalive
from stages.storages.sftp import Sftp
from tests.contracts.storage import NAME, OTHER_TOKEN, TOKEN, everything, put, read
from tests.servers.base import GID, HOST, IS_ROOT, UID, free_port
from tests.servers.proxy import Proxy
from tests.servers.sshd import PASSPHRASE, PASSWORD, USER, Sshd, make_key

pytestmark = pytest.mark.integration

QUICK = Keepalive(interval=0.2, count=2)
MakeStorage = Callable[..., Sftp]


@pytest.fixture(scope="module")
def server() -> Iterator[Sshd]:
    with Sshd() as sshd:
        yield sshd


@pytest.fixture
def storage_on() -> Iterator[MakeStorage]:
    """Makes storages on a server, by default with key and trusted host key, and closes them."""
    with ExitStack() as stack:

        def make(server: Sshd, keepalive: Keepalive | None = None, **changes: Any) -> Sftp:
            values = {
                "host": HOST,
                "port": server.port,
                "user": USER,
                "key_file": str(server.key),
                "host_key": server.host_key,
                "path": str(server.data / "backups"),
            }
            spec = SftpStorage(type="sftp", **{**values, **changes})
            storage = Sftp(spec, keepalive)
            stack.callback(storage.close)
            return storage

        yield make


def works(storage: Sftp) -> bool:
    put(storage, NAME, [b"content"])
    content = read(storage, NAME)
    storage.delete([NAME])
    return content == b"content"


def write_forever(writer: Writer) -> None:
    while True:
        writer.write(bytes(CHUNK))


def write_until_error(storage: Sftp, disturb: Callable[[], None]) -> StorageError:
    """What a writer says when something happens in the middle of its upload."""
    writer = storage.create(NAME, TOKEN)
    for _ in range(4):
        writer.write(os.urandom(CHUNK))
    disturb()
    with pytest.raises(StorageError) as caught:
        write_forever(writer)
    with pytest.raises(StorageError):  # It stays broken.
        writer.commit()
    writer.abort()
    return caught.value


class TestLogin:
    def test_password(self, server: Sshd, storage_on: MakeStorage) -> None:
        assert works(storage_on(server, key_file=None, password=PASSWORD))

    def test_key(self, server: Sshd, storage_on: MakeStorage) -> None:
        assert works(storage_on(server))

    def test_encrypted_pkcs8_key(self, server: Sshd, storage_on: MakeStorage) -> None:
        key = make_key(server.client_dir / "ecdsa", kind="ecdsa")
        server.authorize(key)
        convert = ["ssh-keygen", "-q", "-p", "-P", "", "-N", PASSPHRASE, "-m", "PKCS8", "-f", key]
        subprocess.run([str(part) for part in convert], check=True, stdout=subprocess.DEVNULL)
        assert "ENCRYPTED" in key.read_text()
        assert works(storage_on(server, key_file=str(key), key_passphrase=PASSPHRASE))

    def test_encrypted_openssh_key(self, server: Sshd, storage_on: MakeStorage) -> None:
        key = make_key(server.client_dir / "encrypted", PASSPHRASE)
        server.authorize(key)
        storage = storage_on(server, key_file=str(key), key_passphrase=PASSPHRASE)
        if importlib.util.find_spec("bcrypt"):
            assert works(storage)
        else:
            with pytest.raises(StorageRefused, match="needs the package bcrypt"):
                storage.list("")

    def test_agent(
        self, server: Sshd, storage_on: MakeStorage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        agent_socket = str(server.client_dir / "agent")
        monkeypatch.setenv("SSH_AUTH_SOCK", agent_socket)
        storage = storage_on(server, key_file=None, agent=True)
        with pytest.raises(StorageRefused, match="no SSH agent answers"):
            storage.list("")
        with subprocess.Popen(
            ["ssh-agent", "-D", "-a", agent_socket], stdout=subprocess.DEVNULL
        ) as agent:
            while not os.path.exists(agent_socket):
                assert agent.poll() is None
            add = ["ssh-add", "-q", str(server.key)]
            subprocess.run(add, check=True, stderr=subprocess.DEVNULL)
            assert works(storage)
            agent.terminate()

    def test_an_agent_is_not_asked_unless_told(
        self, server: Sshd, storage_on: MakeStorage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with socket.socket(socket.AF_UNIX) as listener:
            path = str(server.client_dir / "silent-agent")
            listener.bind(path)
            listener.listen()
            listener.setblocking(False)
            monkeypatch.setenv("SSH_AUTH_SOCK", path)
            assert works(storage_on(server))
            with pytest.raises(BlockingIOError):
                listener.accept()

    def test_wrong_password(self, server: Sshd, storage_on: MakeStorage) -> None:
        storage = storage_on(server, key_file=None, password="wr0ng secret")
        with pytest.raises(StorageRefused, match=f'refused the login of "{USER}"') as caught:
            storage.create(NAME, TOKEN)
        assert "wr0ng" not in f"{caught.value} {caught.value.__cause__!r}"

    def test_wrong_key(self, server: Sshd, storage_on: MakeStorage) -> None:
        key = make_key(server.client_dir / "stranger")
        with pytest.raises(StorageRefused, match="did not accept key_file"):
            storage_on(server, key_file=str(key)).list("")

    def test_nothing_to_log_in_with(
        self, server: Sshd, storage_on: MakeStorage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        home = server.client_dir / "home"
        (home / ".ssh").mkdir(parents=True)
        shutil.copy(server.key, home / ".ssh" / "id_ed25519")  # Must not be found by itself.
        monkeypatch.setenv("HOME", str(home))
        with pytest.raises(StorageRefused, match="give a key_file or a password"):
            storage_on(server, key_file=None).list("")

    @pytest.mark.parametrize(
        ("key_file", "message"),
        [("/no/such/key", "cannot be read: no such file"), ("/etc/passwd", "not a private key")],
    )
    def test_unusable_key_file(
        self, server: Sshd, storage_on: MakeStorage, key_file: str, message: str
    ) -> None:
        with pytest.raises(StorageRefused, match=message):
            storage_on(server, key_file=key_file).list("")

    def test_passphrase_is_missing_or_wrong(self, server: Sshd, storage_on: MakeStorage) -> None:
        key = server.client_dir / "rsa"
        generate = ["openssl", "genpkey", "-quiet", "-algorithm", "RSA", "-aes-256-cbc"]
        encrypt = ["-pass", f"pass:{PASSPHRASE}", "-out", str(key)]
        subprocess.run(generate + encrypt, check=True)
        with pytest.raises(StorageRefused, match="is encrypted; set key_passphrase"):
            storage_on(server, key_file=str(key)).list("")
        wrong = storage_on(server, key_file=str(key), key_passphrase="wr0ng secret")
        with pytest.raises(StorageRefused, match="check key_passphrase") as caught:
            wrong.list("")
        assert "wr0ng" not in str(caught.value)

    def test_a_user_id_without_a_name_can_log_in(self, server: Sshd) -> None:
        code = (
            "import os, sys\n"
            "from schemas.storages import SftpStorage\n"
            "from stages.storages.sftp import Sftp\n"
            "values = dict(zip(('port', 'user', 'password', 'host_key', 'path'), sys.argv[1:]))\n"
            "storage = Sftp(SftpStorage(type='sftp', host='127.0.0.1', **values))\n"
            "storage.list('')\n"  # Everything is imported now, which another user may not read.
            "storage.close()\n"
            "os.getuid() or os.setuid(20001)\n"
            "storage.probe()\n"
            "storage.close()\n"
        )
        values = [str(server.port), USER, PASSWORD, server.host_key, str(server.data / "nameless")]
        env = {name: value for name, value in os.environ.items() if "NAME" not in name}
        env.pop("USER", None)
        subprocess.run([sys.executable, "-c", code, *values], check=True, env=env)


class TestTrust:
    def test_known_hosts(self, server: Sshd, storage_on: MakeStorage) -> None:
        known = server.known_hosts()
        assert works(storage_on(server, host_key=None, known_hosts=str(known)))
        subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(known)], check=True)
        assert HOST not in known.read_text()
        assert works(storage_on(server, host_key=None, known_hosts=str(known)))

    def test_default_known_hosts(
        self, server: Sshd, storage_on: MakeStorage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        home = server.client_dir / "trusting-home"
        (home / ".ssh").mkdir(parents=True)
        shutil.copy(server.known_hosts(), home / ".ssh")
        monkeypatch.setenv("HOME", str(home))
        assert works(storage_on(server, host_key=None))

    def test_unknown_host_key(
        self, server: Sshd, storage_on: MakeStorage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HOME", str(server.client_dir / "no-home"))
        advice = f"ssh-keyscan -p {server.port} {HOST} >> ~/.ssh/known_hosts"
        with pytest.raises(StorageRefused, match=r"is not known; it shows SHA256:") as caught:
            storage_on(server, host_key=None).list("")
        assert advice in str(caught.value)

    def test_the_advice_for_an_unknown_host_key_works(
        self, server: Sshd, storage_on: MakeStorage
    ) -> None:
        known = server.client_dir / "scanned"
        with open(known, "wb") as file:
            scan = ["ssh-keyscan", "-p", str(server.port), HOST]
            subprocess.run(scan, check=True, stdout=file, stderr=subprocess.DEVNULL)
        assert works(storage_on(server, host_key=None, known_hosts=str(known)))

    def test_changed_host_key(self, storage_on: MakeStorage) -> None:
        with Sshd() as server:
            known = server.known_hosts()
            storage = storage_on(server, host_key=None, known_hosts=str(known))
            pinned = storage_on(server)
            assert works(storage)
            storage.close()
            server.kill()
            server.replace_host_key()
            server.start()
            for refused in (storage, pinned):
                with pytest.raises(StorageRefused, match="has changed; it shows SHA256:"):
                    refused.list("")
            assert works(storage_on(server))

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"host_key": "ssh-ed25519 nonsense"}, "not an SSH public key"),
            ({"host_key": None, "known_hosts": "/no/such/file"}, "known_hosts .* cannot be read"),
            ({"host_key": None, "known_hosts": "~/known_hosts"}, '"~" is not expanded here'),
            ({"host_key": None, "known_hosts": "/dev/null"}, "is not known"),
        ],
    )
    def test_no_trust(
        self, server: Sshd, storage_on: MakeStorage, changes: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(StorageRefused, match=message):
            storage_on(server, **changes).list("")

    def test_unchecked_host_key_is_warned_about(
        self, server: Sshd, storage_on: MakeStorage
    ) -> None:
        unchecked = storage_on(server, host_key=None, host_key_check=False)
        assert any("warning: the host key is not checked" in fact for fact in unchecked.probe())
        assert not any("warning" in fact for fact in storage_on(server).probe())


class TestConnection:
    def test_refused(self, server: Sshd, storage_on: MakeStorage) -> None:
        with pytest.raises(StorageUnavailable, match="cannot be reached"):
            storage_on(server, port=free_port()).list("")

    def test_silent_server(self, server: Sshd, storage_on: MakeStorage) -> None:
        with socket.create_server((HOST, 0)) as silent:
            storage = storage_on(server, port=silent.getsockname()[1], connect_timeout="300ms")
            with pytest.raises(StorageUnavailable, match=r"did not answer within 0\.3 s"):
                storage.list("")

    def test_not_an_ssh_server(self, server: Sshd, storage_on: MakeStorage) -> None:
        with socket.create_server((HOST, 0)) as other:

            def answer() -> None:
                connection, _ = other.accept()
                with connection, suppress(ConnectionError):
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n" * 5000)

            thread = threading.Thread(target=answer)
            thread.start()
            with pytest.raises(StorageRefused, match="does not speak SSH"):
                storage_on(server, port=other.getsockname()[1]).list("")
            thread.join()

    def test_no_sftp(self, storage_on: MakeStorage) -> None:
        with (
            Sshd(subsystem=False) as server,
            pytest.raises(StorageRefused, match="offers no SFTP"),
        ):
            storage_on(server).list("")

    def test_few_sessions_for_each_connection(self, storage_on: MakeStorage) -> None:
        with Sshd(max_sessions=1) as server:
            storage = storage_on(server)
            writers = [storage.create(f"a/{number}", TOKEN) for number in range(3)]
            for writer in writers:
                writer.write(b"content")
                writer.commit()
            assert len(storage.list("a")) == 3

    def test_a_connection_that_died_unused_is_replaced(
        self, server: Sshd, storage_on: MakeStorage
    ) -> None:
        with Proxy(server.port) as proxy:
            storage = storage_on(server, port=proxy.port)
            assert works(storage)
            proxy.cut()
            assert works(storage)

    def test_nothing_is_started_or_written_by_the_import(self, tmp_path: Path) -> None:
        trace = tmp_path / "trace"
        strace = ["strace", "-f", "-e", "trace=execve,openat,creat", "-o", str(trace)]
        code = [sys.executable, "-B", "-c", "import stages.storages.sftp"]
        subprocess.run(strace + code, check=True)
        calls = trace.read_text()
        assert calls.count("execve(") == 1
        assert "O_CREAT" not in calls
        assert "creat(" not in calls


class TestFailure:
    def test_server_killed_during_an_upload(self, storage_on: MakeStorage) -> None:
        with Sshd() as server:
            storage = storage_on(server)
            error = write_until_error(storage, server.kill)
            assert isinstance(error, StorageUnavailable)
            assert "lost the connection" in str(error)
            server.start()
            assert len(storage.unfinished("")) == 1
            storage.sweep(storage.unfinished(""))
            assert works(storage)

    def test_server_frozen_during_an_upload(self, storage_on: MakeStorage) -> None:
        with Sshd() as server:
            storage = storage_on(server, QUICK)
            error = write_until_error(storage, server.freeze)
            assert isinstance(error, StorageUnavailable)
            assert "not responding to keepalive" in str(error)
            server.thaw()
            storage.sweep(storage.unfinished(""))
            assert works(storage)

    def test_server_frozen_during_a_download(self, storage_on: MakeStorage) -> None:
        with Sshd() as server:
            storage = storage_on(server, QUICK)
            put(storage, NAME, [bytes(CHUNK)] * 40)
            chunks = storage.open(NAME)
            next(chunks)
            server.freeze()
            with pytest.raises(StorageUnavailable, match="not responding to keepalive"):
                list(chunks)

    def test_frozen_server_and_a_full_window_do_not_block_abort(
        self, server: Sshd, storage_on: MakeStorage
    ) -> None:
        with Proxy(server.port) as proxy:
            storage = storage_on(server, port=proxy.port)
            writer = storage.create(NAME, TOKEN)
            proxy.freeze()
            ends: list[type[BaseException]] = []

            def write() -> None:
                try:
                    writer.write(bytes(40 * CHUNK))
                except Aborted as end:
                    ends.append(type(end))

            thread = threading.Thread(target=write)
            thread.start()
            while writer._has_room():  # type: ignore[attr-defined]
                pass
            aborting = threading.Thread(target=writer.abort)
            aborting.start()
            thread.join()
            assert ends == [Aborted]
            proxy.thaw()  # Now the removal gets through.
            aborting.join()
            assert everything(storage) == []

    def test_cut_connection_leaves_nothing_when_the_server_can_be_reached_again(
        self, server: Sshd, storage_on: MakeStorage
    ) -> None:
        with Proxy(server.port) as proxy:
            storage = storage_on(server, port=proxy.port)
            error = write_until_error(storage, proxy.cut)
            assert isinstance(error, StorageUnavailable)
            assert everything(storage) == []

    def test_cut_connection_during_a_download(self, server: Sshd, storage_on: MakeStorage) -> None:
        with Proxy(server.port) as proxy:
            storage = storage_on(server, port=proxy.port)
            put(storage, NAME, [bytes(CHUNK)] * 40)
            chunks = storage.open(NAME)
            next(chunks)
            proxy.cut()
            with pytest.raises(StorageUnavailable):
                list(chunks)
            storage.delete([NAME])

    def test_a_rename_whose_answer_was_lost_is_looked_up(
        self, server: Sshd, storage_on: MakeStorage
    ) -> None:
        with Proxy(server.port) as proxy:
            storage = storage_on(server, port=proxy.port)
            writer: Any = storage.create(NAME, TOKEN)
            writer.write(b"content")
            writer.flush()
            proxy.mute()
            renaming = writer._link.submit(writer._rename())
            while not (server.data / "backups" / NAME).exists():
                assert not renaming.done()
            proxy.cut()
            proxy.thaw()
            renaming.result()
            assert read(storage, NAME) == b"content"
            storage.delete([NAME])
            writer.abort()

    def test_close_ends_what_is_under_way(self, server: Sshd, storage_on: MakeStorage) -> None:
        storage = storage_on(server)
        writer = storage.create(NAME, TOKEN)
        storage.close()
        with pytest.raises(StorageUnavailable, match="closed"):
            write_forever(writer)
        writer.abort()
        storage.sweep(storage.unfinished(""))

    def test_truncated_object(self, server: Sshd, storage_on: MakeStorage) -> None:
        storage = storage_on(server)
        put(storage, NAME, [bytes(CHUNK)] * 40)
        chunks = storage.open(NAME)
        next(chunks)
        os.truncate(server.data / "backups" / NAME, 20 * CHUNK)
        with pytest.raises(StorageRefused, match="ended early"):
            list(chunks)
        storage.delete([NAME])

    def test_disk_full(self, storage_on: MakeStorage) -> None:
        with _small_server() as (server, reason):
            storage = storage_on(server)
            error = write_until_error(storage, lambda: None)
            assert isinstance(error, StorageRefused)
            assert reason in str(error)
            assert everything(storage) == []
            assert works(storage)

    def test_file_size_limit(self, storage_on: MakeStorage) -> None:
        with Sshd(fsize=8 * CHUNK) as server:
            storage = storage_on(server)
            error = write_until_error(storage, lambda: None)
            assert isinstance(error, StorageRefused)
            assert "it does not say why" in str(error)
            assert everything(storage) == []

    def test_directory_that_cannot_be_written(self, server: Sshd, storage_on: MakeStorage) -> None:
        closed = server.data / "closed"
        closed.mkdir()
        closed.chmod(0o555)
        if IS_ROOT:
            os.chown(closed, UID, GID)
        for path in (closed, closed / "below"):
            storage = storage_on(server, path=str(path))
            with pytest.raises(StorageRefused, match="did not permit to write"):
                storage.create(NAME, TOKEN)
            with pytest.raises(StorageRefused):
                storage.probe()

    def test_files_are_private(self, server: Sshd, storage_on: MakeStorage) -> None:
        put(storage_on(server), NAME, [b"content"], OTHER_TOKEN)
        path = server.data / "backups" / NAME
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.parent.stat().st_mode & 0o007 == 0


@contextmanager
def _small_server() -> Iterator[tuple[Sshd, str]]:
    """A server that takes 16 MiB, and why it says so: a small disk where we may mount one."""
    server = Sshd()
    options = f"size=16m,uid={UID},gid={GID},mode=755"
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(server.data)]
    if not IS_ROOT or subprocess.run(mount, stderr=subprocess.DEVNULL).returncode:
        server.fsize = 16 * CHUNK
        with server:
            yield server, "it does not say why"
        return
    try:
        server.start()
        yield server, "no space left on the server"
        server.kill()
    finally:
        subprocess.run(["umount", str(server.data)], check=True)
        server.stop()
