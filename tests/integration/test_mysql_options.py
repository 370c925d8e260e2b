"""The source `mysql`: what its keys do, against real servers."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.context import StageContext
from pipeline.errors import ConfigError, SourceError
from tests.integration.mysql_servers import dump, dump_all, source
from tests.servers.mariadb import PASSWORD, USER, MariaDb

pytestmark = pytest.mark.integration

SHOP = (
    "CREATE DATABASE {0}; USE {0}; CREATE TABLE orders (id INT); INSERT INTO orders VALUES (1);"
    "CREATE TABLE sessions (id INT); INSERT INTO sessions VALUES (2);"
    "CREATE VIEW totals AS SELECT COUNT(*) FROM orders; CREATE PROCEDURE p() SELECT 1;"
    "CREATE TRIGGER tr AFTER INSERT ON orders FOR EACH ROW SET @x=1;"
    "CREATE EVENT ev ON SCHEDULE EVERY 1 DAY DISABLE DO SET @x=1"
)


@pytest.fixture(scope="module")
def server() -> Iterator[MariaDb]:
    with MariaDb(tls=True) as started:
        for name in ("shop", "shop_old", "crm"):
            started.sql(SHOP.format(name))
        yield started


class TestChoice:
    def test_all_but_the_servers_own(self, server: MariaDb) -> None:
        assert list(dump_all(source(server))) == ["crm", "shop", "shop_old"]

    def test_patterns_and_what_is_left_out(self, server: MariaDb) -> None:
        ours = source(server, databases=["shop*", "crm"], exclude=["*_old"])
        assert [artifact.name for artifact in ours.artifacts()] == ["crm", "shop"]

    def test_a_single_artifact(self, server: MariaDb) -> None:
        data, context = dump(server, artifact="single")
        assert context.findings.counts["databases"] == 3
        assert data.count(b"CREATE DATABASE") == 3

    @pytest.mark.parametrize("method", ["native", "client"])
    def test_tables(self, server: MariaDb, method: str) -> None:
        keys = {"databases": ["shop"], "method": method}
        data, _ = dump(server, **keys, tables=["order*", "crm.sessions"])
        assert b"`orders`" in data
        assert b"CREATE TABLE `sessions`" not in data
        data, _ = dump(server, **keys, exclude_tables=["shop.sessions", "totals"])
        assert b"CREATE TABLE `orders`" in data
        assert b"`sessions`" not in data
        assert b"`totals`" not in data

    def test_definitions_or_rows_alone(self, server: MariaDb) -> None:
        data, _ = dump(server, databases=["shop"], schema_only=["sessions"], data_only=["orders"])
        assert b"CREATE TABLE `sessions`" in data
        assert b"INSERT INTO `sessions`" not in data
        assert b"CREATE TABLE `orders`" not in data
        assert b"INSERT INTO `orders`" in data

    @pytest.mark.parametrize("method", ["native", "client"])
    def test_programs_can_be_left_out(self, server: MariaDb, method: str) -> None:
        keys = {"triggers": False, "routines": False, "events": False, "method": method}
        data, _ = dump(server, databases=["shop"], **keys)
        for word in (b"TRIGGER", b"PROCEDURE", b"EVENT"):
            assert not re.search(rb"CREATE[^;]*" + word, data)

    def test_the_client_takes_more_arguments(self, server: MariaDb) -> None:
        data, context = dump(
            server, databases=["shop"], method="client", extra_args=["--skip-comments", "--no-data"]
        )
        assert b"INSERT INTO" not in data
        assert "mariadb-dump" in context.findings.facts["client"]


class TestLogin:
    def test_a_socket(self, server: MariaDb) -> None:
        keys = {"host": None, "port": None, "socket": str(server.socket)}
        assert "not encrypted" in source(server, **keys).probe()[0]
        assert dump(server, databases=["shop"], **keys)[0]
        assert dump(server, databases=["shop"], method="client", **keys)[0]

    def test_an_option_file(self, server: MariaDb) -> None:
        path = server.option_file()
        keys = dict.fromkeys(["host", "port", "user", "password"])
        ours = source(server, **keys, option_file=str(path))
        assert not any("can be read by others" in fact for fact in ours.probe())
        assert dump(server, **keys, option_file=str(path), databases=["shop"])[0]
        path.chmod(0o644)
        assert any("can be read by others; chmod 600" in fact for fact in ours.probe())

    def test_keys_win_over_the_option_file(self, server: MariaDb, tmp_path: Path) -> None:
        path = tmp_path / "my.cnf"
        path.write_text(
            "[mysqld]\nuser=nobody\n[client]\nuser = nobody # no\npassword='x'\nport=1\n"
        )
        assert source(server, option_file=str(path)).probe()

    @pytest.mark.parametrize("mode", ["verify", "require", "prefer", None])
    @pytest.mark.parametrize("method", ["native", "client"])
    def test_tls(self, server: MariaDb, mode: str | None, method: str) -> None:
        tls = {"mode": mode} | ({"ca": str(server.ca)} if mode == "verify" else {})
        ours = source(server, databases=["shop"], tls=tls, method=method)
        assert "encrypted with TLS" in ours.probe()[0]
        assert dump(server, databases=["shop"], tls=tls, method=method)[0]

    def test_no_tls(self, server: MariaDb) -> None:
        assert "not encrypted" in source(server, tls={"mode": "off"}).probe()[0]

    def test_a_certificate_that_nobody_vouches_for(self, server: MariaDb) -> None:
        with pytest.raises((SourceError, ConfigError), match=r"certificate|CERTIFICATE"):
            source(server, tls={"mode": "verify"}).probe()

    def test_a_server_without_tls(self) -> None:
        with MariaDb() as plain:
            plain.sql(SHOP.format("shop"))
            assert "not encrypted" in source(plain).probe()[0]
            for mode in ("require", "verify"):
                with pytest.raises(SourceError, match="SSL is required"):
                    source(plain, tls={"mode": mode}).probe()


@pytest.fixture(scope="module")
def replica(server: MariaDb) -> Iterator[MariaDb]:
    with MariaDb("log-slave-updates") as started:
        secret = PASSWORD.replace("\\", "\\\\").replace("'", "''")
        started.sql(
            f"CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT={server.port}, "
            f"MASTER_USER='{USER}', MASTER_PASSWORD='{secret}', MASTER_USE_GTID=no,"
            "MASTER_LOG_FILE='binlog.000001', MASTER_LOG_POS=4; START SLAVE"
        )
        wait(started, lambda: started.sql("SHOW DATABASES LIKE 'crm'"))
        wait(started, lambda: started.sql("SELECT * FROM information_schema.EVENTS"))
        yield started


def wait(replica: MariaDb, condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, replica.sql("SHOW SLAVE STATUS")
        time.sleep(0.05)


def runs(replica: MariaDb) -> bool:
    with replica.session() as session:
        session.query("SHOW STATUS LIKE 'Slave_running'")
        rows = session._result.rows
    return bool(rows[0][1] == "ON")


class TestReplica:
    def test_it_is_stopped_for_the_dump_and_started_again(self, replica: MariaDb) -> None:
        ours = source(replica, databases=["shop", "crm"], stop_slave=True)
        first, second = ours.artifacts()
        context = StageContext()
        stream = ours.stream(first, context)
        assert next(stream)
        assert not runs(replica)
        list(stream)
        assert context.findings.facts["source_log_file"] == "binlog.000001"
        assert not runs(replica)
        list(ours.stream(second, StageContext()))
        assert runs(replica)

    @pytest.mark.parametrize("end", ["close", "kill", "abort"])
    def test_it_is_started_again_however_the_dump_ends(self, replica: MariaDb, end: str) -> None:
        ours = source(replica, databases=["shop", "crm"], stop_slave=True)
        context = StageContext()
        stream = ours.stream(ours.artifacts()[0], context)
        assert next(stream)
        assert not runs(replica)
        if end == "abort":
            context.teardown.abort()
        if end == "kill":
            for (number,) in replica.sql(
                f"SELECT ID FROM information_schema.PROCESSLIST WHERE USER='{USER}' "
                "AND ID <> CONNECTION_ID()"
            ):
                replica.sql(f"KILL {number}")
        stream.close()  # type: ignore[attr-defined]
        ours.close()
        assert runs(replica)

    def test_a_replica_that_is_stopped_stays_so(self, replica: MariaDb) -> None:
        replica.sql("STOP SLAVE SQL_THREAD")
        dump(replica, databases=["shop"], stop_slave=True)
        assert not runs(replica)
        replica.sql("START SLAVE SQL_THREAD")
        wait(replica, lambda: runs(replica))

    def test_check_tells_the_lag(self, replica: MariaDb) -> None:
        assert any(re.match(r"replica, \d+ s behind", fact) for fact in source(replica).probe())

    def test_a_server_that_is_no_replica_is_refused(self, server: MariaDb) -> None:
        with pytest.raises(SourceError, match="is no replica"):
            source(server, stop_slave=True).probe()
        with pytest.raises(SourceError, match="is no replica"):
            dump(server, databases=["shop"], stop_slave=True)
