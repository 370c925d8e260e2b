"""The trace of a run, read by the published protocol of OpenTelemetry."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from pipeline.redact import Redactor
from pipeline.report import Outcome, RunReport
from pipeline.traces import trace
from tests.otlp import attributes_of, read_trace, spans_of
from tests.reports import (
    STARTED,
    artifact_report,
    backup_report,
    branch_report,
    failed_backup,
    good_backup,
    run_report,
)


def spans(report: RunReport) -> dict[str, Any]:
    """By their names, and those of the ones above them; of two with the same, the last."""
    found = spans_of(read_trace(json.loads(json.dumps(trace(report)))))
    by_id = {span.span_id: span for span in found}
    assert len(by_id) == len(found)
    return {_path(span, by_id): span for span in found}


def _path(span: Any, by_id: dict[bytes, Any]) -> str:
    above = by_id[span.parent_span_id] if span.parent_span_id else None
    return f"{_path(above, by_id)} > {span.name}" if above else span.name


CRM = "run shop > backup db > artifact crm"


def test_spans_stand_below_what_they_are_part_of() -> None:
    found = spans(run_report(good_backup()))
    assert list(found) == [
        "run shop",
        "run shop > backup db",
        CRM,
        f"{CRM} > source mysql",
        f"{CRM} > transform zstd",
        f"{CRM} > transform throttle",
        f"{CRM} > storage nas",
        f"{CRM} > storage s3",
    ]
    assert len({span.trace_id for span in found.values()}) == 1
    assert {span.kind for span in found.values()} == {Span.SPAN_KIND_INTERNAL}


def test_the_same_name_in_two_branches_is_two_spans() -> None:
    request = read_trace(trace(run_report(good_backup())))
    assert [span.name for span in spans_of(request)].count("transform throttle") == 2


def test_times_are_those_of_the_run() -> None:
    found = spans(run_report(good_backup()))
    start = int(STARTED.timestamp()) * 10**9
    backup, source = found["run shop > backup db"], found[f"{CRM} > source mysql"]
    assert (backup.start_time_unix_nano, backup.end_time_unix_nano) == (
        start,
        start + 20_500_000_000,
    )
    assert source.end_time_unix_nano == start + 8 * 10**9


def test_spans_lie_within_their_parents() -> None:
    report = run_report(good_backup())
    begun = STARTED + timedelta(milliseconds=700)
    report.backups[0].started = report.backups[0].artifacts[0].started = begun
    found = spans(report)
    for path, span in found.items():
        above = found.get(path.rpartition(" > ")[0])
        if above is not None:
            assert above.start_time_unix_nano <= span.start_time_unix_nano
            assert span.end_time_unix_nano <= above.end_time_unix_nano, path


def test_bytes_outcome_and_waiting_are_attributes() -> None:
    found = spans(run_report(good_backup()))
    zstd = attributes_of(found[f"{CRM} > transform zstd"])
    assert zstd["nxs_backup.bytes"] == 500
    assert zstd["nxs_backup.waited_for_input"] == 0.5
    assert zstd["nxs_backup.outcome"] == "ok"
    nas = attributes_of(found[f"{CRM} > storage nas"])
    assert nas["nxs_backup.held_up"] == 1.5
    assert nas["nxs_backup.required"] is True
    artifact = attributes_of(found[CRM])
    assert artifact["nxs_backup.counts.tables"] == 3
    assert artifact["nxs_backup.plain_bytes"] == 1000


def test_the_status_is_an_error_only_where_it_was_one() -> None:
    artifact = artifact_report(
        "crm", branch_report("nas"), branch_report("s3", Outcome.FAILED), outcome=Outcome.PARTIAL
    )
    found = spans(run_report(backup_report("db", artifact, outcome=Outcome.PARTIAL)))
    assert found["run shop"].status.code == Status.STATUS_CODE_UNSET
    assert found[f"{CRM} > storage nas"].status.code == Status.STATUS_CODE_OK
    s3 = found[f"{CRM} > storage s3"].status
    assert (s3.code, s3.message) == (Status.STATUS_CODE_ERROR, "the disk is full")


def test_a_backup_that_failed_early_has_its_error_without_secrets() -> None:
    report = run_report(failed_backup(error="no access with Pa55word"))
    report.redactor = Redactor(["Pa55word"])
    status = spans(report)["run shop > backup db"].status
    assert (status.code, status.message) == (Status.STATUS_CODE_ERROR, "no access with [secret]")


def test_a_backup_that_did_not_start_has_no_span() -> None:
    waiting = replace(failed_backup("www"), outcome=Outcome.INTERRUPTED, started=None)
    assert list(spans(run_report(waiting))) == ["run shop"]


def test_the_resource_says_who_it_is() -> None:
    request = read_trace(trace(run_report(good_backup()), {"team": "ops"}))
    (resource,) = request.resource_spans
    assert attributes_of(resource.resource) == {
        "service.name": "nxs-backup",
        "service.version": resource.scope_spans[0].scope.version,
        "host.name": "web",
        "nxs_backup.project": "shop",
        "team": "ops",
    }


def test_two_runs_are_two_traces() -> None:
    first, second = run_report(good_backup()), run_report(good_backup())
    second.run = "fedcba9876543210"
    assert spans(first)["run shop"].trace_id != spans(second)["run shop"].trace_id
