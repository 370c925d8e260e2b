"""Storages: v3 gives the path with the job, we with the storage: each pair becomes one of ours."""

from __future__ import annotations

import posixpath
from collections.abc import Callable
from typing import Any

from pipeline.convert.notes import Notes, free_name, plain_name
from schemas.problems import Path
from schemas.v3.model import (
    ENV,
    Config,
    FtpParams,
    NfsParams,
    S3Params,
    SftpParams,
    SmbParams,
    StorageConnect,
    WebdavParams,
)

Block = dict[str, Any]
Places = dict[tuple[str, str], str]
"""Name of our storage for each name and path of v3."""


def convert_storages(config: Config, notes: Notes) -> tuple[dict[str, Block], Places]:
    """Our `storages`, and which of them stands for what."""
    places = _places(config)
    connects = {each.name: (number, each) for number, each in enumerate(config.storage_connects)}
    blocks: dict[str, Block] = {}
    for (name, path), ours in places.items():
        if name == "local":
            blocks[ours] = {"type": "local", "path": notes.text((), path)}
            continue
        number, connect = connects[name]
        key: Path = ("storage_connects", number, f"{connect.kind}_params")
        block = _KINDS[connect.kind](connect, key, path, ours, notes)
        same = next(
            (known for known, other in blocks.items() if _place(other) == _place(block)), ""
        )
        if same:
            places[name, path] = same
            notes.danger(key, f'is the same place as "{same}": v3 would write there twice')
            notes.comments.pop(("storages", ours), None)
            continue
        notes.comments.setdefault(("storages", ours), [])[:0] = [f"storage {name} of v3 at {path}"]
        blocks[ours] = block
    for name, (number, _) in connects.items():
        if not any(used == name for used, _ in places):
            notes.dropped(("storage_connects", number, "name"), "no job uses this storage")
    return blocks, places


def _place(block: Block) -> Block:
    """Where a storage is, whoever logs in there."""
    logins = ("user", "password", "key_file", "token", "access_key", "secret_key")
    return {key: value for key, value in block.items() if key not in logins}


def _places(config: Config) -> Places:
    """In the order of the jobs; the first path of a storage gets its plain name."""
    pairs: dict[tuple[str, str], None] = {}
    for job in config.jobs:
        for options in job.storages_options:
            pairs[options.storage_name, _clean(options.backup_path)] = None
    places: Places = {}
    for name, path in pairs:
        plain = plain_name(name, "storage")
        paths = [each for used, each in pairs if used == name]
        if len(paths) > 1:
            plain = plain_name(f"{plain}-{posixpath.basename(path)}", plain)
        places[name, path] = free_name(plain, places.values())
    return places


def _clean(path: str) -> str:
    return posixpath.normpath(path) if path else ""


def place_of(places: Places, name: str, path: str) -> str:
    """The name of our storage."""
    return places[name, _clean(path)]


def _s3(connect: StorageConnect, key: Path, path: str, ours: str, notes: Notes) -> Block:
    assert connect.s3_params is not None
    params: S3Params = connect.s3_params
    endpoint = params.endpoint
    block: Block = {"type": "s3", "bucket": notes.text((*key, "bucket_name"), params.bucket_name)}
    block["path"] = notes.text((), path.strip("/").removeprefix("."))
    is_virtual = endpoint.startswith(f"{params.bucket_name}.")
    endpoint = endpoint.removeprefix(f"{params.bucket_name}.")
    if endpoint == "s3.amazonaws.com":
        notes.changed((*key, "endpoint"), "left out: Amazon's own address follows from the region")
    else:
        block["endpoint"] = f"{'https' if params.secure else 'http'}://{notes.text(key, endpoint)}"
    block["region"] = notes.text((*key, "region"), params.region)
    if is_virtual or endpoint.endswith(".amazonaws.com"):
        block["addressing"] = "virtual"
    if not params.secure:
        notes.danger((*key, "secure"), "keys of backups and the data travel in the clear")
    if params.access_key_id and params.secret_access_key:
        block["access_key"] = notes.text((*key, "access_key_id"), params.access_key_id)
        secret = (*key, "secret_access_key")
        block["secret_key"] = notes.secret(secret, params.secret_access_key, ours, "secret_key")
    else:
        notes.changed(key, "without both keys, credentials come from the environment or the role")
    if not params.batch_deletion:
        notes.dropped((*key, "batch_deletion"), "whether the service can do that is found out")
    return block


def _sftp(connect: StorageConnect, key: Path, path: str, ours: str, notes: Notes) -> Block:
    params = connect.scp_params if connect.kind == "scp" else connect.sftp_params
    assert isinstance(params, SftpParams)
    block = {"type": "sftp", **_address(params.host, params.port, "22", key, notes)}
    block["user"] = notes.text((*key, "user"), params.user)
    _password(block, params.password, key, ours, notes)
    if params.key_file:
        block["key_file"] = notes.text((*key, "key_file"), params.key_file)
    block["path"] = notes.text((), path)
    _timeout(block, params.connection_timeout)
    notes.danger(key, "the host key was not checked: anyone on the way could pose as the server")
    notes.decide(
        key,
        "the host key is checked now: add it to known_hosts (ssh-keyscan), or name it as host_key",
        ("storages", ours),
    )
    return block


