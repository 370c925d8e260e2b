"""The main job, as a user runs it: a nasty tree, two storages, and back with standard tools."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests import tree
from tests.e2e.program import Program, files_below
from tests.servers.base import HOST
from tests.servers.http import HttpSink
from tests.servers.sshd import USER, Sshd

pytestmark = pytest.mark.e2e

CONFIGURATION = """\
    name: shop
    host: web-1
    storages:
      nas:
        type: sftp
        host: {host}
        port: {port}
        user: {user}
        key_file: {key}
        known_hosts: {known_hosts}
        path: {remote}
      disk: {type: local, path: "{here}/disk"}
    notifiers:
      ops: {type: webhook, url: "{url}"}
    backups:
      site:
        source: {type: files, paths: ["{here}/source"]}
        stages:
          - {type: zstd}
          - {type: age, recipients_file: "{here}/key.pub", identity_file: "{here}/key.txt"}
        fan_out:
          - {storage: nas, rotate: {last: 2}}
          - {storage: disk, rotate: {last: 1}, required: false}
        notify: [ops]
"""


@pytest.fixture
def remote(sshd: Sshd, tmp_path: Path) -> Path:
    return sshd.data / tmp_path.name


def configure(program: Program, sshd: Sshd, remote: Path, url: str) -> Path:
    program.run("keygen", "key.txt")
    public = program.run("keygen", "other.txt").stdout  # more than one may restore
    mine = (program.folder / "key.txt").read_text().split("public key: ")[1].split()[0]
    (program.folder / "key.pub").write_text(f"{mine}\n{public}")
    text = CONFIGURATION
    values = {
        "host": HOST,
        "port": sshd.port,
        "user": USER,
        "key": sshd.key,
        "known_hosts": sshd.known_hosts(),
        "remote": remote,
        "url": url,
    }
    for name, value in values.items():
        text = text.replace("{" + name + "}", str(value))
    return program.configure(text)


def test_from_tree_to_two_storages_and_back(program: Program, sshd: Sshd, remote: Path) -> None:
    source = program.folder / "source"
    tree.build(source)
    with HttpSink() as sink:
        config = configure(program, sshd, remote, sink.url("/hook"))
        reports = [program.json("run", config) for _ in range(3)]

    for report in reports:
        assert report["outcome"] == "ok", report
    told = [json.loads(request.body) for request in sink.received]
    assert [message["report"]["run"] for message in told] == [report["run"] for report in reports]
    assert "[ok] shop on web-1" in told[0]["text"]

    listed = program.json("list", config)["backups"]
    assert [entry["storage"] for entry in listed] == ["nas", "nas", "disk"], "rotation"
    assert all(entry["damage"] is None for entry in listed)
    runs = [entry["manifest"]["run"] for entry in listed]
    assert runs == [reports[1]["run"], reports[2]["run"], reports[2]["run"]]

    proofs = program.json("verify", config, "--at", "all")["verified"]
    assert [proof["outcome"] for proof in proofs] == ["proved"] * 3

    restore_by_hand(program.folder / "disk", listed[2], program.folder / "key.txt", source)
    restore_by_hand(remote, listed[1], program.folder / "other.txt", source)

    program.ok("restore", config, "--backup", "site", "--storage", "nas", "--to", "back")
    assert tree.differences(source, program.folder / "back" / str(source)[1:]) == []


def restore_by_hand(storage: Path, entry: dict[str, object], key: Path, source: Path) -> None:
    """Run the line of the manifest, with standard tools alone."""
    manifest = entry["manifest"]
    assert isinstance(manifest, dict)
    target = key.parent / f"by-hand-{entry['storage']}"
    target.mkdir()
    stored = (storage / str(entry["path"])).parent
    line = manifest["restore"].replace("KEY_FILE", str(key))
    line = line.replace(f"< {manifest['object']}", f"< {stored / manifest['object']}")
    subprocess.run(["bash", "-o", "pipefail", "-c", line], cwd=target, check=True)
    assert tree.differences(source, target / str(source)[1:]) == []
    shutil.rmtree(target)


def test_the_layout_on_the_storage(program: Program) -> None:
    config = program.configure("""\
        name: shop
        storages: {disk: {type: local, path: "{here}/disk"}}
        backups:
          crm-db:
            source: {type: command, command: [echo, hello], name: "crm/prod", suffix: .sql}
            stages: [{type: gzip}]
            fan_out: [{storage: disk}]
    """)
    report = program.json("run", config)
    branch = report["backups"][0]["artifacts"][0]["branches"][0]
    names = files_below(program.folder / "disk")
    assert names == [branch["object"], branch["object"] + ".manifest.json"]
    stamp = report["started"].replace(":", "-")
    assert names[0].startswith("crm-db/crm%2Fprod/crm%2Fprod_" + stamp[:13])
    assert names[0].endswith("Z.sql.gz")
    unpacked = subprocess.run(
        ["gzip", "-dc", program.folder / "disk" / names[0]], capture_output=True, check=True
    )
    assert unpacked.stdout == b"hello\n"


def test_restore_at_a_time_to_a_file_and_to_stdout(program: Program) -> None:
    config = program.configure("""\
        name: shop
        storages: {disk: {type: local, path: "{here}/disk"}}
        backups:
          note:
            source: {type: stdin, suffix: .txt}
            stages: [{type: xz, level: 1}]
            fan_out: [{storage: disk}]
    """)
    for text in (b"one", b"two"):
        program.ok("run", config, stdin=text)
    listed = program.json("list", config)["backups"]
    first = listed[0]["manifest"]["taken_at"]
    assert program.ok("restore", config, "--backup", "note", "--stdout") == "two"
    assert program.ok("restore", config, "--backup", "note", "--at", first, "--stdout") == "one"
    program.ok("restore", config, "--backup", "note", "--to", "out.txt")
    assert (program.folder / "out.txt").read_text() == "two"
    again = program.run("restore", config, "--backup", "note", "--to", "out.txt")
    assert again.returncode == 1
    assert "--overwrite" in again.stderr
    program.ok(
        "restore", config, "--backup", "note", "--at", first, "--to", "out.txt", "--overwrite"
    )
    assert (program.folder / "out.txt").read_text() == "one"


def test_restore_takes_the_copy_that_works(program: Program) -> None:
    config = program.configure("""\
        name: shop
        storages:
          one: {type: local, path: "{here}/one"}
          two: {type: local, path: "{here}/two"}
        backups:
          note:
            source: {type: stdin}
            stages: [{type: zstd}]
            fan_out: [{storage: one}, {storage: two}]
    """)
    program.ok("run", config, stdin=b"precious")
    stored = program.json("list", config)["backups"][0]["path"]
    (program.folder / "one" / stored).unlink()
    assert program.ok("restore", config, "--backup", "note", "--stdout") == "precious"


def test_verify_tells_damage_from_health(program: Program) -> None:
    config = program.configure("""\
        name: shop
        storages:
          one: {type: local, path: "{here}/one"}
          two: {type: local, path: "{here}/two"}
        backups:
          note:
            source: {type: command, command: [head, -c, "3000000", /dev/urandom]}
            stages: [{type: zstd}, {type: age, recipients_file: "{here}/key.pub"}]
            fan_out: [{storage: one}, {storage: two}]
    """)
    (program.folder / "key.pub").write_text(program.ok("keygen", "key.txt"))
    program.ok("run", config)
    blind = program.json("verify", config, code=3)["verified"]
    assert [proof["outcome"] for proof in blind] == ["digest", "digest"]
    program.ok("verify", config, "--digest-only")
    program.ok("verify", config, "--identity", "key.txt")

    stored = program.folder / "one" / program.json("list", config)["backups"][0]["path"]
    data = bytearray(stored.read_bytes())
    data[len(data) // 2] ^= 1
    stored.write_bytes(data)
    done = program.run("verify", config, "--identity", "key.txt", "--json")
    assert done.returncode == 1
    assert [p["outcome"] for p in json.loads(done.stdout)["verified"]] == ["failed", "proved"]
    stored.write_bytes(data[:-1])
    assert "the object has" in program.run("verify", config, "--digest-only").stdout


def test_a_manifest_that_cannot_be_read_is_told(program: Program) -> None:
    config = program.configure(NOTE)
    program.ok("run", config, stdin=b"one")
    manifest = next((program.folder / "disk").rglob("*.manifest.json"))
    manifest.write_bytes(manifest.read_bytes()[:100])
    assert program.run("verify", config, "--at", "all").returncode == 1
    listed = program.run("list", config)
    assert listed.returncode == 1
    assert "cannot be read" in listed.stderr


def test_restore_does_not_mistake_the_backup_of_another_host_for_ours(program: Program) -> None:
    alpha = program.configure(NOTE.replace("name: shop", "name: shop\n    host: alpha"), "a.yaml")
    beta = program.configure(NOTE.replace("name: shop", "name: shop\n    host: beta"), "b.yaml")
    program.ok("run", beta, stdin=b"I am beta")
    refused = program.run("restore", alpha, "--backup", "note", "--stdout")
    assert refused.returncode == 1
    assert "--host: beta" in refused.stderr
    wanted = ("restore", alpha, "--backup", "note", "--stdout", "--host", "beta")
    assert program.ok(*wanted) == "I am beta"
    program.ok("run", alpha, stdin=b"I am alpha")
    assert program.ok("restore", alpha, "--backup", "note", "--stdout") == "I am alpha"


NOTE = """\
    name: shop
    storages: {disk: {type: local, path: "{here}/disk"}}
    backups:
      note:
        source: {type: stdin}
        fan_out: [{storage: disk}]
