"""What differs in MySQL from MariaDB, on recorded answers: no MySQL server can be had here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pipeline.context import Findings
from pipeline.errors import SourceError
from schemas.mysql import MysqlSource
from schemas.tls import Tls
from stages.sources._mysql import replica, snapshot
from stages.sources._mysql.columns import Column, column, row_format
from stages.sources._mysql.link import Link, literal
from stages.sources._mysql.login import Login, login, login_of_url
from stages.sources._mysql.pool import Pool
from stages.sources._mysql.probe import Rights, check_version
from stages.sources._mysql.replica import Pause
from stages.sources._mysql.script import Place as Database
from stages.sources._mysql.script import delimited, made_again, opening, read_opening
from stages.sources._mysql.users import Users, split_definition

LOGIN = Login("db", 3306, None, "backup", "x", Tls(mode="off"))


class Recorded(Link):
    """Answers as a server gave them, by the beginning of the statement; keeps what was executed."""

    def __init__(self, version: str, answers: dict[str, list[Any]]) -> None:
        self.login = LOGIN
        self.version = version
        self.is_mariadb = "mariadb" in version.lower()
        self.answers = answers
        self.executed: list[str] = []

    def _run(self, sql: str, arguments: Sequence[str] | None, kind: Any) -> list[Any]:
        self.executed.append(sql)
        found = [rows for start, rows in self.answers.items() if sql.startswith(start)]
        return found[0] if found else []

    def close(self) -> None:
        pass


MYSQL_8_JSON = {
    "name": "doc",
    "type": "json",
    "charset": None,
    "nullable": "YES",
    "in_key": "",
    "extra": "",
    "expression": "",
    "full_type": "json",
}


class TestColumns:
    def test_json_of_mysql_is_binary_to_the_dictionary_and_text_to_us(self) -> None:
        found = row_format([column(MYSQL_8_JSON)], 64 << 20)
        assert "CAST(CONVERT(`doc` USING utf8mb4) AS BINARY)" in found.row
        assert [large.opening for large in found.large] == [b"'"]
        assert not found.raw

    def test_a_default_expression_is_no_generated_column(self) -> None:
        row = {**MYSQL_8_JSON, "type": "int", "extra": "DEFAULT_GENERATED", "full_type": "int"}
        assert not column(row).is_generated

    @pytest.mark.parametrize("extra", ["VIRTUAL GENERATED", "STORED GENERATED", "PERSISTENT"])
    def test_generated_columns(self, extra: str) -> None:
        assert Column("a", "int", extra=extra).is_generated

    @pytest.mark.parametrize("packet", [1 << 20, 1 << 24, 1 << 30])
    @pytest.mark.parametrize("number", [1, 3, 40])
    def test_a_row_fits_what_the_server_can_format(self, packet: int, number: int) -> None:
        found = row_format([Column(f"c{n}", "longblob") for n in range(number)], packet)
        limit = int(found.large[0].value.split(">")[1].split(",")[0])
        assert 2 * limit * number <= packet


class TestVersions:
    @pytest.mark.parametrize("version", ["5.6.51-log", "5.5.5-10.1.48-MariaDB", "10.2.44-MariaDB"])
    def test_old_servers_are_refused(self, version: str) -> None:
        with pytest.raises(SourceError, match="too old"):
            check_version(Recorded(version, {}))

    @pytest.mark.parametrize("version", ["5.7.44", "8.0.40-0ubuntu1", "9.1.0", "11.8.2-MariaDB"])
    def test_others_are_not(self, version: str) -> None:
        check_version(Recorded(version, {}))

    def test_the_position_of_mysql_8_2_has_another_name(self) -> None:
        status = {"File": "binlog.000007", "Position": 157, "Executed_Gtid_Set": "a:1-5,\nb:1-3"}
        link = Recorded("8.4.3", {"SHOW BINARY LOG STATUS": [status]})
        spare = Recorded("8.4.3", link.answers)
        variables = {"SHOW GLOBAL VARIABLES": [("log_bin", "ON")]}
        one = Recorded("8.4.3", variables)
        taken = snapshot.take([one], spare, "auto", 5)
        assert taken.facts == {
            "binlog_file": "binlog.000007",
            "binlog_position": "157",
            "gtid": "a:1-5,b:1-3",
        }
        assert spare.executed[1:] == [
            "FLUSH TABLES WITH READ LOCK",
            "SHOW BINARY LOG STATUS",
            "UNLOCK TABLES",
        ]
        assert one.executed[1:] == [
            "START TRANSACTION WITH CONSISTENT SNAPSHOT",
            "SAVEPOINT nxs_backup",
        ]

    def test_without_a_log_and_one_connection_no_lock_is_taken(self) -> None:
        one, spare = Recorded("8.4.3", {}), Recorded("8.4.3", {})
        taken = snapshot.take([one], spare, "auto", 5)
        assert (taken.facts, taken.warnings, spare.executed) == ({}, [], [])


class TestReplicas:
    @pytest.mark.parametrize(
        ("version", "prefix", "words"),
        [("8.0.40", "Replica", "REPLICA"), ("5.7.44", "Slave", "SLAVE")],
    )
    def test_channels_of_mysql(self, version: str, prefix: str, words: str) -> None:
        row = {"Channel_Name": "far", f"{prefix}_SQL_Running": "Yes", "Exec_Source_Log_Pos": "9"}
        link = Recorded(version, {f"SHOW {words} STATUS": [row]})
        assert [name for name, _ in replica.status(link)] == ["far"]
        pause = Pause(lambda: link)
        pause.begin()
        pause.end()
        assert [sql for sql in link.executed if not sql.startswith("SHOW")] == [
            f"STOP {words} SQL_THREAD FOR CHANNEL 'far'",
            f"START {words} SQL_THREAD FOR CHANNEL 'far'",
        ]
        assert pause.facts == {"far_source_log_position": "9"}


class TestAccounts:
    def test_default_roles_of_mysql_come_after_their_grants(self) -> None:
        said = (
            "CREATE USER `u`@`%` IDENTIFIED WITH 'caching_sha2_password' AS 0x2441 "
            "DEFAULT ROLE `r`@`%`,`s`@`%` REQUIRE NONE PASSWORD EXPIRE DEFAULT"
        )
        creation, default = split_definition(said)
        assert default == "`r`@`%`,`s`@`%`"
        assert creation.startswith("CREATE USER IF NOT EXISTS `u`@`%` IDENTIFIED")
        assert "DEFAULT ROLE" not in creation
        link = Recorded(
            "8.0.40",
            {
                "SELECT User, Host": [("u", "%"), ("mysql.sys", "localhost")],
                "SHOW CREATE USER": [(said,)],
                "SHOW GRANTS": [("GRANT USAGE ON *.* TO `u`@`%`",)],
            },
        )
        users = Users(link, Findings())
        text = b"".join([*users.accounts(), *users.grants()]).decode()
        assert text.index("GRANT USAGE") < text.index("SET DEFAULT ROLE `r`@`%`,`s`@`%` TO `u`@`%`")
        assert "mysql.sys" not in text

    def test_dynamic_privileges_and_patterns(self) -> None:
        grants = [
            ("GRANT SELECT, RELOAD, PROCESS ON *.* TO `b`@`%`",),
            ("GRANT BACKUP_ADMIN,SHOW_ROUTINE ON *.* TO `b`@`%`",),
            ("GRANT SHOW VIEW, TRIGGER (x) ON `shop\\_%`.* TO `b`@`%`",),
        ]
        rights = Rights(
            Recorded("8.0.40", {"SHOW GRANTS": grants, "SELECT CURRENT_ROLE": [("NONE",)]})
        )
        assert rights.has("RELOAD", "FLUSH_TABLES")
        assert rights.sees_routines
        assert rights.on("shop_a", "SHOW VIEW")
        assert rights.on("any", "SELECT")
        assert not rights.on("shopXa", "SHOW VIEW")


class TestScript:
    @pytest.mark.parametrize("name", ["a\\!b", 'x"\n\\u0041\\', "é/`", "\\! id\n\\! id"])
    def test_a_name_in_a_comment_is_no_command(self, name: str) -> None:
        lines = opening(Recorded("8.0.40", {}), [name], {}).split(b"\n")
        assert read_opening(lines[1])["databases"] == [name]
        assert b"\\!" not in lines[1]
        assert lines[2].startswith(b"SET @OLD_")

    def test_a_delimiter_is_not_part_of_what_it_ends(self) -> None:
        for body in ("a", "a;;b", "a;; // b", "a;; // //0// b", "x -- end"):
            first, *rest = delimited(body).splitlines()
            mark = first.removeprefix("DELIMITER ")
            assert mark not in body
            assert rest[-2:] == [mark, "DELIMITER ;"]

    def test_a_statement_is_written_in_the_character_set_it_was_made_in(self) -> None:
        row = {"character_set_client": "latin1", "collation_connection": "latin1_german1_ci"}
        place = Database("shop", "utf8mb4_bin")
        assert b"\xe9" in made_again(row, "SELECT 'é'", place)
        with pytest.raises(UnicodeError):
            made_again(row, "SELECT '日'", place)
        with pytest.raises(UnicodeError):
            made_again({**row, "character_set_client": "geostd8"}, "SELECT 1", place)

    @pytest.mark.parametrize("text", ["plain", "it's", "back\\slash", "ü", ""])
    def test_a_literal_means_the_same_in_every_mode(self, text: str) -> None:
        said = literal(text)
        assert "\\" not in said
        if said.startswith("_utf8mb4 x'"):
            said = "'" + bytes.fromhex(said[11:-1]).decode() + "'"
        assert said == f"'{text}'"


class TestLogin:
    @pytest.mark.parametrize(
        ("line", "password"),
        [
            ('password="a # b"', "a # b"),
            ("password = plain # comment", "plain"),
            ("password='it\\'s'", "it's"),
            ('password="q\\"\\\\n\\s"', 'q"\\n '),
            ("password=", ""),
            ("loose_password", ""),
        ],
    )
    def test_values_of_an_option_file(self, tmp_path: Path, line: str, password: str) -> None:
        path = tmp_path / "my.cnf"
        path.write_text(f"# first\n[client]\n{line}\n[mysqld]\npassword=other\nuser=other\n")
        spec = MysqlSource(type="mysql", option_file=str(path), user="u")
        assert login(spec).password == password

    def test_the_password_of_the_configuration_is_for_its_own_server_alone(self) -> None:
        spec = MysqlSource.model_validate(
            {"type": "mysql", "host": "db", "user": "u", "password": "s"}
        )
        assert login_of_url("mysql://u@db/x", spec)[0].password == "s"
        assert login_of_url("mysql:///x", spec)[0].password == "s"
        for url in ("mysql://u@other/x", "mysql://v@db/x", "mysql://u@db:3307/x"):
            assert login_of_url(url, spec)[0].password == ""


class TestPool:
    def test_chunks_come_in_the_order_of_the_jobs(self) -> None:
        def run(job: int, _link: int) -> Any:
            for part in range(job % 5):
                yield bytes([job, part]) * 1000

        jobs = list(range(40))
        expected = [chunk for job in jobs for chunk in run(job, 0)]
        pool = Pool(jobs, [1, 2, 3], run, lambda: None, window=4000)
        assert list(pool.chunks()) == expected

    def test_an_error_of_a_job_ends_it(self) -> None:
        def run(job: int, _link: int) -> Any:
            yield b"x"
            if job == 3:
                raise SourceError("no such table")

        with pytest.raises(SourceError, match="no such table"):
            list(Pool(range(9), [1, 2], run, lambda: None, window=10).chunks())
