"""`convert`: configurations of nxs-backup v3 become ours, load, and keep no secret."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from pipeline.cli.main import main
from pipeline.context import StageContext
from pipeline.convert.convert import Converted, convert
from pipeline.convert.files import pattern
from pipeline.convert.proof import problems_of
from pipeline.convert.report import to_env_file, to_report
from pipeline.convert.write import scalar, to_yaml
from schemas.document import parse, plain
from schemas.load import load
from schemas.problems import Problems
from schemas.sources import FilesSource
from schemas.v3.load import read
from stages.sources.files import Files

FIXTURES = Path(__file__).parents[1] / "fixtures" / "v3"
VARIABLES = {
    "WITH_GZIP": "yes",
    "SMTP_USER": "backup@orchard.example",
    "SMTP_PASS": "smtp-pass",
    "ALERT_URL": "https://alert.example/v2",
    "ALERT_KEY": "alert-key",
    "PSQL_HOST": "pg.orchard.example",
    "PSQL_PORT": "6432",
    "PSQL_USER": "dumper",
    "PSQL_PASS": "pg-pass",
    "S3_ACCESS_KEY": "AK",
    "S3_SECRET_KEY": "SK",
}
CONFIGURATIONS = ["split/nxs-backup", "container", "cluster"]
SECRETS = """
m@il-secret chat-secret header-secret s3-secret scp-secret smb-secret dav-secret drive-token
ftp-secret my$ecret pg-secret repl-secret mongo-secret redis-secret root-secret
https://hooks.chat.example/services/T000/B000/xyz
""".split()  # noqa: SIM905


def converted(name: str, keep_secrets: bool = False) -> Converted:
    return convert(read(str(FIXTURES / f"{name}.conf"), VARIABLES), keep_secrets)


def text_of(result: Converted) -> str:
    return to_yaml(result.document, result.notes.comments)


def filled(text: str) -> Mapping[str, str]:
    """Values for all variables of a configuration."""
    names = {part.partition("}")[0] for part in text.split("${")[1:]}
    ours = {name: "https://a.example/b" if name.endswith("URL") else "value" for name in names}
    return {**ours, **VARIABLES}


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_the_result_is_as_reviewed(name: str) -> None:
    expected = FIXTURES / f"{name}.expected.yaml"
    assert text_of(converted(name)) == expected.read_text()


@pytest.mark.parametrize("keep_secrets", [False, True])
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_the_result_loads_without_a_warning(name: str, keep_secrets: bool, tmp_path: Path) -> None:
    text = text_of(converted(name, keep_secrets))
    assert problems_of(text, "pipeline.yaml") == []
    file = tmp_path / "pipeline.yaml"
    file.touch(0o600)
    file.write_text(text)
    assert load(file, filled(text)).warnings == []


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_no_secret_is_in_anything_that_is_written(name: str) -> None:
    result = converted(name)
    everything = text_of(result) + to_report(result.notes, [], []) + to_env_file(result.notes)
    assert [secret for secret in SECRETS if secret in everything] == []


def test_secrets_can_be_kept() -> None:
    text = text_of(converted("split/nxs-backup", keep_secrets=True))
    assert [s for s in SECRETS if s not in text.replace("$$", "$") and s != "root-secret"] == []
    assert converted("split/nxs-backup", keep_secrets=True).notes.secrets == []


def test_equal_secrets_share_a_variable_and_others_never_do() -> None:
    notes = converted("split/nxs-backup").notes
    names = [secret.variable for secret in notes.secrets]
    assert len(names) == len(set(names)) == 15
    template = to_env_file(notes)
    assert [line for line in template.splitlines() if line[0] != "#"] == [f"{n}=" for n in names]


def test_the_report_says_what_is_to_be_decided_and_where() -> None:
    found = read(str(FIXTURES / "split/nxs-backup.conf"), VARIABLES)
    report = to_report(convert(found).notes, found.warnings, [])
    assert "## To decide by hand" in report
    line = next(
        number
        for number, text in enumerate((FIXTURES / "split/nxs-backup.conf").read_text().split("\n"))
        if "insecure_tls" in text
    )
    assert f"webhooks[0].insecure_tls, {FIXTURES}/split/nxs-backup.conf:{line + 1}" in report
    for words in (
        "the host key was not checked",
        "old copies were removed before the new one was made",
        "password in the list of processes",
        "one message for each line of its log",
        "old months were removed although later ones build on them",
        "without target_dbs, v3 saved nothing and called it well",
    ):
        assert words in report, words
    # Job "uploads" rotated after the backup, and is not accused.
    assert "conf.d/20-inc.conf:4" not in report.partition("removed before the new one")[2][:400]


def test_a_finding_stands_once_with_all_its_places() -> None:
    report = to_report(converted("split/nxs-backup").notes, [], [])
    lines = [line for line in report.splitlines() if line.startswith("- ")]
    assert len(lines) == len(set(lines))


# -- the command -----------------------------------------------------------------------------------


def run(*arguments: str | Path) -> int:
    return main(["convert", *map(str, arguments)])


def test_the_command_writes_files_that_pass_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    output, report = tmp_path / "pipeline.yaml", tmp_path / "report.md"
    source = FIXTURES / "split/nxs-backup.conf"
    assert run(source, "--output", output, "--report", report) == 0
    environment = tmp_path / "pipeline.env"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "pipeline.env",
        "pipeline.yaml",
        "report.md",
    ]
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}
    values = filled(output.read_text())
    lines = environment.read_text().splitlines()
    environment.write_text(
        "\n".join(f"{x}{values[x[:-1]]}" if x.endswith("=") else x for x in lines)
    )
    # `check` looks for programs that a run needs; this one is nowhere.
    output.write_text(output.read_text().replace("/usr/local/bin/dump-ldap.sh", "/bin/true"))
    capsys.readouterr()
    assert main(["check", str(output), "--env-file", str(environment)]) == 0
    assert "problem" not in capsys.readouterr().err


def test_without_files_yaml_goes_to_stdout_and_the_report_to_stderr(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WITH_GZIP", "yes")
    assert run(FIXTURES / "container.conf") == 0
    out, err = capsys.readouterr()
    assert out == (FIXTURES / "container.expected.yaml").read_text()
    assert err.startswith("# Conversion from nxs-backup v3")


def test_nothing_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "report.md"
    report.write_text("mine")
    output = tmp_path / "pipeline.yaml"
    assert run(FIXTURES / "container.conf", "--output", output, "--report", report) == 1
    assert "exists already" in capsys.readouterr().err
    assert report.read_text() == "mine"
    assert not output.exists()


# -- wrong files -----------------------------------------------------------------------------------

JOB = """
jobs:
- job_name: files
  type: desc_files
