"""A stream of random bytes to a real server of each storage and back, against the tools in use.

Ours is the storage alone, in a process that gets the stream from a pipe (`bench/push.py`), or
drops what it reads (`bench/pull.py`): nobody else computes checksums on the way. `WHOLE=1` takes
the whole program instead, with two of them and a manifest. Rivals get the same stream where they
can take one, else the file. Where `READERS` has rivals for it, the way back is compared too.
Servers and data are in memory where there is some, so that protocols are compared and not disks.
What it takes to start and to log in, for an object of one byte, is part of the time and shown
beside it: with `MIB=4096` it counts less. `STORAGES="s3 nfs"` chooses, `MIB` is the size.
"""

from __future__ import annotations

import functools
import json
import os
import secrets
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench.measure import ARCHIVE, BUILD, ROOT, Comparison, Cost, compare, cost, show
from tests.servers import places
from tests.servers.base import HOST
from tests.servers.places import Place
from tests.servers.sshd import USER as SSH_USER

MIB = int(os.environ.get("MIB", "1024"))
_MEMORY = Path("/dev/shm")
_OBJECT, _BYTE = "large-object", "one-byte"
"""Names of what is read."""


@dataclass(frozen=True)
class Rival:
    """A command that takes the stream, `{file}` being the same as a file, `{name}` a fresh name."""

    name: str
    line: str
    env: Mapping[str, str] = field(default_factory=dict)


def main() -> None:
    """Print the comparisons: each storage with each rival that is installed."""
    BUILD.mkdir(parents=True, exist_ok=True)
    if _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free > (3 * MIB) << 20:
        tempfile.tempdir = str(_MEMORY)  # Servers keep their data below it.
    wanted = os.environ.get("STORAGES", "").split() or list(places.MAKERS)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "random")
        with open(source, "wb") as file:
            for _ in range(MIB):
                file.write(os.urandom(1 << 20))
        for name in wanted:
            with ExitStack() as stack:
                place = places.MAKERS[name](stack, Path(folder))
                if place is None:
                    print(f"{name}: no server can be run here")
                else:
                    _compare(name, place, Path(folder), source)
                    _compare_reading(name, place, source)


def _compare(name: str, place: Place, folder: Path, source: Path) -> None:
    place.data.mkdir(exist_ok=True)
    if place.server is not None:
        place.server.own()
    byte = folder / "byte"
    byte.write_bytes(b"x")
    best = _Best(name)
    for rival in _installed(name, RIVALS[name](place)):
        ours, theirs = _ours(place, folder, source), functools.partial(_theirs, rival, source)
        emptied = functools.partial(_emptied, place)
        found = compare(functools.partial(emptied, ours), functools.partial(emptied, theirs))
        _show(name, rival, found)
        one = functools.partial(_theirs, rival, byte)
        best.take(rival, found, _emptied(place, _ours(place, folder, byte)), _emptied(place, one))
    best.show()


def _compare_reading(name: str, place: Place, source: Path) -> None:
    if name not in READERS:
        return
    shutil.copy(source, place.data / _OBJECT)
    (place.data / _BYTE).write_bytes(b"x")
    if place.server is not None:
        place.server.own()

    def ours(what: str) -> Cost:
        return cost([sys.executable, "-m", "bench.pull", json.dumps(place.keys), what], ROOT)

    best = _Best(f"{name}, read")
    for rival in _installed(name, READERS[name](place)):
        theirs = functools.partial(_theirs, rival, None)
        found = compare(lambda: ours(_OBJECT), theirs)
        _show(best.name, rival, found)
        short = replace(rival, line=rival.line.replace(_OBJECT, _BYTE))
        best.take(rival, found, ours(_BYTE), _theirs(short, None))
    best.show()


