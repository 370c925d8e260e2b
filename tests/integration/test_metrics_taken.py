"""Metrics of real runs, taken by what they are for: node_exporter and a Pushgateway."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.request import Request, urlopen

import anyio
import pytest

from pipeline.events import Event
from pipeline.metrics import HELP, PREFIX
from pipeline.report import Outcome
from pipeline.runner import Runner
from schemas.load import load
from stages.exporters.metrics_file import MetricsFile
from stages.exporters.pushgateway import path as grouping_path
from stages.storages import memory
from tests.integration.exporter_runs import DB, Configuration, read, value
from tests.reports import good_backup, run_report
from tests.servers.prometheus import USER, NodeExporter, Pushgateway

pytestmark = pytest.mark.integration


@pytest.fixture(autouse=True)
def empty_storages() -> Iterator[None]:
    memory.clear()
    yield
    memory.clear()


@pytest.fixture
def configuration(tmp_path: Path) -> Configuration:
    return Configuration(tmp_path)


# -- the file ------------------------------------------------------------------------------------


class TestFile:
    def test_node_exporter_serves_all_of_it(self, configuration: Configuration) -> None:
        with NodeExporter() as exporter:
            report = configuration.run(f"metrics: {{file: {exporter.files}/nxs.prom}}")
            samples = exporter.samples()
        assert report.outcome is Outcome.OK
        assert report.notifications == []
        assert samples["node_textfile_scrape_error", frozenset()] == 0
        names = {name.removeprefix(PREFIX) for name, _ in samples if name.startswith(PREFIX)}
        assert names == set(HELP) - {"artifact_items"}, "this source counts nothing"
        assert value(samples, "success", **DB) == 1
        assert value(samples, "artifact_plain_bytes", **DB) == len("data\n")
        stored = report.backups[0].artifacts[0].branches[1].stored_size
        assert value(samples, "storage_stored_bytes", **DB, storage="other") == stored
        assert value(samples, "stage_bytes", **DB, stage="zstd") == stored

    def test_a_failure_is_told_and_the_last_success_stays(
        self, configuration: Configuration
    ) -> None:
        with NodeExporter() as exporter:
            more = f"metrics: {{file: {exporter.files}/nxs.prom}}"
            configuration.run(more)
            before = exporter.samples()
            report = configuration.run(more, "db", program="echo data; exit 3")
            after = exporter.samples()
        assert report.outcome is Outcome.FAILED
        assert value(after, "success", **DB) == 0
        assert value(after, "run_exit_code") == 1
        for name in ("last_success_timestamp_seconds", "storage_last_success_timestamp_seconds"):
            labels = {**DB, "storage": "nas"} if "storage" in name else DB
            assert value(after, name, **labels) == value(before, name, **labels) is not None
        assert value(after, "success", backup="www") == 1, "it did not run"

    def test_it_is_replaced_as_a_whole_for_everybody_to_read(
        self, configuration: Configuration, tmp_path: Path
    ) -> None:
        place = tmp_path / "files"
        place.mkdir()
        (place / "elsewhere").write_text("untouched")
        (place / "nxs.prom").symlink_to("elsewhere")
        mask = os.umask(0o077)
        try:
            configuration.run(f"metrics: {{file: {place}/nxs.prom}}")
        finally:
            os.umask(mask)
        status = (place / "nxs.prom").lstat()
        assert stat.S_ISREG(status.st_mode)
        assert stat.S_IMODE(status.st_mode) == 0o644
        assert (place / "elsewhere").read_text() == "untouched"
        assert sorted(path.name for path in place.iterdir()) == ["elsewhere", "nxs.prom"]

    def test_two_runs_that_end_at_once_do_not_forget_each_other(
        self, configuration: Configuration, tmp_path: Path
    ) -> None:
        configuration.write(f"metrics: {{file: {tmp_path}/nxs.prom}}")
        pipeline = load(configuration.path, {}).pipeline

        def tell(project: str) -> None:
            report = run_report(good_backup(), project=project)
            anyio.run(MetricsFile(pipeline).export, report)

        threads = [threading.Thread(target=tell, args=(f"project-{n}",)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        text = (tmp_path / "nxs.prom").read_text()
        assert [f"project-{n}" in text for n in range(8)] == [True] * 8

    def test_an_interrupted_run_is_told_too(
        self, configuration: Configuration, tmp_path: Path
    ) -> None:
        more = f"metrics: {{file: {tmp_path}/nxs.prom}}"
        configuration.run(more)
        configuration.write(more, program="sleep 1000")
        runner = Runner(load(configuration.path, {}).pipeline)

        def stop(event: Event) -> None:
            if event.name == "artifact started":
                runner.interrupt()

        runner.bus.subscribe(stop)
        report = anyio.run(runner.run, ["db"])
        assert report.outcome is Outcome.INTERRUPTED
        samples = read(tmp_path / "nxs.prom")
        assert value(samples, "run_exit_code") == 130
        assert value(samples, "success", **DB) == 0
        assert value(samples, "last_success_timestamp_seconds", **DB) is not None
        assert value(samples, "success", backup="www") == 1

    def test_what_cannot_be_written_is_a_line_of_the_report(
        self, configuration: Configuration, tmp_path: Path
    ) -> None:
        report = configuration.run(f"metrics: {{file: {tmp_path}/missing/nxs.prom}}")
        assert report.outcome is Outcome.OK
        (line,) = report.notifications
        assert line.startswith("metrics_file: ")
        assert "cannot be written: no such file or directory" in line
        (event,) = [event for event in configuration.events if event.name == "export failed"]
        assert event.to_fields()["exporter"] == "metrics_file"

    def test_a_pipe_in_its_place_is_refused(
        self, configuration: Configuration, tmp_path: Path
    ) -> None:
        os.mkfifo(tmp_path / "nxs.prom")
        report = configuration.run(f"metrics: {{file: {tmp_path}/nxs.prom}}")
        assert "is no regular file" in report.notifications[0]


# -- a gateway -----------------------------------------------------------------------------------


def gateway_section(gateway: Pushgateway, more: str = "") -> str:
    return f"metrics: {{pushgateway: {{url: '{gateway.url}', labels: {{team: ops}}{more}}}}}"


class TestPushgateway:
    def test_it_takes_all_of_it_under_its_grouping_keys(self, configuration: Configuration) -> None:
        with Pushgateway() as gateway:
            report = configuration.run(gateway_section(gateway))
            samples = gateway.samples()
        assert report.notifications == []
        names = {name.removeprefix(PREFIX) for name, _ in samples if name.startswith(PREFIX)}
        assert names == set(HELP) - {"artifact_items"}
        grouping = {"job": "nxs_backup", "instance": "web 1/2", "project": "shop", "team": "ops"}
        assert all(set(grouping.items()) <= labels for _, labels in samples)
        pushes = [labels for name, labels in samples if name == "push_time_seconds"]
        assert len(pushes) == 1 + 2 + 3, "the run, two backups, and each on its storages"
        assert not any(number for (name, _), number in samples.items() if "failure" in name)

    def test_a_failure_is_told_and_the_last_success_stays(
        self, configuration: Configuration
    ) -> None:
        with Pushgateway() as gateway:
            more = gateway_section(gateway)
            configuration.run(more)
            before = gateway.samples()
            configuration.run(more, "db", program="echo data; exit 3")
            after = gateway.samples()
        assert value(before, "success", **DB) == 1
        assert value(after, "success", **DB) == 0
        assert value(after, "storage_success", **DB, storage="nas") == 0
        for name in ("last_success_timestamp_seconds", "storage_last_success_timestamp_seconds"):
            labels = {**DB, "storage": "nas"} if "storage" in name else DB
            assert value(after, name, **labels) == value(before, name, **labels) is not None
        assert value(after, "success", backup="www") == 1, "it did not run"

    def test_a_success_replaces_all_that_is_there(self, configuration: Configuration) -> None:
        """Also artifacts and metrics that are no more; a failure leaves them."""
        with Pushgateway() as gateway:
            more = gateway_section(gateway)
            configuration.run(more)
            labels = "job/nxs_backup/instance@base64/d2ViIDEvMg==/project/shop/team/ops/backup/db"
            of_old = Request(f"{gateway.url}/metrics/{labels}", b"nxs_backup_old_name 1\n")
            urlopen(of_old, timeout=20).close()
            configuration.run(more, "db", program="exit 3")
            assert value(gateway.samples(), "old_name", backup="db") == 1
            configuration.run(more, "db", name="new")
            assert value(gateway.samples(), "old_name", backup="db") is None
            artifacts = {
                dict(labels).get("artifact")
                for _, labels in gateway.samples()
                if ("backup", "db") in labels
            }
        assert artifacts == {"new", None}

    def test_login_and_certificate_are_checked(self, configuration: Configuration) -> None:
        with Pushgateway(tls=True, login=True) as gateway:
            good = f", user: {USER}, password: '${{PASSWORD}}', tls: {{ca: '{gateway.ca}'}}"
            assert configuration.run(gateway_section(gateway, good)).notifications == []
            wrong = good.replace("${PASSWORD}", "wrong")
            (line,) = configuration.run(gateway_section(gateway, wrong)).notifications
            assert line == 'pushgateway: "127.0.0.1" answered 401'
            verify = ", tls: {mode: verify}, timeout: 2s"
            (line,) = configuration.run(gateway_section(gateway, verify)).notifications
            assert "certificate that is not trusted" in line

    @pytest.mark.parametrize(
        ("value", "part"),
        [
            ("web-1", "instance/web-1"),
            ("a b?#%é", "instance/a%20b%3F%23%25%C3%A9"),
            ("a/b", "instance@base64/YS9i"),
            ("", "instance@base64/="),
        ],
    )
    def test_any_value_can_be_part_of_a_grouping_key(self, value: str, part: str) -> None:
        assert grouping_path([("instance", value)]) == part