"""
WRONG = {
    "not YAML": ("jobs: [", ":1:8: a value is missing"),
    "empty": ("", ": must be a mapping"),
    "no jobs": ("server_name: a\n", "jobs: is empty, so that there is nothing to convert"),
    "v2": ("main:\n  server_name: a\njobs: []\n".replace("jobs: []\n", ""), "is of nxs-backup v2"),
    "unknown type": (
        "jobs:\n- job_name: a\n  type: mysqldump\n",
        ":3:9: jobs[0].type: unknown type of entry",
    ),
    "reserved name": (
        "jobs:\n- job_name: databases\n  type: redis\n",
        ":2:13: jobs[0].job_name: must not be files, databases or external",
    ),
    "missing": ("jobs:\n- type: redis\n", "jobs[0].job_name: is missing"),
    "unknown storage": (
        "jobs:\n- job_name: a\n  type: redis\n  storages_options:\n"
        "  - {storage_name: nas, backup_path: /a, retention: {}}\n",
        ":5:20: jobs[0].storages_options[0].storage_name: is no entry of storage_connects",
    ),
    "no way to connect": (
        "storage_connects:\n- name: a\njobs:\n- {job_name: a, type: redis}\n",
        ":2:3: storage_connects[0]: says not how to connect",
    ),
    "storage twice": (
        "storage_connects:\n"
        "- {name: a, ftp_params: {host: h}}\n- {name: a, ftp_params: {host: h}}\n"
        "jobs:\n- {job_name: a, type: redis}\n",
        ":3:10: storage_connects[1].name: is defined twice",
    ),
    "a rate": (
        "limits: {net_rate: fast}\njobs:\n- {job_name: a, type: redis}\n",
        ":1:20: limits.net_rate: must be a rate",
    ),
    "a number": (
        "storage_connects:\n- name: a\n  sftp_params: {host: h, user: u, port: ssh}\n"
        "jobs:\n- {job_name: a, type: redis}\n",
        ":3:41: storage_connects[0].sftp_params.port: must be a whole number, or ENV:NAME",
    ),
    "negative": (
        "jobs:\n- job_name: a\n  type: redis\n  storages_options:\n"
        "  - {storage_name: local, backup_path: /a, retention: {days: -1}}\n",
        ":5:62: jobs[0].storages_options[0].retention.days: must be at least 0",
    ),
    "variable not set": (
        "jobs:\n- job_name: ENV:NO_SUCH_NAME\n  type: redis\n",
        ':2:13: jobs[0].job_name: comes from the variable "NO_SUCH_NAME", which is not set here',
    ),
    "external without a program": (
        "jobs:\n- job_name: a\n  type: external\n",
        ":2:3: jobs[0]: needs dump_cmd",
    ),
    "truth": (
        "jobs:\n- job_name: a\n  type: redis\n  gzip: perhaps\n",
        ":4:9: jobs[0].gzip: must be true or false",
    ),
}


@pytest.mark.parametrize(("text", "expected"), WRONG.values(), ids=WRONG)
def test_a_wrong_file_is_explained_with_its_place(
    text: str, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "nxs-backup.conf"
    file.write_text(text)
    assert run(file) == 78
    out, err = capsys.readouterr()
    assert out == ""
    assert f"{file}:" in err
    assert expected in err


def test_a_missing_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path / "none.conf") == 78
    assert "none.conf:1:1: cannot be read: no such file" in capsys.readouterr().err


def test_a_wrong_job_is_found_in_the_file_it_is_in(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "nxs-backup.conf").write_text("include_jobs_configs: [conf.d/*.conf, no/*]\n")
    (tmp_path / "conf.d" / "a.conf").write_text("job_name: a\ntype: redis\nsource: []\n")
    (tmp_path / "conf.d" / "b.conf").write_text("job_name: b\ntype: reddis\n")
    assert run(tmp_path / "nxs-backup.conf") == 78
    err = capsys.readouterr().err
    assert "conf.d/b.conf:2:7: jobs[1].type" in err
    assert "conf.d/a.conf:3:1: warning: jobs[0].source: is no key of v3" in err
    assert "include_jobs_configs[1]: matches no file" in err


# -- pieces ----------------------------------------------------------------------------------------


ODD = """
7d 12 0x1f 1e5 yes no On null ~ - -- --x= a:b a: :a https://a/b {a} [a] #a a#b & *a !a | > % @ `
2026-11-23 1:30 .5 .inf NaN true False '' " \\ é ${A} $$ a,b
""".split()  # noqa: SIM905


@pytest.mark.parametrize("value", [*ODD, "", " ", "a b", "a\tb", "a\nb", "a: b", "a #b"])
def test_every_text_comes_back_from_yaml_as_it_was(value: str) -> None:
    for text in (
        f"key: {scalar(value)}",
        f"key: [{scalar(value)}]",
        f"key: {{a: {scalar(value)}}}",
    ):
        node = parse(text.encode(), "x", Problems())
        assert node is not None
        found = plain(node)
        assert found["key"] in (value, [value], {"a": value})
        assert type(found["key"]) in (str, list, dict)


TREE = """
log tmp/a tmp/b deep/tmp/c deep/cache/x cache/y keep/log.txt keep/thumbs-1/z thumbsup keep/a.bak
bitrix/q sub/bitrixes/r deep/er/tmp
""".split()  # noqa: SIM905
EXCLUDES = ["tmp", "log", "cache/*", "**/bitrix**", "*.bak", "thumbs*", "deep/tmp", "deep/cache/x"]


@pytest.mark.parametrize("exclude", EXCLUDES)
def test_an_exclude_leaves_out_what_tar_left_out(exclude: str, tmp_path: Path) -> None:
    root = tmp_path / "site"
    for name in TREE:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    assert_same_members(root, exclude)
    assert_same_members(root, f"{root}/{exclude}" if "*" not in exclude else exclude)


def assert_same_members(root: Path, exclude: str) -> None:
    # tar also matches the parts of the path above; that left out a whole /tmp/site for "tmp".
    where = [str(root)] if exclude.startswith("/") else ["-C", str(root.parent), root.name]
    command = ["tar", "--format=pax", f"--exclude={exclude}", "--create", "--file=-", *where]
    archive = subprocess.run(command, capture_output=True, check=True).stdout
    names = "absolute" if exclude.startswith("/") else "relative"
    spec = FilesSource(type="files", paths=[str(root)], exclude=[pattern(exclude)], names=names)
    source = Files(spec)
    ours = b"".join(source.stream(source.artifacts()[0], StageContext()))
    assert members(ours) == members(archive)


def members(archive: bytes) -> set[str]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return {member.name.strip("/") for member in tar}


def test_two_storages_that_are_one_place_become_one(tmp_path: Path) -> None:
    file = tmp_path / "nxs-backup.conf"
    file.write_text(
        "storage_connects:\n"
        "- {name: one, scp_params: {host: h, user: u, password: p}}\n"
        "- {name: two, sftp_params: {host: h, user: u, password: p}}\n"
        "jobs:\n- job_name: a\n  type: desc_files\n  sources: [{name: s, targets: [/etc]}]\n"
        "  storages_options:\n"
        "  - {storage_name: one, backup_path: /b, retention: {}}\n"
        "  - {storage_name: two, backup_path: /b/, retention: {}}\n"
    )
    result = convert(read(str(file), {}))
    assert list(result.document["storages"]) == ["one"]
    assert [branch["storage"] for branch in result.document["backups"]["a"]["fan_out"]] == ["one"]
    assert any("the same place" in finding.message for finding in result.notes.findings)


def test_tables_excluded_in_one_database_stay_excluded_there_alone() -> None:
    backups = converted("split/nxs-backup").document["backups"]
    whole, shop = backups["postgres"]["source"], backups["postgres-shop"]["source"]
    assert whole["exclude"] == ["postgres", "shop"]
    assert "exclude_tables" not in whole
    assert (shop["databases"], shop["exclude_tables"]) == (["shop"], ["audit.events"])
    assert shop["globals"] is False


def test_files_of_the_conversion_cannot_be_read_by_others(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        assert run(FIXTURES / "container.conf", "--output", tmp_path / "a.yaml") == 0
    finally:
        os.umask(old)
    assert (tmp_path / "a.yaml").stat().st_mode & 0o077 == 0
