"""What continuous integration is told: commands that a service takes, and nothing it must not."""

from __future__ import annotations

import argparse
import re
from datetime import datetime, timezone
from pathlib import Path

import pytest

from pipeline.cli.ci import Ci, GitHub, GitLab, find, findings_of, harmless, summary_of
from pipeline.cli.console import Groups
from pipeline.cli.main import main
from pipeline.events import BackupFinished, BackupStarted, Event, RunFinished, RunStarted
from pipeline.redact import Redactor
from pipeline.report import ArtifactReport, BackupReport, BranchReport, Outcome, RunReport
from schemas.problems import Problem

SECRET = "s3cret|value"


def report() -> RunReport:
    """One backup that went well, one that is partial, one that failed."""
    run = RunReport("r1", "shop", "web-1", datetime(2026, 11, 23, 3, 15, tzinfo=timezone.utc), 75)
    run.redactor = Redactor([SECRET])
    good = ArtifactReport("etc", Outcome.OK, plain_size=3 << 20, seconds=2)
    good.branches = [BranchReport("nas", True, Outcome.OK, "etc/x.tar", 1 << 20)]
    some = ArtifactReport("a|b", Outcome.PARTIAL, plain_size=9, seconds=1)
    some.skipped, some.skipped_total = ["/x: permission denied"], 3
    some.branches = [
        BranchReport("nas", True, Outcome.OK, "x", 5),
        BranchReport("offsite", False, Outcome.FAILED, error=f"login with {SECRET} failed"),
    ]
    bad = ArtifactReport("db", Outcome.FAILED, "source mysql: gone\nreally", branches=[])
    bad.branches = [BranchReport("nas", True)]
    run.backups = [
        BackupReport("etc", Outcome.OK, artifacts=[good]),
        BackupReport("sites", Outcome.PARTIAL, artifacts=[some], problems=["rotation on nas: no"]),
        BackupReport("crm", Outcome.FAILED, artifacts=[bad]),
        BackupReport("late", Outcome.INTERRUPTED, "interrupted", seconds=0.5),
    ]
    run.notifications = ["ops: not delivered"]
    return run


def decode(command: str) -> tuple[str, dict[str, str], str]:
    """A workflow command as the runner understands it."""
    match = re.fullmatch(r"::([a-z-]+)(?: ([^:]*))?::([^\r\n]*)", command)
    assert match, command
    name, properties, data = match.groups()

    def plain(text: str, codes: str) -> str:
        for code in codes.split():
            text = text.replace("%" + code, chr(int(code, 16)))
        return text.replace("%25", "%")

    pairs = (pair.split("=", 1) for pair in properties.split(",")) if properties else ()
    return name, {k: plain(v, "0D 0A 3A 2C") for k, v in pairs}, plain(data, "0D 0A")


class TestGitHub:
    def test_a_problem_is_shown_at_its_line(self) -> None:
        problem = Problem("conf,d/a:b.yaml", 14, 7, "storages.nas.path", "must be 100%", "do it")
        assert decode(GitHub({}).problem(problem)) == (
            "error",
            {"file": "conf,d/a:b.yaml", "line": "14", "col": "7", "title": "storages.nas.path"},
            "must be 100%\nhint: do it",
        )

    def test_a_warning_is_none_of_its_errors(self) -> None:
        problem = Problem("a.yaml", 1, 1, "", "can be read by others", severity="warning")
        name, properties, text = decode(GitHub({}).problem(problem))
        assert (name, properties["title"]) == ("warning", "configuration")
        assert text == "can be read by others"

    def test_files_are_named_from_the_root_of_the_repository(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "deploy").mkdir()
        monkeypatch.chdir(tmp_path / "deploy")
        service = GitHub({"GITHUB_WORKSPACE": str(tmp_path)})
        for file, expected in (
            ("a.yaml", "deploy/a.yaml"),
            (str(tmp_path / "a.yaml"), "a.yaml"),
            ("/etc/nxs-backup/a.yaml", "/etc/nxs-backup/a.yaml"),
        ):
            found = decode(service.problem(Problem(file, 1, 1, "", "x")))
            assert found[1]["file"] == expected

    def test_text_cannot_end_a_command(self) -> None:
        hostile = "%0A\r\n::set-env name=PATH::/tmp,title=x"
        line = GitHub({}).annotation("error", hostile, hostile)
        assert decode(line) == ("error", {"title": hostile}, hostile)
        assert len(line.splitlines()) == 1
        assert decode(GitHub({}).open_group("a\nb")) == ("group", {}, "a\nb")

    def test_the_summary_is_appended(self, tmp_path: Path) -> None:
        path = tmp_path / "summary.md"
        path.write_text("before\n")
        GitHub({"GITHUB_STEP_SUMMARY": str(path)}).summarize(report())
        assert path.read_text() == "before\n" + summary_of(report())

    def test_without_a_place_for_it_there_is_no_summary(self) -> None:
        GitHub({}).summarize(report())

    def test_a_summary_that_cannot_be_written_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(OSError, match="directory"):
            GitHub({"GITHUB_STEP_SUMMARY": str(tmp_path)}).summarize(report())


