"""Metrics of a run: what the text says to a parser that is not ours, and what outlives a run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from pydantic import TypeAdapter, ValidationError

from pipeline.metrics import HELP, PREFIX, Sample, groups, measure, merge, parse, render
from pipeline.report import Outcome, RunReport
from schemas.metrics import Metrics, Traces
from tests.reports import (
    STARTED,
    artifact_report,
    backup_report,
    branch_report,
    failed_backup,
    good_backup,
    run_report,
)

KNOWN = {"db": {"nas", "s3"}, "www": {"nas"}}
ENDED = (STARTED + timedelta(seconds=20.5)).timestamp()

Values = dict[tuple[str, frozenset[tuple[str, str]]], float]


def read(text: str) -> Values:
    """Every sample, by an independent parser."""
    found: Values = {}
    for family in text_string_to_metric_families(text):
        assert family.type == "gauge"
        assert family.documentation
        for sample in family.samples:
            key = (sample.name.removeprefix(PREFIX), frozenset(sample.labels.items()))
            assert key not in found, "the same series twice"
            found[key] = sample.value
    return found


def value(samples: Iterable[Sample], name: str, **labels: str) -> float | None:
    """The one value with these labels, as the independent parser sees it."""
    wanted = set(labels.items())
    found = [
        number
        for (metric, have), number in read(render(samples)).items()
        if metric == name and wanted <= have
    ]
    assert len(found) <= 1
    return found[0] if found else None


def after(previous: list[Sample], report: RunReport) -> list[Sample]:
    """What the file says after one more run."""
    return merge(measure(report), parse(render(previous)), KNOWN)


def test_a_good_run_says_all_there_is_to_say() -> None:
    samples = measure(run_report(good_backup()))
    assert {name for name, _ in read(render(samples))} == set(HELP)
    assert value(samples, "run_exit_code") == 0
    assert value(samples, "success", backup="db") == 1
    assert value(samples, "partial", backup="db") == 0
    assert value(samples, "last_success_timestamp_seconds", backup="db") == ENDED
    assert value(samples, "duration_seconds", backup="db") == 20.5
    assert value(samples, "artifact_plain_bytes", artifact="crm") == 1000
    assert value(samples, "artifact_items", artifact="crm", item="tables") == 3
    assert value(samples, "storage_stored_bytes", artifact="crm", storage="s3") == 500
    assert value(samples, "storage_stall_seconds", artifact="crm", storage="s3") == 1.5
    assert value(samples, "stage_bytes", stage="zstd") == 500
    assert value(samples, "stage_stall_seconds", stage="mysql", side="output") == 2.25
    assert value(samples, "stage_stall_seconds", stage="zstd", side="input") == 0.5


def test_every_series_names_project_and_host() -> None:
    for _, labels in read(render(measure(run_report(good_backup())))):
        assert {("project", "shop"), ("host", "web")} <= labels


def test_names_follow_the_conventions_of_prometheus() -> None:
    for name in HELP:
        assert not name.endswith(("_total", "_count", "_sum", "_bucket")), "these are for counters"
        assert not set(name.split("_")) & {"ms", "milliseconds", "minutes", "kib", "mib", "size"}
        assert "timestamp" not in name or name.endswith("_timestamp_seconds")


def test_the_same_stage_in_two_branches_is_two_series() -> None:
    samples = measure(run_report(good_backup()))
    for storage in ("nas", "s3"):
        assert value(samples, "stage_bytes", stage="throttle", storage=storage) == 500


@pytest.mark.parametrize("text", ['a"b', "a\\b", "a\\nb", "a\nb", "a}b", 'é{x="y"} 5', "a\\"])
def test_any_name_survives_the_text_and_our_own_parser(text: str) -> None:
    backup = backup_report("db", artifact_report(text, branch_report("nas")))
    samples = measure(run_report(backup, host=text))
    assert value(samples, "artifact_success", artifact=text, host=text) == 1
    assert parse(render(samples)) == [
        replace(sample, value=pytest.approx(sample.value, abs=1e-6))
        for name in HELP
        for sample in samples
        if sample.name == name
    ]


def test_a_name_that_utf8_cannot_express_is_escaped() -> None:
    samples = measure(run_report(backup_report("db", artifact_report("a\udcff"))))
    assert value(samples, "artifact_success", artifact="a\\udcff") == 1


def test_a_partial_run_is_no_success_and_no_failure() -> None:
    artifact = artifact_report(
        "crm", branch_report("nas"), branch_report("s3", Outcome.FAILED), outcome=Outcome.PARTIAL
    )
    good = measure(run_report(good_backup()))
    late = replace(backup_report("db", artifact, outcome=Outcome.PARTIAL), seconds=99.0)
    samples = after(good, run_report(late))
    assert value(samples, "success", backup="db") == 0
    assert value(samples, "partial", backup="db") == 1
    assert value(samples, "run_exit_code") == 3
    assert value(samples, "last_success_timestamp_seconds", backup="db") == ENDED
    assert value(samples, "last_run_timestamp_seconds", backup="db") == ENDED + 78.5
    last = "storage_last_success_timestamp_seconds"
    assert value(samples, last, storage="nas") == ENDED + 78.5, "nas has all of it"
    assert value(samples, last, storage="s3") == ENDED, "s3 has that of the run before"


def test_a_storage_has_a_backup_only_with_all_of_its_artifacts() -> None:
    crm = artifact_report("crm", branch_report("nas"), branch_report("s3"))
    shop = artifact_report("shop", branch_report("nas"), branch_report("s3", Outcome.FAILED))
    samples = measure(run_report(backup_report("db", crm, shop, outcome=Outcome.FAILED)))
    last = "storage_last_success_timestamp_seconds"
    assert value(samples, last, storage="nas") == ENDED
    assert value(samples, last, storage="s3") is None


def test_a_run_that_failed_keeps_the_last_success() -> None:
    samples = after(measure(run_report(good_backup())), run_report(failed_backup()))
    assert value(samples, "success", backup="db") == 0
    assert value(samples, "last_success_timestamp_seconds", backup="db") == ENDED
    assert value(samples, "storage_last_success_timestamp_seconds", storage="s3") == ENDED
    assert value(samples, "artifact_success", backup="db") is None, "not known of this run"


def test_backups_that_did_not_run_stay_as_they_are() -> None:
    samples = after(measure(run_report(good_backup("www"))), run_report(failed_backup("db")))
    assert value(samples, "success", backup="www") == 1
    assert value(samples, "success", backup="db") == 0
    assert value(samples, "run_exit_code") == 1


def test_a_locked_backup_is_told_by_the_run_that_holds_its_lock() -> None:
    locked = backup_report("db", outcome=Outcome.LOCKED, error="held")
    samples = after(measure(run_report(good_backup())), run_report(locked))
    assert value(samples, "success", backup="db") == 1
    assert value(samples, "run_exit_code") == 11


def test_a_backup_that_was_interrupted_before_its_turn_stays_as_it_is() -> None:
    waiting = replace(failed_backup(), outcome=Outcome.INTERRUPTED, started=None)
    samples = after(measure(run_report(good_backup())), run_report(waiting))
    assert value(samples, "success", backup="db") == 1
    assert value(samples, "run_exit_code") == 130


def test_what_left_the_configuration_leaves_the_file() -> None:
    gone = backup_report("gone", artifact_report("crm", branch_report("nas")))
    moved = backup_report("db", artifact_report("crm", branch_report("old-nas")))
    previous = measure(run_report(gone, moved))
    samples = after(previous, run_report(failed_backup()))
    assert value(samples, "success", backup="gone") is None
    assert value(samples, "storage_last_success_timestamp_seconds", storage="old-nas") is None


def test_another_project_in_the_same_file_stays() -> None:
    other = measure(run_report(good_backup("theirs"), project="other"))
    samples = after(other, run_report(good_backup()))
    assert value(samples, "success", project="other", backup="theirs") == 1
    assert value(samples, "run_exit_code", project="other") == 0


@pytest.mark.parametrize(
    "text",
    [
        "garbage\n\0\n{}{}{}",
        "node_load1 0.5\n",
        'nxs_backup_unknown{backup="db"} 1\n',
        'nxs_backup_success{backup="db"} 1-1\n',
        'nxs_backup_success{backup="db" 1\n',
    ],
)
def test_what_is_not_ours_is_not_taken_over(text: str) -> None:
    assert parse(text) == []


def test_groups_of_a_gateway_lose_nothing_that_lasts() -> None:
    artifact = artifact_report("crm", branch_report("nas"), branch_report("s3", Outcome.FAILED))
    backup = backup_report("db", artifact, outcome=Outcome.FAILED)
    found = {
        dict(group.labels).get("storage", "") or str(dict(group.labels)): group
        for group in groups(measure(run_report(backup)))
    }
    assert {key: group.complete for key, group in found.items()} == {
        "{}": True,
        "{'backup': 'db'}": False,
        "nas": True,
        "s3": False,
    }
    lasting = {sample.name for sample in found["nas"].samples if "last_success" in sample.name}
    assert lasting == {"storage_last_success_timestamp_seconds"}


# -- the configuration ----------------------------------------------------------------------------


def problem(model: Any, document: dict[str, Any]) -> str:
    with pytest.raises(ValidationError) as raised:
        TypeAdapter(model).validate_python(document)
    return str(raised.value)


GATEWAY: dict[str, Any] = {"url": "https://push.example.net"}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({}, "needs file or pushgateway"),
        ({"file": "/var/x.txt"}, "must end with .prom"),
        ({"file": "x.prom"}, "must be an absolute path"),
        ({"pushgateway": {"url": "push"}}, "must be an HTTP URL"),
        ({"pushgateway": {**GATEWAY, "user": "x"}}, "user and password go together"),
        ({"pushgateway": {**GATEWAY, "user": "a:b", "password": "x"}}, "must not contain a colon"),
        (
            {"pushgateway": {**GATEWAY, "user": "a", "password": "x", "token": "y"}},
            "user and token exclude each other",
        ),
        ({"pushgateway": {**GATEWAY, "token": "a\nb"}}, "must be one line"),
        ({"pushgateway": {**GATEWAY, "labels": {"backup": "x"}}}, "is a label that is set already"),
        ({"pushgateway": {**GATEWAY, "labels": {"1x": "x"}}}, "must be a label"),
        ({"pushgateway": {**GATEWAY, "labels": {"__x": "x"}}}, "must be a label"),
        (
            {"pushgateway": {"url": "http://push", "tls": {"ca": "/x"}}},
            "tls has no use with an http address",
        ),
        ({"pushgateway": {**GATEWAY, "tls": {"mode": "off"}}}, "tls mode has no use"),
    ],
)
def test_settings_that_cannot_work_are_refused(document: dict[str, Any], message: str) -> None:
    assert message in problem(Metrics, document)


def test_settings_of_traces_are_checked_too() -> None:
    assert "HTTP URL" in problem(Traces, {"endpoint": "collector:4318"})
    assert "one line" in problem(Traces, {"endpoint": "http://x", "headers": {"k": "a\r\nb"}})