"""


@pytest.mark.parametrize(
    ("required", "code", "outcome"), [(False, 3, "partial"), (True, 1, "failed")]
)
def test_report_and_webhook_tell_which_storage_failed(
    program: Program, required: bool, code: int, outcome: str
) -> None:
    (program.folder / "file").write_text("where a folder should be")
    with HttpSink() as sink:
        config = program.configure(f"""\
            name: shop
            storages:
              good: {{type: local, path: "{{here}}/good"}}
              bad: {{type: local, path: "{{here}}/file/bad"}}
            notifiers: {{ops: {{type: webhook, url: "{sink.url()}", level: warning}}}}
            backups:
              it:
                source: {{type: command, command: [echo, hi]}}
                fan_out: [{{storage: good}}, {{storage: bad, required: {str(required).lower()}}}]
                notify: [ops]
        """)
        report = program.json("run", config, code=code)
    told = json.loads(sink.received[0].body)
    assert report["outcome"] == told["report"]["outcome"] == outcome
    branches = told["report"]["backups"][0]["artifacts"][0]["branches"]
    assert [(branch["storage"], branch["outcome"]) for branch in branches] == [
        ("good", "ok"),
        ("bad", "failed"),
    ]
    assert "not a directory" in branches[1]["error"]
    assert f"shop on {report['host']}: {outcome}" in told["text"]
    assert len(files_below(program.folder / "good")) == 2
