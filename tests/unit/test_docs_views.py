"""The views of a run in the documentation are those that the program shows of it."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from types import ModuleType

import pytest

from pipeline.logs import json_lines
from pipeline.redact import Redactor
from tests.markdown import DOCS, ROOT

SCRIPT = DOCS / "render_views.py"


@pytest.fixture(scope="module")
def views() -> ModuleType:
    spec = importlib.util.spec_from_file_location("render_views", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


def test_the_pages_are_what_the_script_makes() -> None:
    # In a process of its own: it sets the time zone.
    code = (
        f"import sys; sys.path.insert(0, {str(DOCS)!r}); import render_views;"
        "stale = [p.name for p, text in render_views.pages().items() if p.read_text() != text];"
        "print(*stale)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "TZ": "Asia/Tokyo", "COLUMNS": "40"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [], "python docs/render_views.py"


def test_the_events_of_a_run_are_all_in_its_json(views: ModuleType) -> None:
    recorded = list(views.recording())
    assert len(recorded) > 20
    render = json_lines(Redactor())
    assert [json.loads(render(line.record)) for line in recorded] == [
        json.loads(line.text) for line in recorded
    ]


def test_the_views_show_what_the_page_says_of_them(views: ModuleType) -> None:
    screen = views.screen()
    for part in ("<- bottleneck", "left", "%", "[########]", "failed"):
        assert part in screen
    assert all(len(line) <= views.COLUMNS for line in screen.split("\n"))
    assert "progressed" not in screen
    assert views.lines().count("progressed") == 2


def test_what_stands_between_markers_is_replaced_and_nothing_else(views: ModuleType) -> None:
    page = "before\n<!-- lines: made -->\nstale\n\nstale\n<!-- end -->\nafter\n"
    made = "before\n<!-- lines: made -->\nfresh\n<!-- end -->\nafter\n"
    assert views.rendered(page, {"lines": "fresh"}) == made
