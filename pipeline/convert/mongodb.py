"""Jobs of the types mongodb and redis."""

from __future__ import annotations

from pipeline.convert.notes import Notes
from pipeline.convert.servers import Block, Where, certificate, databases, host_and_port, login

_OWN = frozenset({"admin", "config", "local"})


def mongodb(where: Where, notes: Notes) -> Block:
    """mongodump, collection by collection."""
    source = where.source
    block: Block = {"type": "mongodb", **_server(where, notes)}
    _choice(block, where, notes)
    if not source.target_collections:
        notes.danger(where.path, "without target_collections, v3 dumped no collection")
    elif "all" not in source.target_collections:
        block["collections"] = [notes.text((), name) for name in source.target_collections]
    if source.exclude_collections:
        block["exclude_collections"] = [notes.text((), n) for n in source.exclude_collections]
    for option in where.extra:
        name, _, value = option.partition("=")
        if name == "--readPreference" and value:
            block["read_preference"] = notes.text((), value)
        else:
            message = "an option of mongodump was left out"
            notes.decide(where.extra_key, message, where.place("source"))
    if not where.connect.mongo_tls_ca_file:
        certificate(where, notes)
    return block


def _choice(block: Block, where: Where, notes: Notes) -> None:
    names, excluded = databases(where, notes), where.source.exclude_dbs
    if "all" not in names:
        block["databases"] = [notes.text((), name) for name in names if name not in excluded]
        return
    others = [notes.text((), name) for name in excluded if name not in _OWN]
    if others:
        block["exclude"] = others
    if not set(excluded) >= _OWN:
        block["users"] = True
        key = (*where.path, "exclude_dbs")
        notes.changed(key, "users and roles are saved; admin, config and local are not")


def _server(where: Where, notes: Notes) -> Block:
    connect = where.connect
    block: Block = {}
    if connect.mongo_replica_set_address:
        host, _, port = connect.mongo_replica_set_address.split(",")[0].partition(":")
        block["host"] = notes.text(where.key("mongo_replica_set_address"), host)
        if port not in ("", "27017"):
            block["port"] = int(port) if port.isdigit() else notes.text((), port)
    else:
        block.update(host_and_port(where, "27017", notes))
    if connect.db_user:
        login(block, where, connect.db_user, notes)
    if connect.mongo_auth_db:
        block["auth_source"] = notes.text(where.key("mongo_auth_db"), connect.mongo_auth_db)
    if connect.mongo_replica_set_name:
        key = where.key("mongo_replica_set_name")
        block["replica_set"] = notes.text(key, connect.mongo_replica_set_name)
        block["read_preference"] = "primary"
    if connect.mongo_tls_ca_file:
        ca = notes.text(where.key("mongo_tls_ca_file"), connect.mongo_tls_ca_file)
        block["tls"] = {"ca": ca}
    return block


def redis(where: Where, notes: Notes) -> Block:
    """redis-cli --rdb."""
    block: Block = {"type": "redis"}
    if where.connect.socket:
        block["socket"] = notes.text(where.key("socket"), where.connect.socket)
    else:
        block.update(host_and_port(where, "6379", notes))
        certificate(where, notes)
    login(block, where, "", notes)
    return block
