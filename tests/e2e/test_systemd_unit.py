"""What the systemd unit of the examples leaves to the program is enough for it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.e2e.conftest import ROOT
from tests.e2e.program import Program
from tests.servers.base import IS_ROOT, UID

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not IS_ROOT, reason="takes root, to give up what root may do"),
]
UNIT = (ROOT / "examples" / "systemd" / "nxs-backup.service").read_text()


def setting(name: str) -> list[str]:
    (value,) = re.findall(rf"^{name}=(.*)$", UNIT, re.MULTILINE)
    return str(value).split()


def permitted_calls(group: str) -> set[str]:
    """The system calls of a group, and of the groups in it."""
    command = ["systemd-analyze", "syscall-filter", "--no-pager", group]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")
    names = {
        line.strip() for line in told[1:] if line.strip() and not line.lstrip().startswith("#")
    }
    inner = {name for name in names if name.startswith("@")}
    return (names - inner).union(*(permitted_calls(each) for each in inner))


def test_what_the_unit_permits_is_enough(program: Program, tmp_path: Path) -> None:
    secret = tmp_path / "site" / "secret"
    secret.parent.mkdir(mode=0o700)
    secret.write_text("only its owner may read this")
    secret.chmod(0o600)
    for path in (secret, secret.parent):
        subprocess.run(["chown", str(UID), path], check=True)
    config = program.configure("""\
        name: unit
        storages:
          disk: {type: local, path: "{here}/disk"}
          away: {type: sftp, host: 127.0.0.1, port: 9, user: x, path: /x, timeout: 1s}
        notifiers:
          ops: {type: webhook, url: "http://127.0.0.1:9/", timeout: 1s}
        backups:
          site:
            source: {type: files, paths: ["{here}/site"]}
            stages: [{type: zstd}]
            fan_out: [{storage: disk, rotate: {last: 1}}, {storage: away, required: false}]
            notify: [ops]
          date:
            source: {type: command, command: [date]}
            fan_out: [{storage: disk}]
    """)
    kept = ",".join(
        f"+{name.removeprefix('CAP_').lower()}" for name in setting("CapabilityBoundingSet")
    )
    limits = [f"--bounding-set=-all,{kept}", "--inh-caps=-all", "--no-new-privs"]
    traced = ["strace", "-f", "-qq", "-o", str(tmp_path / "trace"), "setpriv", *limits]
    done = subprocess.run(
        [*traced, *program.command("run", config)],
        cwd=tmp_path,
        env=program.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3, done.stderr
    assert "not read" not in done.stdout
    program.ok("restore", config, "--backup", "site", "--to", "back")
    assert (tmp_path / "back" / str(secret)[1:]).read_text() == secret.read_text()

    trace = (tmp_path / "trace").read_text()
    called = set(re.findall(r"^\d+ +(\w+)\(", trace, re.MULTILINE))
    assert len(called) > 30
    permitted = set.union(*(permitted_calls(each) for each in setting("SystemCallFilter")))
    assert called - permitted - permitted_calls("@default") == set()
    families = set(re.findall(r"\bsocket\((AF_\w+)", trace))
    assert families <= set(setting("RestrictAddressFamilies"))
