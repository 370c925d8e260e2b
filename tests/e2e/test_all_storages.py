"""One read, every storage at once, from the built archive: the same bytes everywhere, and back."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests import tree
from tests.e2e.program import Program
from tests.servers import nfs, s3
from tests.servers.base import GID, HOST, UID
from tests.servers.ftp import PASSWORD as FTP_PASSWORD
from tests.servers.ftp import USER as FTP_USER
from tests.servers.ftp import Ftpd
from tests.servers.sshd import USER, Sshd

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


@pytest.fixture
def storages(sshd: Sshd, tmp_path: Path) -> Iterator[dict[str, str]]:
    """The configuration of each storage that can be served here, in flow style."""
    with ExitStack() as stack:
        ftpd = stack.enter_context(Ftpd())
        found = {
            "local": f"path: {tmp_path}/disk",
            "sftp": f"host: {HOST}, port: {sshd.port}, user: {USER}, key_file: {sshd.key}, "
            f"host_key: {sshd.host_key}, path: {sshd.data / tmp_path.name}",
            "ftp": f"host: {HOST}, port: {ftpd.port}, user: {FTP_USER}, "
            f"password: {FTP_PASSWORD}, path: {ftpd.data}/backups, tls: {{ca: {ftpd.ca}}}",
        }
        if s3.can_run():
            server = stack.enter_context(s3.Versitygw())
            found["s3"] = (
                f"bucket: {s3.BUCKET}, endpoint: '{server.endpoint}', "
                f"access_key: {s3.ACCESS_KEY}, secret_key: {s3.SECRET_KEY}, part_size: 5MiB"
            )
        if nfs.can_run():
            ganesha = stack.enter_context(nfs.Ganesha())
            found["nfs"] = (
                f"host: {HOST}, export: {ganesha.export}, path: backups, uid: {UID}, gid: {GID}, "
                f"nfs_port: {ganesha.port}, mount_port: {ganesha.mount_port}"
            )
        yield found


def configure(program: Program, storages: dict[str, str]) -> Path:
    (program.folder / "key.pub").write_text(program.ok("keygen", "key.txt"))
    declared = "".join(f"  {name}: {{type: {name}, {keys}}}\n" for name, keys in storages.items())
    fan_out = "".join(f"      - {{storage: {name}, rotate: {{last: 1}}}}\n" for name in storages)
    path = program.configure(
        f"name: shop\nstorages:\n{declared}"
        "backups:\n  site:\n    source: {type: files, paths: ['{here}/source']}\n"
        "    stages: [{type: zstd}, {type: age, recipients_file: '{here}/key.pub'}]\n"
        f"    fan_out:\n{fan_out}"
    )
    assert "storages" in path.read_text()
    return path


def test_one_read_gives_every_storage_the_same_object(
    program: Program, storages: dict[str, str]
) -> None:
    source = program.folder / "source"
    tree.mixed(source, 400)
    with open(source / "large", "wb") as large, open("/dev/urandom", "rb") as random:
        for _ in range(24):
            large.write(random.read(1 << 20))
    config = configure(program, storages)
    probed = program.ok("check", config, "--connect")
    assert probed.count("ok      storage") == len(storages)

    for _ in range(2):
        report = program.json("run", config)
        assert report["outcome"] == "ok", report
    listed = program.json("list", config)["backups"]
    assert sorted(entry["storage"] for entry in listed) == sorted(storages), "rotation"
    assert len({entry["manifest"]["stored_sha256"] for entry in listed}) == 1
    assert len({entry["path"] for entry in listed}) == 1

    proofs = program.json("verify", config, "--identity", "key.txt")["verified"]
    assert [proof["outcome"] for proof in proofs] == ["proved"] * len(storages)
    for name in storages:
        back = program.folder / "back"
        program.ok(
            *("restore", config, "--backup", "site", "--storage", name),
            *("--to", back, "--identity", "key.txt"),
        )
        assert tree.differences(source, back / str(source)[1:]) == []
        shutil.rmtree(back)