class TestGitLab:
    def test_a_section_begins_and_ends_under_one_name(self) -> None:
        service = GitLab()
        for title in ("backup crm", "backup etc"):
            start, end = service.open_group(title), service.close_group()
            begun = re.fullmatch(
                r"\x1b\[0Ksection_start:\d+:(\w+)\[collapsed=true\]\r\x1b\[0K(.*)", start
            )
            ended = re.fullmatch(r"\x1b\[0Ksection_end:\d+:(\w+)\r\x1b\[0K", end)
            assert begun
            assert ended
            assert begun.groups() == (ended[1], title)

    def test_it_has_no_annotations(self) -> None:
        assert GitLab().annotation("error", "x", "y") is None
        assert GitLab().problem(Problem("a", 1, 1, "", "x")) is None


def test_the_summary_is_a_table_that_markdown_takes_for_one() -> None:
    lines = summary_of(report()).splitlines()
    assert lines[0] == "### shop on web-1: interrupted, 1 m 15 s"
    assert lines[2:9] == [
        "| backup | artifact | storage | outcome | read | stored | time |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        "| etc | etc | nas | ok | 3.0 MiB | 1.0 MiB | 2.0 s |",
        r"| sites | a\|b | nas | ok | 9 B | 5 B | 1.0 s |",
        r"| sites | a\|b | offsite | failed | 9 B |  | 1.0 s |",
        "| crm | db | nas | failed | 0 B |  | 0.0 s |",
        "| late |  |  | interrupted |  |  | 0.5 s |",
    ]
    assert "- rotation on nas: no" in lines
    assert "- db: source mysql: gone" in lines


def test_each_backup_that_did_not_go_well_is_one_annotation() -> None:
    found = list(findings_of(report()))
    assert [(level, title) for level, title, _ in found] == [
        ("warning", "sites: partial"),
        ("error", "crm: failed"),
        ("error", "late: interrupted"),
        ("warning", "notifications failed"),
    ]
    assert found[0][2].split("\n") == [
        "a|b on offsite: login with [secret] failed",
        "a|b: 3 not read, first: /x: permission denied",
        "rotation on nas: no",
    ]


def test_no_secret_is_told() -> None:
    told = summary_of(report()) + "".join(map(str, findings_of(report())))
    for form in (SECRET, SECRET.replace("|", "\\|")):
        assert form not in told


@pytest.mark.parametrize(
    ("environ", "ci", "expected"),
    [
        ({}, None, None),
        ({"GITHUB_ACTIONS": "true"}, None, GitHub),
        ({"GITLAB_CI": "true"}, None, GitLab),
        ({"GITHUB_ACTIONS": "true"}, False, None),
        ({"GITLAB_CI": "true"}, False, None),
        ({}, True, GitHub),
        ({"GITLAB_CI": "true"}, True, GitLab),
    ],
)
def test_the_service_is_found_by_its_variables(
    environ: dict[str, str], ci: bool | None, expected: type[Ci] | None
) -> None:
    found = find(argparse.Namespace(ci=ci), environ)
    assert found is None if expected is None else isinstance(found, expected)


