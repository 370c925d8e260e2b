"""Where the archive is unpacked: a private directory, whole or not there, and left alone."""

from __future__ import annotations

import fcntl
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.e2e.archive import WITH_PATCH, assert_refused, builds, inside, start
from tests.servers.base import IS_ROOT

pytestmark = pytest.mark.e2e


class TestCache:
    """No place to unpack to is an error; one that does not do is passed over."""

    def test_chosen_directory_that_cannot_be_made(self, pyz: Path) -> None:
        done = start(pyz, "version", cache=Path("/dev/null/cache"))
        assert_refused(done, '"/dev/null/cache": not a directory', "NXS_BACKUP_CACHE_DIR")

    def test_build_planted_by_others_is_not_run(self, pyz: Path, cache: Path) -> None:
        start(pyz, "version", cache=cache)
        (build,) = builds(cache)
        cache.chmod(0o777)
        (build / "pipeline" / "cli" / "main.py").write_text('raise SystemExit("planted")\n')
        assert_refused(start(pyz, "version", cache=cache), "others can write to it")

    def test_link_is_refused(self, pyz: Path, cache: Path, tmp_path: Path) -> None:
        cache.symlink_to(tmp_path)
        assert_refused(start(pyz, "version", cache=cache), f'"{cache}": ')

    def test_next_directory_is_taken_and_no_other(
        self, pyz: Path, cache: Path, tmp_path: Path
    ) -> None:
        spare = tmp_path / "spare"
        choice = ["/dev/null/x", "/proc/x", str(cache), str(spare)]
        done = start("-c", WITH_PATCH, pyz, f"_boot.candidates = lambda *_: {choice}", "version")
        assert done.returncode == 0, done.stderr
        assert len(builds(cache)) == 1
        assert not spare.exists()

    def test_full_disk_leaves_nothing(self, pyz: Path, cache: Path) -> None:
        # A limit on file sizes fails in the same place as a disk that has no room left.
        limit = (1 << 20, resource.RLIM_INFINITY)
        done = subprocess.run(
            [sys.executable, pyz, "version"],
            env={"NXS_BACKUP_CACHE_DIR": str(cache)},
            capture_output=True,
            text=True,
            check=False,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit),
        )
        assert_refused(done, f'"{cache}": file too large')
        assert not builds(cache)

    def test_what_a_killed_start_left_is_removed(self, pyz: Path, cache: Path) -> None:
        left = cache / ".unpacking-abc"
        left.mkdir(parents=True)
        cache.chmod(0o700)
        assert start(pyz, "version", cache=cache).returncode == 0
        assert not left.exists()

    def test_builds_out_of_use_are_removed(self, pyz: Path, cache: Path) -> None:
        for name, days in (("old", 31), ("recent", 1)):
            (cache / name).mkdir(parents=True)
            (cache / name / ".complete").touch()
            outdate(cache / name / ".complete", days)
        cache.chmod(0o700)
        start(pyz, "version", cache=cache)
        assert not (cache / "old").exists()
        assert (cache / "recent").exists()

    def test_build_that_somebody_runs_is_not_removed(self, pyz: Path, cache: Path) -> None:
        """`serve` runs for months, and imports what it needs when it needs it."""
        (cache / "old").mkdir(parents=True)
        cache.chmod(0o700)
        marker = cache / "old" / ".complete"
        marker.touch()
        with open(marker) as held:
            fcntl.flock(held, fcntl.LOCK_SH)
            outdate(marker)
            start(pyz, "version", cache=cache)
        assert marker.exists()

    def test_running_program_holds_its_build(self, pyz: Path, cache: Path) -> None:
        code = (
            "import fcntl, os, pipeline\n"
            "root = os.path.dirname(os.path.dirname(pipeline.__file__))\n"
            "with open(os.path.join(root, '.complete')) as marker:\n"
            "    try: fcntl.flock(marker, fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
            "    except BlockingIOError: print('held')\n"
        )
        assert inside(pyz, cache, code) == "held\n", "by the start that has unpacked it"
        assert inside(pyz, cache, code) == "held\n", "by a later start"

    def test_build_in_use_stays_young_to_what_cleans_temporary_directories(
        self, pyz: Path, cache: Path, configuration: Path
    ) -> None:
        start(pyz, "check", configuration, cache=cache)
        (build,) = builds(cache)
        files = [build / "pydantic" / "main.py", build / ".complete"]
        compiled = next((build / "pydantic" / "__pycache__").glob("main.*.pyc"))
        before = compiled.stat()
        for file in files:
            os.utime(file, (1e9, 1e9) if file.suffix else (time.time() - 90_000,) * 2)
        start(pyz, "check", configuration, cache=cache)
        for file in files:
            assert time.time() - file.stat().st_atime < 3600
        assert files[0].stat().st_mtime == 1e9, "bytecode knows its source by this time"
        assert files[1].stat().st_mtime > time.time() - 3600
        assert compiled.stat().st_atime > before.st_atime

    def test_later_starts_write_nothing(self, pyz: Path, cache: Path, configuration: Path) -> None:
        for _ in range(2):
            assert start(pyz, "check", configuration, cache=cache).returncode == 0
        before = state(cache)
        assert start(pyz, "check", configuration, cache=cache).returncode == 0
        assert state(cache) == before

    def test_build_of_an_earlier_boot_is_proved_once(self, pyz: Path, cache: Path) -> None:
        """After a loss of power, what was written last may be empty."""
        start(pyz, "version", cache=cache)
        (build,) = builds(cache)
        (build / ".complete").write_text("another boot")
        assert start(pyz, "version", cache=cache).returncode == 0
        assert (build / ".complete").read_bytes() == b""
        before = state(cache)
        assert start(pyz, "version", cache=cache).returncode == 0
        assert state(cache) == before

    @pytest.mark.parametrize("path", ["pipeline/cli/main.py", "yaml/nodes.py"])
    def test_build_that_was_damaged_by_a_loss_of_power_is_unpacked_anew(
        self, pyz: Path, cache: Path, path: str
    ) -> None:
        start(pyz, "version", cache=cache)
        (build,) = builds(cache)
        (build / ".complete").write_text("another boot")
        whole = (build / path).read_bytes()
        (build / path).write_bytes(b"")
        done = start(pyz, "version", cache=cache)
        assert (done.returncode, done.stderr) == (0, "")
        assert (build / path).read_bytes() == whole
        assert builds(cache) == [build]

    def test_directory_that_root_has_prepared_is_used(self, pyz: Path, cache: Path) -> None:
        """As in an image: it may belong to root, and be read-only."""
        if not IS_ROOT:
            pytest.skip("only root can prepare it for somebody else")
        assert start(pyz, "version", cache=cache).returncode == 0
        (build,) = builds(cache)
        (build / ".complete").write_text("the boot of another machine")
        before = state(cache)
        patch = "import os; os.geteuid = lambda: 12345; os.access = lambda *_: False"
        env = {"NXS_BACKUP_CACHE_DIR": str(cache)}
        done = start("-c", WITH_PATCH, pyz, patch, "version", env=env)
        assert (done.returncode, done.stderr) == (0, "")
        assert state(cache) == before

    def test_compiled_modules_load_where_nothing_may_be_executed(
        self, pyz: Path, cache: Path, configuration: Path
    ) -> None:
        # Mounting needs privileges; what the kernel would report about a noexec mount is replaced.
        patch = (
            "import os; real = os.statvfs\n"
            "class Noexec:\n"
            "    def __init__(self, path): self.f_flag = real(path).f_flag | os.ST_NOEXEC\n"
            "os.statvfs = Noexec\n"
            "import atexit\n"
            "atexit.register(lambda: print(open('/proc/self/maps').read()))"
        )
        env = {"NXS_BACKUP_CACHE_DIR": str(cache)}
        done = start("-c", WITH_PATCH, pyz, patch, "check", configuration, env=env)
        assert done.returncode == 0, done.stderr
        assert "/memfd:_pydantic_core" in done.stdout
        assert not [line for line in done.stdout.splitlines() if str(cache) in line]

    def test_libraries_of_compiled_modules_load_there_too(self, pyz: Path, cache: Path) -> None:
        if not IS_ROOT:
            pytest.skip("only root can mount")
        cache.mkdir()
        options = "noexec,size=300m,mode=700"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", cache], check=True)
        try:
            code = "from psycopg import pq; print(pq.__impl__, pq.version() > 0)"
            assert inside(pyz, cache, code) == "binary True\n"
        finally:
            subprocess.run(["umount", "-l", cache], check=True)


def outdate(path: Path, days: float = 31) -> None:
    """Make a file look unused for so long."""
    used = path.stat().st_mtime - days * 86400
    os.utime(path, (used, used))


def state(folder: Path) -> dict[str, tuple[int, ...]]:
    """What a write below a folder would change."""
    return {
        str(path): (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        for path in sorted(folder.rglob("*"))
        for status in [path.lstat()]
    }
