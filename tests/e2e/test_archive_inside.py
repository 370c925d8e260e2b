"""What was left out of the archive is not missed: every component, with its driver, at work."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from apprise.manager_plugins import NotificationManager

from tests.e2e.archive import inside
from tests.e2e.program import Program
from tests.servers.http import HttpSink
from tests.servers.mariadb import MariaDb
from tests.servers.mongodb import PASSWORD as MONGO_PASSWORD
from tests.servers.mongodb import USER as MONGO_USER
from tests.servers.mongodb import MongoServer
from tests.servers.postgres import Postgresql
from tests.servers.redis import PASSWORD as REDIS_PASSWORD
from tests.servers.redis import USER as REDIS_USER
from tests.servers.redis import RedisServer

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning"),
]

COMPONENTS = """\
import pkgutil, stages
from importlib import import_module
for kind in ("sources", "transforms", "storages", "notifiers"):
    for module in pkgutil.iter_modules(import_module(f"stages.{kind}").__path__):
        if not module.name.startswith("_"):
            print(kind, import_module(f"stages.{kind}.{module.name}").COMPONENT.__name__)
"""
SERVICES = """\
from apprise.manager_plugins import NotificationManager
print(sorted(NotificationManager().schemas()))
"""
MODELS = """\
import json, os
import botocore.httpsession, botocore.session
def members(shape):
    return sorted(shape.members) if shape else None
found = {"certificates": os.path.exists(botocore.httpsession.where())}
session = botocore.session.Session()
session.set_credentials("access", "secret")
for name in ("s3", "sts", "sso", "sso-oidc"):
    client = session.create_client(name, "eu-west-1")
    model = client.meta.service_model
    all_of_it = map(model.operation_model, model.operation_names)
    found[name] = {
        "endpoint": client.meta.endpoint_url,
        "names": [(o.name, members(o.input_shape), members(o.output_shape)) for o in all_of_it],
        "pages": [o for o in client.meta.method_to_api_mapping if client.can_paginate(o)],
        "waiters": client.waiter_names,
    }
print(json.dumps(found, sort_keys=True))
"""


@pytest.fixture
def databases() -> Iterator[dict[str, dict[str, Any]]]:
    """A source for each database server that can be run here, with something in it."""
    closed = {"mode": "off"}
    with ExitStack() as stack:
        postgres = stack.enter_context(Postgresql())
        postgres.execute("CREATE TABLE greeting AS SELECT 'hello' AS text")
        mysql = stack.enter_context(MariaDb())
        mysql.sql("CREATE DATABASE shop; CREATE TABLE shop.greeting AS SELECT 'hello' AS text")
        redis = stack.enter_context(RedisServer())
        with redis.client() as client:
            client.set("greeting", "hello")
        mongo = stack.enter_context(MongoServer(login=True))
        with mongo.client() as client:
            client.shop.greeting.insert_one({"text": "hello"})
        host = "127.0.0.1"
        login = {"user": REDIS_USER, "password": REDIS_PASSWORD} if redis.login else {}
        mongo_login = {"user": MONGO_USER, "password": MONGO_PASSWORD}
        yield {
            "postgres": {**postgres.keys, "databases": ["postgres"], "format": "copy"},
            "mysql": mysql.keys(databases=["shop"]),
            "redis": {"host": host, "port": redis.port, "tls": closed, **login},
            "mongodb": {"host": host, "port": mongo.port, "tls": closed, **mongo_login},
        }


def test_every_component_can_be_imported(pyz: Path, cache: Path) -> None:
    scope: dict[str, Any] = {}
    lines: list[str] = []
    exec(COMPONENTS, {**scope, "print": lambda *words: lines.append(" ".join(words))})
    assert inside(pyz, cache, COMPONENTS).splitlines() == lines


def test_every_database_is_backed_up(
    program: Program, databases: dict[str, dict[str, Any]]
) -> None:
    fan_out = [{"storage": "here", "rotate": {"last": 1}}]
    config = program.configure(
        json.dumps(
            {
                "name": "shop",
                "storages": {"here": {"type": "local", "path": str(program.folder / "backups")}},
                "backups": {
                    name: {
                        "source": {"type": name, **keys},
                        "stages": [{"type": "zstd"}],
                        "fan_out": fan_out,
                    }
                    for name, keys in databases.items()
                },
            }
        )
    )
    report = program.json("run", config)
    assert report["outcome"] == "ok", report
    proofs = program.json("verify", config)["verified"]
    assert {proof["outcome"] for proof in proofs} == {"proved"}
    listed = program.json("list", config)["backups"]
    assert {entry["manifest"]["source"]["type"] for entry in listed} == set(databases)
    assert len(proofs) == len(listed)


def test_every_service_of_apprise_is_there(pyz: Path, cache: Path) -> None:
    assert len(NotificationManager().schemas()) > 100
    assert inside(pyz, cache, SERVICES).strip() == str(sorted(NotificationManager().schemas()))


def test_a_service_of_apprise_is_told(pyz: Path, cache: Path) -> None:
    with HttpSink() as sink:
        code = (
            "import apprise, os\n"
            "os.environ['no_proxy'] = '*'\n"
            f"sender = apprise.Apprise(); sender.add('json://127.0.0.1:{sink.port}/')\n"
            "print(bool(sender.notify('# body', 'title', body_format='markdown')))\n"
        )
        assert inside(pyz, cache, code) == "True\n"
        (request,) = sink.received
    assert json.loads(request.body)["title"] == "title"


def test_services_of_botocore_that_we_use_are_whole(pyz: Path, cache: Path) -> None:
    lines: list[str] = []
    exec(MODELS, {"print": lines.append})
    assert inside(pyz, cache, MODELS).strip() == lines[0]
