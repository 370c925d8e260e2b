"""Imports point one way: schemas <- pipeline <- stages; stages are imported when used."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAY_IMPORT = {
    "schemas": {"schemas"},
    "pipeline": {"schemas", "pipeline"},
    "stages": {"schemas", "pipeline", "stages"},
}
OURS = {"schemas", "pipeline", "stages", "tests", "bench", "zipapp"}
SCHEMAS_MAY_USE = {"pydantic", "pydantic_core", "ruamel", "cronsim"}


def modules(package: str) -> Iterator[Path]:
    return (ROOT / package).rglob("*.py")


def imports(path: Path) -> Iterator[str]:
    """The top-level names of everything a module imports, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_point_one_way(package: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules(package)
        for name in imports(path)
        if name in OURS - MAY_IMPORT[package]
    ]
    assert wrong == []


def test_the_schemas_need_little() -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules("schemas")
        for name in imports(path)
        if name not in {*OURS, *SCHEMAS_MAY_USE, *sys.stdlib_module_names}
    ]
    assert wrong == []


def test_only_the_command_line_ends_the_process() -> None:
    allowed = {"pipeline/__main__.py", "pipeline/cli/interrupts.py"}
    for package in MAY_IMPORT:
        for path in modules(package):
            if str(path.relative_to(ROOT)) not in allowed:
                text = path.read_text()
                assert "sys.exit" not in text, path
                assert "os._exit" not in text, path


def test_no_stage_is_imported_before_it_is_used() -> None:
    code = (
        "import sys, pipeline.cli.main, pipeline.cli.run, schemas.load;"
        "print([m for m in sys.modules if m.startswith('stages')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


def test_zipapp_is_no_package() -> None:
    """It would hide the module `zipapp` of the standard library."""
    assert not (ROOT / "zipapp" / "__init__.py").exists()
