"""`graph`: the drawings of compiled backups; Graphviz itself reads the DOT ones."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import replace
from typing import Any

from pipeline.draw import FORMATS, ascii_only
from pipeline.graph import MIB, BranchPlan, Plan, StageNode
from pipeline.report import format_size
from schemas.retention import RetentionPolicy
from schemas.storages import MemoryStorage
from stages.storages.memory import Memory
from tests.fakes import FakeSource, FakeTransform

HOSTILE = 'a "quoted" \\ name | [x] #1;'


def branch(name: str, *stages: str, **more: Any) -> BranchPlan:
    nodes = tuple(StageNode(stage, FakeTransform()) for stage in stages)
    storage = Memory(MemoryStorage(type="memory"))
    return BranchPlan(name, storage, nodes, more.get("rotate"), more.get("required", True))


def plan(**more: Any) -> Plan:
    made = Plan(
        backup="sites",
        source_type="files",
        source=FakeSource(),
        stages=(StageNode("zstd", FakeTransform()), StageNode("age", FakeTransform())),
        branches=(
            branch("nas", rotate=RetentionPolicy(daily=7, monthly=12)),
            branch(
                "offsite",
                "throttle",
                rotate=RetentionPolicy.model_validate({"within": "30d"}),
                required=False,
            ),
        ),
        buffer=64 * MIB,
        stall_timeout=600,
        notify=("ops",),
    )
    return replace(made, **more)


def series() -> Plan:
    source = FakeSource()
    source.periods = ("monthly", "weekly")
    return plan(backup="home", source=source, notify=(), index_key=FakeTransform())


def test_text_shows_stages_channels_and_memory() -> None:
    assert FORMATS["text"]([plan()]).splitlines() == [
        "sites: each artifact",
        "  files ══ 4.0 MiB ══▶ zstd ──▶ age ──▶ fan-out",
        "    ├══ 64.0 MiB ══▶ storage nas ──▶ rotate daily 7, monthly 12",
        "    └══ 64.0 MiB ══▶ throttle ──▶ storage offsite (optional) ──▶ rotate within 30d",
        "  notify ops",
        f"  memory at most {format_size(plan().ceiling())}:",
        *(f"    {format_size(size):>10}  {part}" for part, size in plan().memory()),
    ]


def test_branches_stand_below_the_fan_out_where_there_is_room() -> None:
    small = plan(stages=(), branches=(branch("nas"), branch("disk")), notify=())
    assert FORMATS["text"]([small]).splitlines()[1:4] == [
        "  files ══ 4.0 MiB ══▶ fan-out",
        "                           ├══ 64.0 MiB ══▶ storage nas",
        "                           └══ 64.0 MiB ══▶ storage disk",
    ]


def test_text_of_several_backups_has_a_block_for_each() -> None:
    first, second = FORMATS["text"]([plan(), series()]).split("\n\n")
    assert first == FORMATS["text"]([plan()])
    assert "\n  index ══ 2.0 MiB ══▶ age ──▶ beside each object\n" in second


def test_a_terminal_without_the_characters_gets_others() -> None:
    drawing = ascii_only(FORMATS["text"]([plan(), series()]))
    assert drawing.isascii()
    assert "  files == 4.0 MiB ==> zstd --> age --> fan-out\n" in drawing
    assert "\n    |== 64.0 MiB ==> storage nas --> rotate" in drawing


def graphviz(drawing: str) -> dict[str, Any]:
    """What `dot` understands of it."""
    done = subprocess.run(
        ["dot", "-Tjson"], input=drawing.encode(), capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == b""
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_graphviz_reads_nodes_edges_and_bounds() -> None:
    found = graphviz(FORMATS["dot"]([plan(), series()]))
    objects = {each["_gvid"]: each for each in found["objects"]}
    clusters = {each["label"] for each in objects.values() if "nodes" in each}
    assert clusters == {"sites: each artifact", "home: each artifact"}
    edges = {
        (objects[edge["tail"]]["label"], objects[edge["head"]]["label"], edge.get("label", ""))
        for edge in found["edges"]
    }
    assert edges == {
        ("files", "zstd", "4.0 MiB"),
        ("zstd", "age", ""),
        ("age", "fan-out", ""),
        ("fan-out", "storage nas", "64.0 MiB"),
        ("storage nas", "rotate daily 7, monthly 12", ""),
        ("fan-out", "throttle", "64.0 MiB"),
        ("throttle", "storage offsite (optional)", ""),
        ("storage offsite (optional)", "rotate within 30d", ""),
        ("rotate daily 7, monthly 12", "notify ops", ""),
        ("rotate within 30d", "notify ops", ""),
        ("files", "encrypted index", "2.0 MiB"),
        ("encrypted index", "storage nas", "2.0 MiB"),
        ("encrypted index", "storage offsite (optional)", "2.0 MiB"),
    }


def test_names_cannot_break_out_of_a_drawing() -> None:
    hostile = plan(backup=HOSTILE, source_type=HOSTILE, branches=(branch(HOSTILE),))
    labels = [each["label"] for each in graphviz(FORMATS["dot"]([hostile]))["objects"]]
    # As Graphviz would draw it: a backslash is doubled in its own notation.
    drawn = HOSTILE.replace("\\", "\\\\")
    assert {f"{drawn}: each artifact", drawn, f"storage {drawn}"} <= set(labels)
    for line in FORMATS["mermaid"]([hostile]).splitlines():
        assert len(re.findall('"', line)) in (0, 2), line


NODE = re.compile(
    r' {8}(b\d+_\w+)(?:\(\["([^"]+)"\]\)|\["([^"]+)"\]|\{\{"([^"]+)"\}\}|\[\("([^"]+)"\)\]'
    r'|\("([^"]+)"\)|>"([^"]+)"\])'
)
EDGE = re.compile(r' {8}(b\d+_\w+) (==>|-->|-\.->)(?:\|"([^"]+)"\|)? (b\d+_\w+)')


def test_mermaid_is_one_flowchart_of_declared_nodes() -> None:
    lines = FORMATS["mermaid"]([plan(), series()]).splitlines()
    assert lines[0] == "flowchart LR"
    labels: dict[str, str] = {}
    edges = set()
    depth = 0
    for line in lines[1:]:
        if match := NODE.fullmatch(line):
            labels[match[1]] = next(part for part in match.groups()[1:] if part)
        elif match := EDGE.fullmatch(line):
            assert {match[1], match[4]} <= labels.keys()
            edges.add((labels[match[1]], match[2], match[3], labels[match[4]]))
        elif re.fullmatch(r' {4}subgraph b\d\["[^"]+"\]', line):
            depth += 1
        else:
            assert line == "    end"
            depth -= 1
        assert depth in (0, 1)
    assert depth == 0
    assert ("files", "==>", "4.0 MiB", "zstd") in edges
    assert ("zstd", "-->", None, "age") in edges
    assert ("fan-out", "==>", "64.0 MiB", "throttle") in edges
    assert ("storage offsite (optional)", "-.->", None, "rotate within 30d") in edges
    assert ("encrypted index", "==>", "2.0 MiB", "storage nas") in edges
    assert len(edges) == 13
