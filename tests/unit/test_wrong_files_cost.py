"""Wrong files cost little: a loader that can be brought to its knees is no help.

All of them are loaded in a process of their own, which says what each took.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.unit.test_components import ROOT
from tests.unit.test_wrong_files import BYTES, CASES, ENVIRON, names

MOST_SECONDS = 1.0
MOST_MEMORY = 200 << 20

LOAD = """
import json, os, sys, time
from schemas.load import InvalidConfiguration, load

def cost(path):
    before = time.process_time()
    try:
        load(path, json.loads(sys.argv[1]))
        message = ""
    except InvalidConfiguration as error:
        message = str(error)
    return time.process_time() - before, message.split("\\n    hint")[0].replace(path, "FILE")

found = {}
for path in sys.stdin.read().splitlines():
    seconds, message = cost(path)
    for _ in range(2):
        # Other processes may have taken their share of the processor's caches.
        seconds = min(seconds, cost(path)[0]) if seconds > float(sys.argv[2]) else seconds
    found[path] = {"seconds": seconds, "message": message}
with open("/proc/self/status") as status:
    peak = next(int(line.split()[1]) << 10 for line in status if line.startswith("VmHWM"))
print(json.dumps({"peak": peak, "found": found}))
"""

SIZE = 500 << 10
"""As large as a file may be, or nearly so."""


def filled(text: str, begin: str = "", end: str = "") -> bytes:
    """The text again and again."""
    return (begin + text * ((SIZE - len(begin) - len(end)) // len(text)) + end).encode()


DEEP = "[0]" * 16 + "..."
TOO_MANY = "has too many values, those of its aliases included"
HUGE: dict[str, tuple[bytes, str]] = {
    "ten-megabytes-of-nesting": (b"[" * (10 << 20), "FILE:1:1: is larger than 512KiB"),
    "ten-megabytes-of-blocks": (b"a:\n " * (3 << 20), "FILE:1:1: is larger than 512KiB"),
    "nested-lists": (filled("["), f"FILE:1:65: {DEEP}: is nested too deeply"),
    "nested-dashes": (filled("- "), f"FILE:1:129: {DEEP}: is nested too deeply"),
    "nested-mappings": (
        filled("{a: "),
        f"FILE:1:254: {'.'.join('a' * 16)}...: is nested too deeply",
    ),
    "anchors-that-explode": (
        b"a: &a [x, x, x, x, x, x, x, x, x, x]\n"
        + b"".join(
            f"{name}: &{name} [{', '.join(['*' + before] * 10)}]\n".encode()
            for before, name in zip("abcdefgh", "bcdefghi", strict=True)
        ),
        f"FILE:5:12: e: {TOO_MANY}",
    ),
    "merges-that-explode": (
        b"a: &a {" + b", ".join(b"k%d: 1" % n for n in range(500)) + b"}\n"
        b"b: [" + b", ".join([b"{<<: *a}"] * 500) + b"]\n",
        "FILE:2:295: b: " + TOO_MANY,
    ),
    "nesting-through-aliases": (
        b"a0: &a0 x\n"
        + b"".join(b"a%d: &a%d [[[[*a%d]]]]\n" % (n, n, n - 1) for n in range(1, 99)),
        "FILE:17:15: a16[0][0][0][0]: is nested too deeply",
    ),
    "a-long-list": (filled("- a\n"), f"FILE:15000:3: {TOO_MANY}"),
    "many-anchors": (filled("&a x, ", "a: [", "]"), f"FILE:1:89999: a: {TOO_MANY}"),
    "comments-alone": (filled("# x\n"), "FILE:1:1: is empty"),
    "a-long-word": (filled("x", "name: "), "FILE:1:1: backups: is missing"),
    "a-long-number": (filled("9", "name: "), "FILE:1:1: backups: is missing"),
    "a-quote-that-stays-open": (
        filled("x", 'name: "'),
        "FILE:1:7: a quote is opened here and never closed",
    ),
    "many-references": (filled("${A}", "name: "), "FILE:1:1: backups: is missing"),
    "many-open-references": (filled("${", "name: "), "FILE:1:1: backups: is missing"),
    "nested-references": (
        filled("${A:-", "name: '", "'"),
        "FILE:1:1: backups: is missing",
    ),
    "many-includes": (filled("a*, ", "include: [", "]"), f"FILE:1:60007: include: {TOO_MANY}"),
    "not-utf-8-at-its-end": (filled("x", "name: ") + b"\xff", "FILE:1:512001: is not UTF-8 text"),
}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """By name, what each wrong file took, and the peak of memory of them all."""
    folder = tmp_path_factory.mktemp("wrong")
    paths = {name: _main(CASES / name) for name in names()}
    made = {name: data for name, (data, _) in {**BYTES, **HUGE}.items()}
    for name, data in made.items():
        paths[name] = folder / f"{name}.yaml"
        paths[name].write_bytes(data)
    child = subprocess.run(
        [sys.executable, "-c", LOAD, json.dumps(ENVIRON), str(MOST_SECONDS)],
        input="\n".join(map(str, paths.values())),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    )
    answer = json.loads(child.stdout)
    found = {name: answer["found"][str(path)] for name, path in paths.items()}
    return {"peak": answer["peak"], "found": found}


def _main(case: Path) -> Path:
    return case / "pipeline.yaml" if case.is_dir() else case


def test_there_are_more_than_a_hundred(told: dict[str, Any]) -> None:
    assert len(told["found"]) > 150


def test_each_is_refused_within_a_second(told: dict[str, Any]) -> None:
    assert all(found["message"] for found in told["found"].values())
    slow = {n: f["seconds"] for n, f in told["found"].items() if f["seconds"] > MOST_SECONDS}
    assert slow == {}


def test_none_takes_much_memory(told: dict[str, Any]) -> None:
    assert told["peak"] < MOST_MEMORY


@pytest.mark.parametrize("name", HUGE)
def test_a_huge_one_says_what_is_wrong(name: str, told: dict[str, Any]) -> None:
    assert told["found"][name]["message"].split("\n")[0] == HUGE[name][1]
