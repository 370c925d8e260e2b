"""The demo on each system: files and a database to two folders, with zstd and age, verified,
restored and compared.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.portability.systems import (
    WORK,
    NotToBeHad,
    Result,
    System,
    debian,
    host,
    installed_pythons,
)

USER = 1000
SYSTEMS: dict[str, Callable[[], System]] = {
    "debian-12-oldstable": lambda: debian("bookworm"),
    "debian-13-stable": lambda: debian("trixie"),
    "debian-testing": lambda: debian("testing"),
    "debian-sid-python3.15": lambda: debian("sid", "python3.15"),
    "debian-13-arm64": lambda: debian("trixie", architecture="arm64"),
    "ubuntu-22.04": lambda: debian("jammy"),
    "ubuntu-24.04": lambda: debian("noble"),
}


def demo(system: System, work: Path, user: int = USER, setup: str = "", **env: str) -> Result:
    """Run the demo; `HOME` and what it makes are in the system's `/home`."""
    surroundings = {
        "HOME": f"/home/{user}",
        "NXS_BACKUP": f"{WORK}/nxs-backup.pyz",
        "NXS_DEMO": f"/home/{user}/demo",
        "PYTHON": system.python,
        "LANG": "C.UTF-8",
        **env,
    }
    # The demo of root makes it root's own.
    (work / "examples" / "quickstart.yaml").chmod(0o644)
    script = f"{WORK}/examples/demo.sh"
    return system.run(work, "sh", script, user=user, setup=setup, **surroundings)


def assert_demo(result: Result) -> None:
    """It went through to its end, and what came back is what there was."""
    assert result.code == 0, result.out[-2000:] + result.err[-4000:]
    assert "files and database are the same" in result.out


def had(make: Callable[[], System]) -> System:
    """A system, or the end of the test: some need another network than ours."""
    try:
        return make()
    except NotToBeHad as reason:
        pytest.skip(f"cannot be had here: {reason}")


@pytest.mark.parametrize("name", SYSTEMS)
def test_demo_runs_on(name: str, work: Path) -> None:
    system = had(SYSTEMS[name])
    version = system.run(work, system.python, "-V")
    print(f"{name}: {version.out.strip()}")
    assert_demo(demo(system, work))


@pytest.mark.parametrize("version", installed_pythons())
def test_demo_runs_with_python(version: str, work: Path) -> None:
    system = had(lambda: host(installed_pythons()[version]))
    assert_demo(demo(system, work, user=0))


def test_archive_for_one_platform_runs(work: Path) -> None:
    system = had(SYSTEMS["debian-13-stable"])
    (slim,) = work.glob("nxs-backup-x86_64-gnu.pyz")
    (work / "slim").mkdir()
    slim.rename(work / "slim" / "nxs-backup.pyz")
    assert_demo(demo(system, work, NXS_BACKUP=f"{WORK}/slim/nxs-backup.pyz"))


def test_python_that_is_too_old_is_told_so(work: Path) -> None:
    system = had(lambda: debian("bullseye"))
    result = system.run(work, system.python, f"{WORK}/nxs-backup.pyz", "version")
    assert (result.code, result.out) == (78, "")
    wanted = (
        r'nxs-backup: needs CPython 3\.10 to 3\.1\d, but "/usr/bin/python3" is 3\.9\.\d+: '
        r"put a python3\.1\d in PATH\n"
    )
    assert re.fullmatch(wanted, result.err)


def test_platform_that_is_not_inside_is_told_so(work: Path) -> None:
    system = had(SYSTEMS["debian-13-stable"])
    archive = f"{WORK}/nxs-backup-aarch64-gnu.pyz"
    result = system.run(work, system.python, archive, "version")
    assert (result.code, result.out) == (78, "")
    assert result.err == 'nxs-backup: this archive is for aarch64-gnu, not for "x86_64-gnu"\n'
