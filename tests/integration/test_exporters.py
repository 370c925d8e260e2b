"""Traces, read as a collector reads them; and services that are dead or strange, which never change
a run.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli.main import main
from pipeline.report import Outcome
from stages.storages import memory
from tests.integration.exporter_runs import Configuration
from tests.otlp import attributes_of, read_trace, spans_of
from tests.servers.http import Answer, HttpSink
from tests.servers.prometheus import PASSWORD, Pushgateway

pytestmark = pytest.mark.integration


@pytest.fixture(autouse=True)
def empty_storages() -> Iterator[None]:
    memory.clear()
    yield
    memory.clear()


@pytest.fixture
def configuration(tmp_path: Path) -> Configuration:
    return Configuration(tmp_path)


# -- a collector ---------------------------------------------------------------------------------


class TestTraces:
    def test_a_collector_can_read_the_trace_of_a_run(self, configuration: Configuration) -> None:
        with HttpSink(Answer(body=b"{}")) as sink:
            more = f"traces: {{endpoint: '{sink.url('')}', headers: {{x-key: '${{PASSWORD}}'}}}}"
            report = configuration.run(more)
        assert report.notifications == []
        (request,) = sink.received
        assert (request.method, request.path) == ("POST", "/v1/traces")
        assert request.headers["content-type"] == "application/json"
        assert request.headers["x-key"] == PASSWORD
        spans = spans_of(read_trace(json.loads(request.body)))
        assert [span.name for span in spans] == [
            "run shop",
            "backup db",
            "artifact db",
            "source command",
            "transform zstd",
            "storage nas",
            "storage other",
            "backup www",
            "artifact www",
            "source command",
            "storage nas",
        ]
        zstd = attributes_of(spans[4])
        stored = report.backups[0].artifacts[0].branches[0].stored_size
        assert zstd["nxs_backup.bytes"] == stored
        now = time.time_ns()
        assert all(
            now - 300 * 10**9 < span.start_time_unix_nano <= span.end_time_unix_nano
            for span in spans
        )

    def test_a_full_address_is_taken_as_it_is(self, configuration: Configuration) -> None:
        with HttpSink(Answer(body=b"{}")) as sink:
            configuration.run(f"traces: {{endpoint: '{sink.url('/otlp/v1/traces?a=b')}'}}")
        assert [request.path for request in sink.received] == ["/otlp/v1/traces?a=b"]

    def test_spans_that_were_rejected_are_told(self, configuration: Configuration) -> None:
        body = b'{"partialSuccess": {"rejectedSpans": "7", "errorMessage": "x"}}'
        with HttpSink(Answer(body=body)) as sink:
            report = configuration.run(f"traces: {{endpoint: '{sink.url('')}'}}")
        assert report.notifications == ["traces: the collector rejected 7 spans; see its log"]


# -- dead or strange services --------------------------------------------------------------------

BOTH = """\
metrics: {{pushgateway: {{url: '{url}', timeout: 700ms}}}}
traces: {{endpoint: '{url}', timeout: 700ms}}"""
LIMIT = 30.0
"""Seconds: far above the deadlines, and far below a run that waits for ever."""


class TestNeverInTheWay:
    @pytest.mark.parametrize("manner", ["hang", "garbage", "close", "endless", "trickle"])
    def test_a_service_that_misbehaves(self, configuration: Configuration, manner: Any) -> None:
        with HttpSink(Answer(manner=manner)) as sink:
            started = time.monotonic()
            report = configuration.run(BOTH.format(url=sink.url("")), "www")
            taken = time.monotonic() - started
        assert report.outcome is Outcome.OK
        assert {line.partition(":")[0] for line in report.notifications} == (
            set() if manner == "endless" else {"pushgateway", "traces"}
        )
        assert taken < LIMIT

    def test_a_service_that_is_not_there(self, configuration: Configuration) -> None:
        report = configuration.run(BOTH.format(url="http://127.0.0.1:9"), "www")
        assert report.outcome is Outcome.OK
        assert sorted(report.notifications) == [
            'pushgateway: "127.0.0.1" cannot be reached; gave up after 0.7s',
            'traces: "127.0.0.1" cannot be reached; gave up after 0.7s',
        ]

    def test_one_that_is_back_in_time_gets_it(self, configuration: Configuration) -> None:
        more = BOTH.replace("700ms", "20s")
        with HttpSink(Answer(status=503), Answer(status=503), Answer(body=b"{}")) as sink:
            report = configuration.run(more.format(url=sink.url("")), "www")
        assert report.notifications == []

    def test_a_failed_run_keeps_its_outcome(self, configuration: Configuration) -> None:
        more = BOTH.format(url="http://127.0.0.1:9")
        report = configuration.run(more, "db", program="exit 3")
        assert report.outcome is Outcome.FAILED

    def test_no_secret_is_in_a_line_of_the_report(self, configuration: Configuration) -> None:
        url = f"http://canary-user:{PASSWORD.replace(' ', '')}@127.0.0.1:9/canary-path"
        report = configuration.run(BOTH.format(url=url), "www")
        text = json.dumps(report.to_dict()) + report.summary() + repr(configuration.events)
        assert len(report.notifications) == 2
        assert "canary" not in text
        assert PASSWORD.replace(" ", "") not in text


class TestCheck:
    def test_connect_tries_them(
        self, configuration: Configuration, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with Pushgateway() as gateway, HttpSink(Answer(body=b"{}")) as sink:
            metrics = f"{{file: {tmp_path}/x.prom, pushgateway: {{url: '{gateway.url}'}}}}"
            configuration.write(f"metrics: {metrics}\ntraces: {{endpoint: '{sink.url('')}'}}")
            assert main(["check", str(configuration.path), "--connect"]) == 0
            assert list(gateway.samples()) == [], "nothing was told"
        said = capsys.readouterr().out
        for what in ("metrics file", "pushgateway", "traces"):
            assert f"ok      {what}\n" in said
        assert spans_of(read_trace(json.loads(sink.received[0].body))) == []

    def test_what_would_not_work_is_partial(
        self, configuration: Configuration, capsys: pytest.CaptureFixture[str]
    ) -> None:
        dead = BOTH.format(url="http://127.0.0.1:9")
        configuration.write(dead.replace("{pushgateway", "{file: /nowhere/x.prom, pushgateway"))
        assert main(["check", str(configuration.path), "--connect"]) == 3
        said = capsys.readouterr().out
        for what in ("metrics file", "pushgateway", "traces"):
            assert f"failed  {what}: " in said