def _ftp(connect: StorageConnect, key: Path, path: str, ours: str, notes: Notes) -> Block:
    assert connect.ftp_params is not None
    params: FtpParams = connect.ftp_params
    block = {"type": "ftp", **_address(params.host, params.port, "21", key, notes)}
    block["user"] = notes.text((*key, "user"), params.user or "anonymous")
    _password(block, params.password, key, ours, notes)
    block["path"] = notes.text((), path)
    _timeout(block, params.connection_timeout)
    notes.danger(key, "password and backups travelled in the clear")
    notes.decide(
        key,
        "TLS is required now; if the server cannot do that, set tls: {mode: off} knowingly",
        ("storages", ours),
    )
    if "connect_count" in params.model_fields_set:
        notes.dropped((*key, "connect_count"), "v3 did not use it either")
    return block


def _nfs(connect: StorageConnect, key: Path, path: str, ours: str, notes: Notes) -> Block:
    assert connect.nfs_params is not None
    params: NfsParams = connect.nfs_params
    block: Block = {"type": "nfs", "host": notes.text((*key, "host"), params.host)}
    export = params.target or "/"
    if not export.startswith("/"):
        export = f"/{export}"
        message = "an export is an absolute path; is this the one that the server names?"
        notes.decide((*key, "target"), message, ("storages", ours))
    block["export"] = notes.text((*key, "target"), export)
    block["path"] = notes.text((), path.strip("/").removeprefix("."))
    block["uid"] = _number(notes.text((*key, "uid"), params.uid))
    block["gid"] = _number(notes.text((*key, "gid"), params.gid))
    if params.port is not None:
        notes.dropped((*key, "port"), "v3 refuses to start with this key, which its samples have")
    return block


def _smb(connect: StorageConnect, key: Path, path: str, ours: str, notes: Notes) -> Block:
    assert connect.smb_params is not None
    params: SmbParams = connect.smb_params
    block = {"type": "smb", **_address(params.host, params.port, "445", key, notes)}
    share, _, below = params.share.strip("/\\").replace("\\", "/").partition("/")
    block["share"] = notes.text((*key, "share"), share)
    block["path"] = notes.text((), "/".join(p for p in (below, path.strip("/")) if p))
    user = notes.text((*key, "user"), params.user)
    domain = notes.text((*key, "domain"), params.domain)
    block["user"] = f"{domain}\\{user}" if domain else user
    _password(block, params.password, key, ours, notes)
    if params.user == "Guest":
        block["signing"] = False
        notes.danger(
            (*key, "user"), "a guest cannot sign messages: anyone on the way can change it"
        )
    _timeout(block, params.connection_timeout)
    return block


def _webdav(connect: StorageConnect, key: Path, path: str, ours: str, notes: Notes) -> Block:
    assert connect.webdav_params is not None
    params: WebdavParams = connect.webdav_params
    url = params.url if "://" in params.url else f"https://{params.url}"
    below = "/".join(part for part in path.split("/") if part not in ("", "."))
    block: Block = {"type": "webdav"}
    block["url"] = notes.text((*key, "url"), "/".join(p for p in (url.rstrip("/"), below) if p))
    if params.username:
        block["user"] = notes.text((*key, "username"), params.username)
        _password(block, params.password, key, ours, notes)
        if params.oauth_token:
            notes.dropped((*key, "oauth_token"), "v3 did not use it beside a username")
    elif params.oauth_token:
        token = (*key, "oauth_token")
        block["token"] = notes.secret(token, params.oauth_token, ours, "token")
        notes.changed(token, 'sent as "Bearer", as the standard has it; v3 sent it as "OAuth"')
    notes.changed(
        (*key, "connection_timeout"),
        "v3 also gave a whole upload no more time than this; here it has what it needs",
    )
    _timeout(block, params.connection_timeout)
    return block


_Convert = Callable[[StorageConnect, Path, str, str, Notes], Block]
_KINDS: dict[str, _Convert] = {
    "s3": _s3,
    "scp": _sftp,
    "sftp": _sftp,
    "ftp": _ftp,
    "nfs": _nfs,
    "smb": _smb,
    "webdav": _webdav,
}


def _address(host: str, port: str, usual: str, key: Path, notes: Notes) -> Block:
    block: Block = {"host": notes.text((*key, "host"), host)}
    if port not in ("", usual):
        block["port"] = _number(notes.text((*key, "port"), port))
    return block


def _number(text: str) -> str | int:
    return text if ENV.search(text) or not text.isdigit() else int(text)


def _password(block: Block, password: str, key: Path, ours: str, notes: Notes) -> None:
    if password:
        block["password"] = notes.secret((*key, "password"), password, ours, "password")


def _timeout(block: Block, seconds: int) -> None:
    if seconds not in (0, 10):
        block["connect_timeout"] = f"{seconds}s"
