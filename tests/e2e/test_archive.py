"""The archive as a program: it starts anywhere, on its own, once for everybody, or says why not."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.archive import WITH_PATCH, assert_refused, builds, start

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).resolve().parents[2]


class TestStart:
    def test_runs_without_any_environment(self, pyz: Path, tmp_path: Path) -> None:
        done = start(pyz, "version", cache=tmp_path / "cache")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("nxs-backup ")

    def test_runs_as_a_program(self, pyz: Path, cache: Path, tmp_path: Path) -> None:
        programs = tmp_path / "bin"
        programs.mkdir()
        (programs / "python3").symlink_to(sys.executable)
        env = {"PATH": str(programs), "NXS_BACKUP_CACHE_DIR": str(cache)}
        done = subprocess.run([pyz, "version"], env=env, capture_output=True, check=False)
        assert (done.returncode, done.stderr) == (0, b"")

    def test_bytecode_is_kept_in_the_cache_only(
        self, pyz: Path, cache: Path, configuration: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "host").mkdir()
        (tmp_path / "host" / "sitecustomize.py").write_text("import helper\n")
        (tmp_path / "host" / "helper.py").write_text("")
        env = {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(tmp_path / "host")}
        done = start(pyz, "check", configuration, cache=cache, env=env)
        assert done.returncode == 0, done.stderr
        (build,) = builds(cache)
        assert list(build.glob("pydantic/__pycache__/*.pyc"))
        assert not list((tmp_path / "host").rglob("*.pyc"))

    def test_eight_first_starts_at_once_share_one_unpacking(self, pyz: Path, cache: Path) -> None:
        env = {"NXS_BACKUP_CACHE_DIR": str(cache)}
        command = [sys.executable, str(pyz), "version"]
        running = [
            subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            for _ in range(8)
        ]
        outputs = {process.communicate()[0] for process in running}
        assert [process.returncode for process in running] == [0] * 8
        assert len(outputs) == 1
        assert len(builds(cache)) == 1


class TestHost:
    """What is installed on the host must not matter."""

    @pytest.mark.parametrize("variable", ["PYTHONPATH", "PYTHONUSERBASE"])
    def test_packages_are_ignored(
        self, pyz: Path, cache: Path, configuration: Path, tmp_path: Path, variable: str
    ) -> None:
        site = tmp_path / f"lib/python3.{sys.version_info[1]}/site-packages"
        site.mkdir(parents=True)
        for name in ("pydantic", "pipeline", "schemas"):
            (site / f"{name}.py").write_text('raise RuntimeError("poisoned")\n')
        env = {variable: str(site if variable == "PYTHONPATH" else tmp_path)}
        # A virtual environment has no user site; the Python it was made from does.
        python = str(Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info[1]}")
        assert "poisoned" in start("-c", "import pydantic", python=python, env=env).stderr
        done = start(pyz, "check", configuration, python=python, cache=cache, env=env)
        assert done.returncode == 0, done.stderr

    def test_what_the_host_imported_before_us_is_dropped(
        self, pyz: Path, cache: Path, configuration: Path, tmp_path: Path
    ) -> None:
        host = tmp_path / "host"
        (host / "anyio").mkdir(parents=True)
        (host / "anyio" / "__init__.py").write_text("")
        (host / "backports").mkdir()  # a namespace package of the host would hide ours
        (host / "hook.py").write_text(HOOK)
        (host / "sitecustomize.py").write_text("import anyio, backports, hook\n")
        env = {"PYTHONPATH": str(host)}
        done = start(pyz, "check", configuration, cache=cache, env=env)
        assert done.returncode == 0, done.stderr


HOOK = """\
import sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "pydantic":
            raise RuntimeError("poisoned")
