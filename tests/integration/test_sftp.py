"""SFTP against a real OpenSSH server: who may log in, and which server is trusted."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
from typing import Any

import pytest

from pipeline.errors import StorageRefused
from tests.contracts.storage_subject import NAME, TOKEN
from tests.integration.sftp_storage import MakeStorage, SftpTests, works
from tests.servers.base import HOST
from tests.servers.sshd import PASSPHRASE, PASSWORD, USER, Sshd, make_key


class TestLogin(SftpTests):
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


class TestTrust(SftpTests):
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