class _Best:
    """The quickest rival of a storage, and how we do next to it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._lines: list[tuple[float, str]] = []

    def take(self, rival: Rival, found: Comparison, ours: Cost, theirs: Cost) -> None:
        """Take a rival; `ours` and `theirs` are for an object of one byte."""
        line = (
            f"{self.name}: {1 / found.wall_ratio:.2f}x the throughput of the best, {rival.name} "
            f"(starting took us {ours.wall:.2f} s of it, them {theirs.wall:.2f} s)"
        )
        self._lines.append((found.rival.wall, line))

    def show(self) -> None:
        if self._lines:
            print(min(self._lines)[1], flush=True)


def _installed(name: str, rivals: list[Rival]) -> list[Rival]:
    found = [rival for rival in rivals if shutil.which(rival.line.split()[0])]
    if not found:
        print(f"{name}: none of its rivals is installed")
    return found


def _show(name: str, rival: Rival, found: Comparison) -> None:
    title = f"{name}: {MIB} MiB, {MIB / found.ours.wall:.0f} MiB/s"
    show(title, f"{rival.name}, {MIB / found.rival.wall:.0f} MiB/s", found, "1.0 of the best")


def _emptied(place: Place, action: Callable[[], Cost]) -> Cost:
    found = action()
    for entry in place.data.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    return found


def _ours(place: Place, folder: Path, source: Path) -> Callable[[], Cost]:
    if os.environ.get("WHOLE"):
        command = [sys.executable, str(ARCHIVE), "run", "-qq", str(_configure(place, folder))]
    else:
        command = [sys.executable, "-m", "bench.push", json.dumps(place.keys), "{name}"]
    line = f"cat {source} | {shlex.join(command)}"
    return lambda: cost(["sh", "-c", _named(line)], ROOT)


def _configure(place: Place, folder: Path) -> Path:
    backup = {
        "source": {"type": "stdin"},
        "stages": [],
        "fan_out": [{"storage": "there", "rotate": {"last": 1}}],
    }
    path = folder / "pipeline.yaml"
    document = {"name": "bench", "storages": {"there": place.keys}, "backups": {"object": backup}}
    path.write_text(json.dumps(document))
    path.chmod(0o600)
    return path


def _theirs(rival: Rival, source: Path | None) -> Cost:
    line = _named(rival.line)
    if source is not None:
        piped = f"cat {source} | {line}"
        line = line.replace("{file}", str(source)) if "{file}" in line else piped
    return cost(["sh", "-c", line], BUILD, dict(rival.env), quiet=True)


def _named(line: str) -> str:
    """With a name that no server has in a cache, as those are emptied behind its back."""
    return line.replace("{name}", f"object-{secrets.token_hex(4)}")


def _rclone(kind: str, target: str, verb: str = "rcat", **options: object) -> Rival:
    """`rclone rcat` or another verb, configured by the environment."""
    env = {f"RCLONE_CONFIG_THERE_{key.upper()}": str(value) for key, value in options.items()}
    return Rival(
        f"rclone {verb}",
        f"rclone --config /dev/null {verb} there:{target}",
        # With a bundle of certificates it would refuse to speak http to S3.
        {"RCLONE_CONFIG_THERE_TYPE": kind, "AWS_CA_BUNDLE": "", **env},
    )


def _obscured(secret: str) -> str:
    """A password as rclone wants it; empty where there is no rclone."""
    if not shutil.which("rclone"):
        return ""
    command = ["rclone", "obscure", "-"]
    done = subprocess.run(command, input=secret.encode(), stdout=subprocess.PIPE, check=True)
    return done.stdout.decode().strip()


def _local(place: Place) -> list[Rival]:
    target = place.data / "{name}"
    return [
        Rival("cat > file; sync", f"dd of={target} bs=1M iflag=fullblock conv=fsync"),
        _rclone("local", str(target)),
    ]


def _local_read(place: Place) -> list[Rival]:
    target = place.data / _OBJECT
    return [Rival("cat", f"cat {target}"), _rclone("local", str(target), "cat")]


def _sftp(place: Place) -> list[Rival]:
    target = f"{place.data}/{{name}}"
    login = f"{_ssh_options(place)} {SSH_USER}@{HOST}"
    return [
        *_ciphers("sftp put", f"sftp -q -b - {login} <<E\nput {{file}} {target}\nE"),
        *_ciphers("ssh cat", f"ssh -q {login} 'cat > {target}'"),
        _rclone("sftp", target, **_rclone_login(place)),
    ]


def _sftp_read(place: Place) -> list[Rival]:
    target = f"{place.data}/{_OBJECT}"
    copy = place.server.client_dir / "copy"  # It insists on a file.
    login = f"{_ssh_options(place)} {SSH_USER}@{HOST}"
    return [
        *_ciphers("sftp get", f"sftp -q -b - {login} <<E\nget {target} {copy}\nE"),
        *_ciphers("ssh cat", f"ssh -q -n {login} 'cat {target}'"),
        _rclone("sftp", target, "cat", **_rclone_login(place)),
    ]


def _ciphers(name: str, line: str) -> list[Rival]:
    """As it comes, and with the cipher that is the fastest where AES is in hardware."""
    program, _, rest = line.partition(" ")
    fast = f"{program} -c aes128-gcm@openssh.com {rest}"
    return [Rival(name, line), Rival(f"{name}, aes128-gcm", fast)]


def _ssh_options(place: Place) -> str:
    check = "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"
    return f"-i {place.server.key} -o Port={place.server.port} {check}"


def _rclone_login(place: Place) -> dict[str, object]:
    server = place.server
    return {"host": HOST, "port": server.port, "user": SSH_USER, "key_file": server.key}


def _ftp(place: Place) -> list[Rival]:
    return [
        Rival("curl -T -", f"{_curl_of(place)} -T - {_ftp_url(place)}/{{name}}"),
        _rclone_ftp(place, "{name}", "rcat"),
    ]


def _ftp_read(place: Place) -> list[Rival]:
    return [
        Rival("curl", f"{_curl_of(place)} {_ftp_url(place)}/{_OBJECT}"),
        _rclone_ftp(place, _OBJECT, "cat"),
    ]


def _ftp_url(place: Place) -> str:
    keys = place.keys
    return f"ftp://{keys['host']}:{keys['port']}/{keys['path']}"


def _curl_of(place: Place) -> str:
    keys = place.keys
    user = shlex.quote(f"{keys['user']}:{keys['password']}")
    return f"curl -sS --ssl-reqd --cacert {keys['tls']['ca']} --user {user}"


def _rclone_ftp(place: Place, name: str, verb: str) -> Rival:
    keys = place.keys
    return _rclone(
        "ftp",
        f"{keys['path']}/{name}",
        verb,
        explicit_tls="true",
        no_check_certificate="true",
        host=keys["host"],
        port=keys["port"],
        user=keys["user"],
        **{"pass": _obscured(keys["password"])},
    )


def _s3(place: Place) -> list[Rival]:
    there = f"s3://{place.keys['bucket']}/{{name}}"
    return [
        Rival("aws s3 cp -", f"{_aws_of(place)} - {there}", _aws_environment(place)),
        _rclone_s3(place, "{name}", "rcat"),
    ]


def _s3_read(place: Place) -> list[Rival]:
    there = f"s3://{place.keys['bucket']}/{_OBJECT}"
    return [
        Rival("aws s3 cp -", f"{_aws_of(place)} {there} -", _aws_environment(place)),
        _rclone_s3(place, _OBJECT, "cat"),
    ]


def _aws_of(place: Place) -> str:
    return f"aws s3 cp --quiet --endpoint-url {place.keys['endpoint']}"


def _aws_environment(place: Place) -> dict[str, str]:
    return {
        "AWS_ACCESS_KEY_ID": place.keys["access_key"],
        "AWS_SECRET_ACCESS_KEY": place.keys["secret_key"],
        "AWS_DEFAULT_REGION": "us-east-1",
    }


def _rclone_s3(place: Place, name: str, verb: str) -> Rival:
    keys = place.keys
    return _rclone(
        "s3",
        f"{keys['bucket']}/{name}",
        verb,
        provider="Other",
        endpoint=keys["endpoint"],
        access_key_id=keys["access_key"],
        secret_access_key=keys["secret_key"],
    )


def _nfs(place: Place) -> list[Rival]:
    return [Rival("nfs-cp (libnfs)", f"nfs-cp {{file}} '{_nfs_url(place, '{name}')}'")]


def _nfs_read(place: Place) -> list[Rival]:
    return [Rival("nfs-cat (libnfs)", f"nfs-cat '{_nfs_url(place, _OBJECT)}'")]


def _nfs_url(place: Place, name: str) -> str:
    keys = place.keys
    ports = f"nfsport={keys['nfs_port']}&mountport={keys['mount_port']}"
    return (
        f"nfs://{keys['host']}{keys['export']}/backups/{name}?version=3&{ports}"
        f"&uid={keys['uid']}&gid={keys['gid']}"
    )


def _smb(place: Place) -> list[Rival]:
    keys = place.keys
    login = f"-U {shlex.quote(keys['user'] + '%' + keys['password'])} -p {keys['port']}"
    share = f"//{keys['host']}/{keys['share']} -D {keys['path']} -s /dev/null"
    put = f"smbclient {share} {login}"
    return [
        Rival("smbclient put -", f"{put} -c 'put - {{name}}'"),
        Rival("smbclient put - (signed)", f"{put} --client-protection=sign -c 'put - {{name}}'"),
        _rclone(
            "smb",
            f"{keys['share']}/{keys['path']}/{{name}}",
            host=keys["host"],
            port=keys["port"],
            user=keys["user"],
            **{"pass": _obscured(keys["password"])},
        ),
    ]


def _webdav(place: Place) -> list[Rival]:
    keys = place.keys
    login = shlex.quote(f"{keys['user']}:{keys['password']}")
    return [
        Rival("curl -T -", f"curl -sSf -T - --user {login} {keys['url']}/{{name}}"),
        Rival("curl -T file", f"curl -sSf -T {{file}} --user {login} {keys['url']}/{{name}}"),
        _rclone(
            "webdav",
            "{name}",
            url=keys["url"],
            vendor="other",
            user=keys["user"],
            **{"pass": _obscured(keys["password"])},
        ),
    ]


RIVALS: dict[str, Callable[[Place], list[Rival]]] = {
    "local": _local,
    "sftp": _sftp,
    "fsspec": _sftp,
    "ftp": _ftp,
    "s3": _s3,
    "nfs": _nfs,
    "smb": _smb,
    "webdav": _webdav,
}
READERS: dict[str, Callable[[Place], list[Rival]]] = {
    "local": _local_read,
    "sftp": _sftp_read,
    "fsspec": _sftp_read,
    "ftp": _ftp_read,
    "s3": _s3_read,
    "nfs": _nfs_read,
}