def test_a_line_of_ours_does_not_pass_for_a_command() -> None:
    text = "[ok] shop\n  ::set-env name=x::y: ok\n##[error]x: ok\n  a::b: ok"
    assert harmless(text) == "[ok] shop\n  |::set-env name=x::y: ok\n|##[error]x: ok\n  a::b: ok"


@pytest.mark.parametrize("parallel", [1, 2])
def test_groups_are_never_interleaved(parallel: int) -> None:
    lines: list[str] = []
    groups = Groups(GitHub({}), lines.append, parallel)
    one = [BackupStarted("a"), BackupFinished("a", "ok", 1.0)]
    two = [BackupStarted("b"), BackupFinished("b", "ok", 1.0)]
    order = [*one, *two] if parallel == 1 else [one[0], two[0], one[1], two[1]]
    events: list[Event] = [RunStarted("r", "p", "h", ("a", "b")), *order, RunFinished("r", "ok", 2)]
    for event in events:
        groups.before(event)
        lines.append(event.name)
        groups.after(event)
    if parallel == 1:
        group = ["backup started", "backup finished", "::endgroup::"]
        bodies = ["::group::backup a", *group, "::group::backup b", *group]
        assert lines == ["run started", *bodies, "run finished"]
    else:
        assert lines[0] == "::group::logs of a, b"
        assert lines[-2:] == ["run finished", "::endgroup::"]
        assert sum(line.startswith("::") for line in lines) == 2


def test_the_group_of_an_interrupted_backup_is_closed() -> None:
    lines: list[str] = []
    groups = Groups(GitHub({}), lines.append, 1)
    for event in (BackupStarted("a"), RunFinished("r", "interrupted", 2)):
        groups.before(event)
        groups.after(event)
    assert lines == ["::group::backup a", "::endgroup::"]


def test_a_wrong_configuration_is_annotated_where_it_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "pipeline.yaml"
    path.write_text("name: shop\nstorages: {nas: {type: local, path: /x, siez: 1}}\n")
    path.chmod(0o600)
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_WORKSPACE", str(tmp_path))
    assert main(["check", str(path)]) == 78
    told = capsys.readouterr().err.splitlines()
    commands = [decode(line) for line in told if line.startswith("::")]
    assert ("error", {"file": "pipeline.yaml", "line": "2", "col": "41"}) in [
        (name, {key: places[key] for key in ("file", "line", "col")})
        for name, places, _ in commands
    ]
    assert main(["check", str(path), "--no-ci"]) == 78
    assert "::" not in capsys.readouterr().err
    monkeypatch.setenv("GITHUB_ACTIONS", "")
    assert main(["--ci", "check", str(path)]) == 78
    assert capsys.readouterr().err.count("::error") == len(commands)


def test_what_check_finds_is_annotated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "pipeline.yaml"
    path.write_text(f"""\
        name: shop
        storages:
          nas: {{type: local, path: {tmp_path}/good}}
          usb: {{type: local, path: /dev/null}}
        backups:
          etc:
            source: {{type: files, paths: [{tmp_path}]}}
            fan_out: [{{storage: nas}}, {{storage: usb, required: false}}]
    """)
    path.chmod(0o600)
    (tmp_path / "good").mkdir()
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    assert main(["check", str(path), "--connect"]) == 3
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("::")]
    (found,) = [decode(line) for line in told if "storage" in line]
    assert found[:2] == ("warning", {"title": "storage usb"})


def test_any_other_error_is_annotated_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    (tmp_path / "key").touch()
    assert main(["keygen", str(tmp_path / "key")]) == 1
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("::")]
    name, properties, text = decode(told[0])
    assert (name, properties) == ("error", {"title": "nxs-backup"})
    assert "never replaced" in text