sys.meta_path.insert(0, Finder())
"""


class TestPython:
    """A Python that does not fit is told so, or replaced by one in PATH that does."""

    def test_old_python_is_refused(self, pyz: Path, tmp_path: Path) -> None:
        env = {"PATH": str(tmp_path)}
        assert_refused(start_as_old(pyz, env), "needs CPython 3.", "is 3.9.2", "put a python3.")
        old = old_python()
        if old:
            done = start(pyz, "version", python=old, env=env)
            assert_refused(done, "needs CPython 3.", f'"{old}" is ')

    def test_fitting_python_in_path_takes_over(
        self, pyz: Path, cache: Path, tmp_path: Path
    ) -> None:
        fitting = tmp_path / f"python3.{sys.version_info[1]}"
        fitting.symlink_to(sys.executable)
        env = {"PATH": str(tmp_path), "NXS_BACKUP_CACHE_DIR": str(cache)}
        done = start_as_old(pyz, env, "version")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("nxs-backup ")

    def test_program_that_only_has_the_name_is_passed_over(self, pyz: Path, tmp_path: Path) -> None:
        shim = tmp_path / f"python3.{sys.version_info[1]}"
        shim.write_text("#!/bin/sh\necho 'command not found' >&2\nexit 127\n")
        shim.chmod(0o755)
        assert_refused(start_as_old(pyz, {"PATH": str(tmp_path)}), "needs CPython 3.")

    def test_start_up_code_has_no_syntax_of_python_3(self) -> None:
        """What makes an old Python fail while it parses cannot be told by it."""
        source = (ROOT / "zipapp" / "boot" / "__main__.py").read_text()
        for construct in (' f"', " f'", "->", ":=", "async ", "nonlocal ", "yield from"):
            assert construct not in source


def start_as_old(
    archive: Path, env: dict[str, str], *arguments: str
) -> subprocess.CompletedProcess[str]:
    """Run the start-up code as if by Python 3.9.2."""
    program = (
        "import runpy, sys; sys.argv = sys.argv[1:]; sys.version_info = (3, 9, 2, 'final', 0);"
        " runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    return start("-c", program, archive, *arguments, env=env)


def old_python() -> str | None:
    """A real Python that is too old, if this machine has one."""
    for name in ("python2.7", "python3.6", "python3.7", "python3.8", "python3.9"):
        found = [shutil.which(name), *Path("~/.pyenv/versions").expanduser().glob(f"*/bin/{name}")]
        for python in filter(None, found):
            # A version manager leaves programs of that name that only print an error.
            command = [python, "-c", "import sys; print(sys.executable)"]
            real = subprocess.run(command, capture_output=True, text=True, check=False)
            if real.returncode == 0:
                return real.stdout.strip()
    return None


class TestDamage:
    """A damaged download says so, whatever is missing."""

    @pytest.mark.parametrize("share", [0.02, 0.3, 0.5, 0.9, 0.999, 0.99999])
    def test_truncated_archive(self, pyz: Path, tmp_path: Path, share: float) -> None:
        content = pyz.read_bytes()
        damaged = tmp_path / "damaged.pyz"
        damaged.write_bytes(content[: int(len(content) * share)])
        done = start(damaged, "version", cache=tmp_path / "cache")
        assert_refused(done, f'"{damaged}" is damaged', "download it again")

    def test_archive_without_its_last_bytes(self, pyz: Path, tmp_path: Path) -> None:
        """Those are where a reader looks for the end of a zip file."""
        content = pyz.read_bytes()
        damaged = tmp_path / "damaged.pyz"
        for missing in range(1, 30):
            damaged.write_bytes(content[:-missing])
            done = start(damaged, "version", cache=tmp_path / "cache")
            if missing <= 18:  # Not even a zip file to Python: it speaks, and not we.
                words = "SyntaxError: encoding problem: nxs-backup-is-damaged--download-it-again"
                assert (done.returncode, done.stdout, done.stderr) == (1, "", words + "\n")
            else:
                assert_refused(done, f'"{damaged}" is damaged: its end is missing, download it')

    @pytest.mark.parametrize("share", [0.1, 0.35, 0.6, 0.95])
    def test_archive_with_wrong_bytes(self, pyz: Path, tmp_path: Path, share: float) -> None:
        content = bytearray(pyz.read_bytes())
        at = int(len(content) * share)
        content[at : at + 2000] = bytes(byte ^ 0xFF for byte in content[at : at + 2000])
        damaged = tmp_path / "damaged.pyz"
        damaged.write_bytes(content)
        done = start(damaged, "version", cache=tmp_path / "cache")
        assert_refused(done, f'"{damaged}" is damaged', "download it again")
        assert not builds(tmp_path / "cache")

    def test_wrong_checksum_of_a_file(self, pyz: Path, cache: Path) -> None:
        """xz checks only what is read to its end; an archive for several Pythons is not."""
        patch = "import binascii; binascii.crc32 = lambda data: -1"
        env = {"NXS_BACKUP_CACHE_DIR": str(cache)}
        done = start("-c", WITH_PATCH, pyz, patch, "version", env=env)
        assert_refused(done, f'"{pyz}" is damaged: the checksum of ')
        assert not builds(cache)
