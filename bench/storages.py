"""A stream of random bytes to a real server of each storage, against the tools people would use.

Ours is the storage alone, in a process that gets the stream from a pipe (`bench/push.py`): nobody
else computes checksums on the way. `WHOLE=1` takes the whole program instead, with two of them and
a manifest. Rivals get the same stream where they can take one, else the file. Servers and data are
in memory where there is some, so that protocols are compared and not disks. `STORAGES="s3 nfs"`
chooses, `MIB` is the size.
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
from dataclasses import dataclass, field
from pathlib import Path

from bench.measure import ARCHIVE, BUILD, ROOT, Cost, compare, cost, show
from tests.servers import places
from tests.servers.places import Place

MIB = int(os.environ.get("MIB", "1024"))
_MEMORY = Path("/dev/shm")


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


def _compare(name: str, place: Place, folder: Path, source: Path) -> None:
    place.data.mkdir(exist_ok=True)
    if place.server is not None:
        place.server.own()
    ours = _ours(place, folder, source)
    rivals = [rival for rival in RIVALS[name](place) if shutil.which(rival.line.split()[0])]
    if not rivals:
        print(f"{name}: none of its rivals is installed")
    for rival in rivals:
        theirs = functools.partial(_theirs, rival, source)
        found = compare(lambda: _emptied(place, ours), functools.partial(_emptied, place, theirs))
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


def _theirs(rival: Rival, source: Path) -> Cost:
    line = _named(rival.line).replace("{file}", str(source))
    piped = line if "{file}" in rival.line else f"cat {source} | {line}"
    return cost(["sh", "-c", piped], BUILD, dict(rival.env), quiet=True)


def _named(line: str) -> str:
    """With a name that no server has in a cache, as those are emptied behind its back."""
    return line.replace("{name}", f"object-{secrets.token_hex(4)}")


def _rclone(kind: str, target: str, **options: object) -> Rival:
    """`rclone rcat`, configured by the environment."""
    env = {f"RCLONE_CONFIG_THERE_{key.upper()}": str(value) for key, value in options.items()}
    return Rival(
        "rclone rcat",
        f"rclone --config /dev/null rcat there:{target}",
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


def _sftp(place: Place) -> list[Rival]:
    keys = place.keys
    target = f"{keys['path']}/{{name}}"
    options = (
        f"-i {keys['key_file']} -P {keys['port']} -o StrictHostKeyChecking=no "
        f"-o UserKnownHostsFile=/dev/null {keys['user']}@{keys['host']}"
    )
    gcm = "-c aes128-gcm@openssh.com"
    login = {"host": keys["host"], "port": keys["port"], "user": keys["user"]}
    return [
        Rival("sftp put", f"sftp -q -b - {options} <<E\nput {{file}} {target}\nE"),
        Rival(
            "sftp put, aes128-gcm", f"sftp -q -b - {gcm} {options} <<E\nput {{file}} {target}\nE"
        ),
        _rclone("sftp", target, key_file=keys["key_file"], **login),
    ]


def _ftp(place: Place) -> list[Rival]:
    keys = place.keys
    login = {"host": keys["host"], "port": keys["port"], "user": keys["user"]}
    url = f"ftp://{keys['host']}:{keys['port']}/{keys['path']}/{{name}}"
    return [
        Rival(
            "curl -T -",
            f"curl -sS -T - --ssl-reqd --cacert {keys['tls']['ca']} "
            f"--user {shlex.quote(keys['user'] + ':' + keys['password'])} {url}",
        ),
        _rclone(
            "ftp",
            f"{keys['path']}/{{name}}",
            explicit_tls="true",
            no_check_certificate="true",
            **{"pass": _obscured(keys["password"])},
            **login,
        ),
    ]


def _s3(place: Place) -> list[Rival]:
    keys = place.keys
    env = {
        "AWS_ACCESS_KEY_ID": keys["access_key"],
        "AWS_SECRET_ACCESS_KEY": keys["secret_key"],
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    return [
        Rival(
            "aws s3 cp -",
            f"aws s3 cp --quiet --endpoint-url {keys['endpoint']} - s3://{keys['bucket']}/{{name}}",
            env,
        ),
        _rclone(
            "s3",
            f"{keys['bucket']}/{{name}}",
            provider="Other",
            endpoint=keys["endpoint"],
            access_key_id=keys["access_key"],
            secret_access_key=keys["secret_key"],
        ),
    ]


def _nfs(place: Place) -> list[Rival]:
    keys = place.keys
    url = (
        f"nfs://{keys['host']}{keys['export']}/backups/{{name}}?version=3&nfsport={keys['nfs_port']}"
        f"&mountport={keys['mount_port']}&uid={keys['uid']}&gid={keys['gid']}"
    )
    return [Rival("nfs-cp (libnfs)", f"nfs-cp {{file}} '{url}'")]


RIVALS: dict[str, Callable[[Place], list[Rival]]] = {
    "local": _local,
    "sftp": _sftp,
    "ftp": _ftp,
    "s3": _s3,
    "nfs": _nfs,
}
