"""What the builder of the archive takes out of files, and that the rest means the same."""

from __future__ import annotations

import ast
import gzip
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import cryptography.hazmat.bindings._rust as compiled
import pytest

BUILDER = Path(__file__).resolve().parents[2] / "zipapp"


@pytest.fixture(scope="module")
def shrink() -> ModuleType:
    """`zipapp/` is no package: it would hide the module of the standard library."""
    spec = importlib.util.spec_from_file_location("shrink", BUILDER / "shrink.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SOURCES = {
    "comments": ("x = 1  # one\n# two\ny = '# three'\n", "x = 1\n\ny = '# three'\n"),
    "docstrings": (
        '"""Module."""\nclass A:\n    """Class,\n    of two lines.\n    """\n    x = """kept"""\n',
        '""\nclass A:\n    ""\n\n\n    x = """kept"""\n',
    ),
    "function": ("def f():\n    'doc'\n    return 1\n", 'def f():\n    ""\n    return 1\n'),
    "more code on the line": ("def f():\n    'doc'; return 1\n",) * 2,
    "blanks in a text": ("x = '''a  \n   \n# b\n'''\n",) * 2,
    "strange line ends": ('"""a\x0cb"""\nx = "\x0c"  # c\n', '""\nx = "\x0c"\n'),
    "accents": ("é = 'é'  # é\nasync def g(): 'é'\n", "é = 'é'\nasync def g(): \"\"\n"),
    "no line end": ("x = 1 # a", "x = 1\n"),
    "another encoding": ("# coding: latin-1\nx = 1  # one\n",) * 2,
    "no Python": ("print 'a'  # b\n",) * 2,
}


@pytest.mark.parametrize("name", SOURCES)
def test_python_source(shrink: ModuleType, name: str) -> None:
    before, after = SOURCES[name]
    assert shrink.python_source(before.encode(), False).decode() == after
    assert before.count("\n") == after.count("\n") or name == "no line end"


def test_docstrings_that_are_used_stay(shrink: ModuleType) -> None:
    before = b'"""Told to the user."""  # a comment\n'
    path, after = shrink.shrink("dns/exception.py", before, ["dns/*"])
    assert (path, after) == ("dns/exception.py", b'"""Told to the user."""\n')


def test_a_standard_module_means_the_same(shrink: ModuleType) -> None:
    before = Path(ast.__file__).read_bytes()
    after = shrink.python_source(before, False)
    assert len(after) < len(before)
    assert shrink.python_source(after, False) == after
    assert ast.dump(ast.parse(after)) != ast.dump(ast.parse(before)), "docstrings are gone"


def test_compiled_module_still_runs(shrink: ModuleType, tmp_path: Path) -> None:
    """Cut and loaded in a Python of its own: a module is loaded once in a process."""
    before = Path(compiled.__file__).read_bytes()
    _, after = shrink.shrink("x/_rust.abi3.so", before, [])
    assert len(after) < len(before)
    (tmp_path / "_rust.abi3.so").write_bytes(after)
    code = "import sys; sys.path.insert(0, sys.argv[1]); import _rust; print(_rust.__name__)"
    command = [sys.executable, "-c", code, str(tmp_path)]
    assert subprocess.run(command, capture_output=True, check=True).stdout == b"_rust\n"


def test_service_models_lose_their_documentation_only(shrink: ModuleType) -> None:
    model = {
        "operations": {"Put": {"documentation": "<p>long</p>", "input": {"shape": "In"}}},
        "shapes": {"In": {"members": {"documentation": {"shape": "Text"}}}},
    }
    packed = gzip.compress(json.dumps(model).encode())
    path, after = shrink.shrink("botocore/data/s3/1/service-2.json.gz", packed, [])
    assert path == "botocore/data/s3/1/service-2.json"
    assert json.loads(after) == {
        "operations": {"Put": {"documentation": "", "input": {"shape": "In"}}},
        "shapes": {"In": {"members": {"documentation": {"shape": "Text"}}}},
    }


def test_metadata_keeps_its_head(shrink: ModuleType) -> None:
    before = b"Name: x\nVersion: 1\n\nA long description.\n"
    assert shrink.shrink("x-1.dist-info/METADATA", before, [])[1] == b"Name: x\nVersion: 1\n"
