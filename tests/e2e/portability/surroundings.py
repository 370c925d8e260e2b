"""One system, made hostile: the archive starts and does its job all the same."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.portability.matrix import SYSTEMS, USER, assert_demo, demo, had
from tests.e2e.portability.systems import WORK, System

ARCHIVE = f"{WORK}/nxs-backup.pyz"
MEMORY = Path("/sys/fs/cgroup/memory")
LIMIT = 256 << 20
SLOW = """\
name: slow
storages: {here: {type: local, path: /home/backups}}
backups:
  slow:
    source: {type: command, command: [sh, -c, "echo begun; echo begun >&2; sleep 1000"]}
    fan_out: [{storage: here, rotate: {last: 1}}]
"""
NAMES = """\
name: names
storages: {here: {type: local, path: /home/1000/backups}}
backups:
  names:
    source: {type: files, paths: [/home/1000/data]}
    fan_out: [{storage: here, rotate: {last: 1}}]
"""


@pytest.fixture
def system() -> System:
    return had(SYSTEMS["debian-13-stable"])


def test_nobody_special_may_run_it(system: System, work: Path) -> None:
    assert_demo(demo(system, work, user=65534))


def test_root_runs_it(system: System, work: Path) -> None:
    assert_demo(demo(system, work, user=0))


@pytest.mark.parametrize("locale", [{"LANG": "C"}, {"LC_ALL": "POSIX", "PYTHONUTF8": "0"}])
def test_locale_and_time_zone_do_not_matter(
    system: System, work: Path, locale: dict[str, str]
) -> None:
    """Names are bytes, times are UTC."""
    (work / "names.yaml").write_text(NAMES)
    script = (
        "set -e; mkdir -p $HOME/data; for name in $(printf 'caf\\303\\251 \\377\\376'); do"
        ' echo "$name" > "$HOME/data/$name"; done; cd $HOME;'
        f" date -u +%Y-%m-%dT%H; $PYTHON {ARCHIVE} run {WORK}/names.yaml --json > report;"
        f" $PYTHON {ARCHIVE} restore {WORK}/names.yaml --backup names --to back;"
        " diff -r data back$HOME/data; find backups -type f"
    )
    surroundings = {"HOME": f"/home/{USER}", "PYTHON": system.python, "TZ": "Asia/Kathmandu"}
    result = system.run(work, "sh", "-c", script, user=USER, **surroundings, **locale)
    assert result.code == 0, result.err
    hour, *objects = result.out.splitlines()
    assert objects
    assert all(hour in name for name in objects)


def test_home_that_is_read_only(system: System, work: Path) -> None:
    """So is all but the folders for temporary files; what was chosen is said nowhere else."""
    setup = "mount -o remount,ro home; mount -o remount,ro,bind ."
    script = f"{system.python} {ARCHIVE} version; echo $?; ls -A /var/tmp/nxs-backup-{USER}"
    result = system.run(
        work, "sh", "-c", script, user=USER, setup=setup, HOME=f"/home/{USER}", LANG="C.UTF-8"
    )
    assert result.err == ""
    version, code, *inside = result.out.splitlines()
    assert version.startswith("nxs-backup ")
    assert (code, len(inside)) == ("0", 2), "the lock and the program"


def test_nothing_to_write_to(system: System, work: Path) -> None:
    setup = "for f in home tmp var/tmp var/cache .; do mount -o remount,ro,bind $f; done"
    result = system.run(
        work, system.python, ARCHIVE, "version", user=USER, setup=setup, HOME="/home/me"
    )
    assert (result.code, result.out) == (78, "")
    assert len(result.err.splitlines()) == 1
    assert "there is no directory to unpack into" in result.err
    assert "set NXS_BACKUP_CACHE_DIR" in result.err


def test_nothing_may_be_executed_where_it_may_write(system: System, work: Path) -> None:
    setup = "for f in home tmp var/tmp var/cache; do mount -o remount,noexec $f; done"
    assert_demo(demo(system, work, setup=setup))
    code = "import psycopg.pq as pq; print(pq.version())"
    patch = (
        "import sys, types; probe = types.ModuleType('probe'); sys.modules['probe'] = probe;"
        f"probe.main = lambda: exec({code!r}); import _boot; _boot._ENTRY = 'probe'"
    )
    start = (
        f"import runpy, sys; sys.argv = ['{ARCHIVE}']; sys.path.insert(0, sys.argv[0]);"
        f"exec({patch!r}); runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    result = system.run(
        work, system.python, "-c", start, user=USER, setup=setup, HOME=f"/home/{USER}"
    )
    assert result.code == 0, result.err
    assert int(result.out) >= 170000, "the libraries of a package are loaded from memory too"


def test_full_disk_is_passed_over(system: System, work: Path) -> None:
    setup = "mount -t tmpfs -o size=8m,mode=1777 none home"
    script = f"{system.python} {ARCHIVE} version; ls -A /home/{USER}/.cache/nxs-backup /var/tmp"
    result = system.run(work, "sh", "-c", script, user=USER, setup=setup, HOME=f"/home/{USER}")
    assert result.err == ""
    assert f"nxs-backup-{USER}" in result.out
    assert ".unpacking" not in result.out


def test_twenty_first_starts_at_once(system: System, work: Path) -> None:
    script = (
        f"for n in $(seq 20); do {system.python} {ARCHIVE} version > /home/out.$n 2>&1 &"
        " done; wait; cat /home/out.*; ls /home/.cache/nxs-backup"
    )
    result = system.run(work, "sh", "-c", script, user=USER, HOME="/home")
    *outputs, unpacked = result.out.splitlines()
    assert len(outputs) == 20
    assert len(set(outputs)) == 1
    assert outputs[0].startswith("nxs-backup ")
    assert re.fullmatch(r"[0-9a-f]{16}-x86_64-gnu-cp3\d+", unpacked)


def test_two_users_do_not_share(system: System, work: Path) -> None:
    """Where one has made what the other would use, the other goes elsewhere."""
    setup = f"mkdir -m 777 var/tmp/nxs-backup-{USER}"
    script = f"{system.python} {ARCHIVE} version; ls -A /var/tmp/nxs-backup-{USER}; ls -A /tmp"
    result = system.run(work, "sh", "-c", script, user=USER, setup=setup)
    assert result.err == ""
    assert result.out.splitlines()[-1] == f"nxs-backup-{USER}"


@pytest.fixture
def small_group() -> Iterator[Path]:
    """A control group with little memory; its pages of files are counted too."""
    group = MEMORY / f"nxs-backup-{os.getpid()}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(LIMIT))
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    yield group
    group.rmdir()


def test_256_mib_are_enough(system: System, work: Path, small_group: Path) -> None:
    """The folders of the system are in memory too, and in the same 256 MiB: so not these."""
    disk = work / "disk"
    disk.mkdir(mode=0o777)
    disk.chmod(0o777)
    setup = f"echo $$ > {small_group}/cgroup.procs; mount --bind {disk} home"
    assert_demo(demo(system, work, setup=setup))
    peak = int((small_group / "memory.max_usage_in_bytes").read_text())
    failed = int((small_group / "memory.failcnt").read_text())
    print(f"most memory, pages of files included: {peak >> 20} MiB; limit hit {failed} times")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_first_process_of_a_container_obeys_signals(
    system: System, work: Path, number: signal.Signals, tmp_path: Path
) -> None:
    """The kernel ignores a signal to the first process unless the program handles it."""
    (work / "slow.yaml").write_text(SLOW)
    home = tmp_path / "home"
    home.mkdir()
    process = system.start(
        work,
        *(system.python, ARCHIVE, "run", f"{WORK}/slow.yaml", "--backup", "slow"),
        setup=f"mount --bind {home} home",
    )
    deadline = time.monotonic() + 60
    while not list(home.rglob("*.sql*")) and not list(home.glob("backups/slow/*/*")):
        assert time.monotonic() < deadline, "it has not begun"
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    (first,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert Path(f"/proc/{first}/cmdline").read_bytes().startswith(system.python.encode())
    os.kill(int(first), number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert not [path for path in home.rglob("*") if path.is_file()], "nothing is left"
