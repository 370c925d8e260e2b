"""Jobs of the types mysql, mysql_xtrabackup and mariadb_backup."""

from __future__ import annotations

from typing import Any

from pipeline.convert.notes import Notes
from pipeline.convert.servers import (
    Block,
    Where,
    certificate,
    databases,
    host_and_port,
    login,
    without_login,
)

_OWN = frozenset({"information_schema", "performance_schema", "sys", "mysql"})
_NATIVE = frozenset(
    """
    --opt --add-drop-database --add-drop-table --add-locks --allow-keywords --comments -i
    --create-options -a --disable-keys -K --extended-insert -e --quick -q --quote-names -Q
    --order-by-primary --hex-blob --single-transaction --routines -R --triggers --events -E
    --set-charset --set-gtid-purged=OFF --no-tablespaces -y --skip-lock-tables
    --default-character-set=utf8mb4 --default-character-set=utf8 --column-statistics=0
    """.split()  # noqa: SIM905
)
"""Options of mysqldump that the native dump covers, or has no use for."""
_LOGIN = ("--host", "--port", "--user", "--password", "--socket", "--login-path")
_LOGIN_SHORT = ("-h", "-P", "-u", "-p", "-S")
_KEYS: dict[str, tuple[str, Any]] = {
    "--lock-all-tables": ("lock", "full"),
    "-x": ("lock", "full"),
    "--skip-triggers": ("triggers", False),
    "--no-data": ("schema_only", ["*"]),
    "-d": ("schema_only", ["*"]),
    "--no-create-info": ("data_only", ["*"]),
    "-t": ("data_only", ["*"]),
}


def mysql(where: Where, notes: Notes) -> Block:
    """mysqldump, one file for each database."""
    source = where.source
    block: Block = {"type": "mysql", **_server(where, notes)}
    _choice(block, where, notes)
    tables = [name for name in source.excludes if "." in name]
    if tables:
        block["exclude_tables"] = [notes.text((), name) for name in tables]
    if source.is_slave:
        block["stop_slave"] = True
        message = "when v3 was killed during the dump, the replica stayed stopped"
        notes.danger((*where.path, "is_slave"), message)
    _extra(block, where, notes)
    notes.changed(where.path, "procedures, functions, events and triggers are dumped always")
    return block


def _choice(block: Block, where: Where, notes: Notes) -> None:
    names = databases(where, notes)
    excluded = [name for name in where.source.excludes if "." not in name]
    if "all" not in names:
        block["databases"] = [notes.text((), name) for name in names if name not in excluded]
        return
    others = [notes.text((), name) for name in excluded if name not in _OWN]
    if others:
        block["exclude"] = others
    if "mysql" not in excluded:
        block["users"] = True
        message = "accounts and grants come as statements; v3 dumped the tables of mysql"
        notes.changed((*where.path, "target_dbs"), message)


def _extra(block: Block, where: Where, notes: Notes) -> None:
    """Options of mysqldump: as keys of ours where there are some, else mysqldump is run."""
    extra = without_login(where.extra, _LOGIN, _LOGIN_SHORT, where, notes)
    rest = [option for option in extra if not _has_key(option, block, where, notes)]
    if rest and {"schema_only", "data_only"} & block.keys():
        message = "not all options of mysqldump have a counterpart"
        notes.decide(where.extra_key, message, where.place("source"))
    elif rest:
        block["method"] = "client"
        block["extra_args"] = [notes.text((), option) for option in rest]
        if block.pop("users", None):
            notes.decide(where.extra_key, "with method client, accounts and grants are not saved")
        notes.changed(where.extra_key, "mysqldump is run for its options that we do not have")


def _has_key(option: str, block: Block, where: Where, notes: Notes) -> bool:
    """Whether a key of ours, or what is done anyway, stands for the option."""
    name, _, value = option.partition("=")
    if option in _KEYS:
        key, setting = _KEYS[option]
        block[key] = setting
    elif name == "--ignore-table" and value:
        block.setdefault("exclude_tables", []).append(notes.text((), value))
    elif name in ("--master-data", "--source-data"):
        notes.changed(where.extra_key, "the position in the binary log is in the manifest")
    else:
        return option in _NATIVE
    return True


def mysql_physical(where: Where, notes: Notes) -> Block:
    """xtrabackup or mariadb-backup."""
    source = where.source
    program = "xtrabackup" if where.job.type == "mysql_xtrabackup" else "mariadb-backup"
    block: Block = {"type": "mysql_physical", **_server(where, notes), "program": program}
    extra: list[str] = []
    for option in without_login(where.extra, _LOGIN, _LOGIN_SHORT, where, notes):
        name, _, value = option.partition("=")
        if name == "--datadir" and value.startswith("/"):
            block["datadir"] = notes.text((), value)
        else:
            extra.append(option)
    if source.excludes:
        extra.append("--databases-exclude=" + " ".join(source.excludes))
    if source.is_slave:
        extra.append("--safe-slave-backup")
    if where.rate:
        extra.append(f"--throttle={max(1, where.rate // 10**6)}")
    if extra:
        block["extra_args"] = [notes.text((), option) for option in extra]
    notes.changed(where.path, "the program streams an xbstream; v3 made a directory, then a tar")
    if source.prepare_xtrabackup:
        key = (*where.path, "prepare_xtrabackup")
        notes.changed(key, "it is prepared when it is restored, not before it is stored")
    return block


def _server(where: Where, notes: Notes) -> Block:
    connect = where.connect
    block: Block = {}
    if connect.mysql_auth_file:
        key = where.key("mysql_auth_file")
        block["option_file"] = notes.text(key, connect.mysql_auth_file)
        notes.changed(key, "only its group client is read; v3 took the first of four groups")
        return block
    if connect.socket:
        block["socket"] = notes.text(where.key("socket"), connect.socket)
    else:
        block.update(host_and_port(where, "3306", notes))
        certificate(where, notes)
    login(block, where, connect.db_user, notes)
    tls = {
        ours: notes.text(where.key(key), value)
        for ours, key, value in (
            ("ca", "ssl_ca", connect.ssl_ca),
            ("cert", "ssl_cert", connect.ssl_cert),
            ("key", "ssl_key", connect.ssl_key),
        )
        if value and (ours != "key" or connect.ssl_cert)
    }
    if tls:
        block["tls"] = tls
    return block
