"""Files of wheels without what never runs: much of them is for readers, linkers and debuggers."""

from __future__ import annotations

import ast
import codecs
import fnmatch
import gzip
import io
import json
import struct
import tokenize
import warnings
from types import CodeType
from typing import Any

_ELF = b"\x7fELF\x02\x01"
_ELF_HEADER = 64


def shrink(path: str, content: bytes, documented: list[str]) -> tuple[str, bytes]:
    """A file as it goes into the archive: its path, which may change, and its content.

    Args:
        documented: patterns of paths whose docstrings are used while they run.
    """
    if content.startswith(_ELF):
        return path, machine_code(content)
    if path.endswith(".py"):
        is_documented = any(fnmatch.fnmatch(path, glob) for glob in documented)
        return path, python_source(content, is_documented)
    if path.endswith(".dist-info/METADATA"):
        return path, content.partition(b"\n\n")[0] + b"\n"  # behind it is the description
    if path.startswith("botocore/data/") and path.endswith((".json", ".json.gz")):
        return path.removesuffix(".gz"), service_model(content)
    return path, content


def machine_code(data: bytes) -> bytes:
    """A compiled module without symbols for linkers and debuggers, and without its section table.

    What a loader reads is named by the program headers (ELF-64, little endian, as on all our
    platforms): `e_phoff` at 32, `e_phentsize` and `e_phnum` at 54, and in each entry `p_offset` at
    8, `p_filesz` at 32. `strip` of binutils does the same, but only for the processor it runs on.
    """
    (table,) = struct.unpack_from("<Q", data, 32)
    entry, count = struct.unpack_from("<HH", data, 54)
    kept = [(0, _ELF_HEADER), (table, table + entry * count)]
    for at in range(table, table + entry * count, entry):
        (start,) = struct.unpack_from("<Q", data, at + 8)
        (size,) = struct.unpack_from("<Q", data, at + 32)
        kept.append((start, start + size))
    out = bytearray(max(end for _, end in kept))
    for start, end in kept:
        out[start:end] = data[start:end]
    struct.pack_into("<Q", out, 40, 0)  # e_shoff
    struct.pack_into("<HHH", out, 58, 0, 0, 0)  # e_shentsize, e_shnum, e_shstrndx
    return bytes(out)


def python_source(content: bytes, is_documented: bool) -> bytes:
    """A module without comments and docstrings; every line keeps its number, for tracebacks.

    What this Python cannot parse, such as the syntax of a newer one, stays as it is.
    """
    try:
        meaning = _meaning(_compile(content))
        tree = ast.parse(content)
        tokens = list(tokenize.tokenize(io.BytesIO(content).readline))
    except (SyntaxError, ValueError, tokenize.TokenError):
        return content
    if tokens[0].string not in ("utf-8", "utf-8-sig"):
        return content  # positions of the tree are in bytes of UTF-8
    plain = content.removeprefix(codecs.BOM_UTF8)
    lines = [line.decode() for line in io.BytesIO(plain).readlines()]
    for token in tokens:
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column].rstrip() + "\n"
    if not is_documented:
        for docstring in filter(None, map(_docstring, ast.walk(tree))):
            _blank(lines, docstring)
    shrunk = "".join(lines).encode()
    return shrunk if _meaning(_compile(shrunk)) == meaning else content


def _docstring(node: ast.AST) -> ast.Constant | None:
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    if not isinstance(node, kinds) or not node.body:
        return None
    first = node.body[0]
    is_text = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    if is_text and isinstance(first.value.value, str):  # type: ignore[attr-defined]
        return first.value  # type: ignore[attr-defined, no-any-return]
    return None


def _blank(lines: list[str], text: ast.Constant) -> None:
    """Replace a docstring by an empty one: some code takes its `__doc__` apart."""
    first, last = text.lineno - 1, (text.end_lineno or text.lineno) - 1
    before = lines[first].encode()[: text.col_offset].decode()
    after = lines[last].encode()[text.end_col_offset :].decode()
    if after.strip():
        return  # more code on its last line
    lines[first] = before + '""\n'
    lines[first + 1 : last + 1] = ["\n"] * (last - first)


def _compile(source: bytes) -> CodeType:
    """What runs, without docstrings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the code of others
        return compile(source, "module", "exec", dont_inherit=True, optimize=2)


def _meaning(code: CodeType) -> tuple[Any, ...]:
    """What is done, wherever it is written."""
    constants = (
        _meaning(constant) if isinstance(constant, CodeType) else (type(constant), constant)
        for constant in code.co_consts
    )
    names = (code.co_name, code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    return code.co_code, names, code.co_flags, tuple(constants)


def service_model(content: bytes) -> bytes:
    """The description of a service without its documentation, and so that xz can compress it."""
    if content.startswith(b"\x1f\x8b"):
        content = gzip.decompress(content)
    return json.dumps(_without_documentation(json.loads(content)), separators=(",", ":")).encode()


def _without_documentation(node: Any) -> Any:
    if isinstance(node, dict):
        # Emptied, as some of them are asked for. A structure may have a member of that name, whose
        # value is no text.
        return {
            key: "" if _is_documentation(key, value) else _without_documentation(value)
            for key, value in node.items()
        }
    if isinstance(node, list):
        return [_without_documentation(value) for value in node]
    return node


def _is_documentation(key: str, value: Any) -> bool:
    return key == "documentation" and isinstance(value, str)
