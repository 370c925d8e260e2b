"""Draws compiled backups as text, Mermaid or DOT: pure functions of their plans.

A thick edge is a channel, between threads, with the bytes that it holds at most; along a thin one
chunks are handed on within a thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from pipeline.graph import INDEX_BUFFER, TRUNK, BranchPlan, Plan
from pipeline.report import format_size
from schemas.base import format_duration
from schemas.retention import RetentionPolicy

_WIDTH = 100
_ASCII = str.maketrans({"═": "=", "─": "-", "▶": ">", "├": "|", "└": "`"})

_MERMAID = {
    "source": '(["{}"])',
    "stage": '["{}"]',
    "fan_out": '{{{{"{}"}}}}',
    "storage": '[("{}")]',
    "rotate": '("{}")',
    "notify": '>"{}"]',
}
_DOT = {
    "source": 'shape=box, style="rounded,filled", fillcolor="#dbeafe"',
    "stage": 'shape=box, style=filled, fillcolor="#f1f5f9"',
    "fan_out": 'shape=hexagon, style=filled, fillcolor="#fef3c7"',
    "storage": 'shape=cylinder, style=filled, fillcolor="#dcfce7"',
    "rotate": 'shape=box, style="rounded,filled", fillcolor="#fae8ff"',
    "notify": 'shape=note, style=filled, fillcolor="#fee2e2"',
}


@dataclass(frozen=True)
class _Edge:
    start: str
    end: str
    kind: str
    """`channel`, `call`, or `tell` for what is no stream."""
    label: str = ""


@dataclass
class _Drawing:
    """One backup; the keys of its nodes are told apart from those of others by their prefix."""

    name: str
    prefix: str
    nodes: dict[str, tuple[str, str]] = field(default_factory=dict)
    """By key: kind and label."""
    edges: list[_Edge] = field(default_factory=list)

    def add(self, key: str, kind: str, label: str) -> str:
        self.nodes[self.prefix + key] = (kind, label)
        return self.prefix + key


def text(plans: Sequence[Plan]) -> str:
    """For each backup the trunk on one line, a line for each branch, then the memory ceiling."""
    return "\n\n".join("\n".join(_lines(plan)) for plan in plans)


def ascii_only(drawing: str) -> str:
    """The same for a terminal that knows no other characters."""
    return drawing.translate(_ASCII)


def _lines(plan: Plan) -> Iterator[str]:
    yield f"{plan.backup}: {_times(plan)}"
    channel = f"══ {format_size(TRUNK)} ══▶"
    trunk = "  " + plan.source_type + f" {channel} "
    trunk += " ──▶ ".join([*(node.name for node in plan.stages), "fan-out"])
    yield trunk
    bound = format_size(plan.buffer)
    words = [" ──▶ ".join(word for _, word in _steps(branch)) for branch in plan.branches]
    indent = len(trunk) - len("out")
    if any(indent + len(bound) + len(line) + 10 > _WIDTH for line in words):
        indent = 4
    for number, line in enumerate(words, start=1):
        corner = "└" if number == len(words) else "├"
        yield f"{' ' * indent}{corner}══ {bound} ══▶ {line}"
    if plan.source.periods:
        key = "age ──▶ " if plan.index_key else ""
        yield f"  index ══ {format_size(INDEX_BUFFER)} ══▶ {key}beside each object"
    yield from (f"  notify {name}" for name in plan.notify)
    yield f"  memory at most {format_size(plan.ceiling())}:"
    yield from (f"    {format_size(size):>10}  {part}" for part, size in plan.memory())


def _times(plan: Plan) -> str:
    number = plan.source.processes
    return "each artifact" if number == 1 else f"each artifact, {number} at the same time"


def _steps(branch: BranchPlan) -> Iterator[tuple[str, str]]:
    """Kind and label of what a branch is made of."""
    yield from (("stage", node.name) for node in branch.stages)
    yield "storage", f"storage {branch.name}" + ("" if branch.required else " (optional)")
    if branch.rotate is not None:
        yield "rotate", f"rotate {_rules(branch.rotate)}"


def _rules(policy: RetentionPolicy) -> str:
    given = {name: value for name, value in policy if value is not None}
    if "within" in given:
        given["within"] = format_duration(given["within"])
    return ", ".join(f"{name} {value}" for name, value in given.items())


def mermaid(plans: Sequence[Plan]) -> str:
    """One flowchart that Markdown viewers render."""
    arrows = {"channel": "==>", "call": "-->", "tell": "-.->"}
    lines = ["flowchart LR"]
    for drawing in _drawings(plans):
        lines.append(f'    subgraph {drawing.prefix}["{_for_mermaid(drawing.name)}"]')
        for key, (kind, label) in drawing.nodes.items():
            lines.append(f"        {key}" + _MERMAID[kind].format(_for_mermaid(label)))
        for edge in drawing.edges:
            label = f'|"{_for_mermaid(edge.label)}"|' if edge.label else ""
            lines.append(f"        {edge.start} {arrows[edge.kind]}{label} {edge.end}")
        lines.append("    end")
    return "\n".join(lines)


def dot(plans: Sequence[Plan]) -> str:
    """One graph for Graphviz."""
    styles = {"channel": "penwidth=2.5", "call": "penwidth=1", "tell": "style=dashed"}
    lines = ["digraph backups {", "    rankdir=LR"]
    lines += ['    node [fontname="Helvetica"]', '    edge [fontname="Helvetica", fontsize=10]']
    for drawing in _drawings(plans):
        lines.append(f"    subgraph cluster_{drawing.prefix} {{")
        lines.append(f'        label={_for_dot(drawing.name)}; fontname="Helvetica"; color=gray')
        for key, (kind, label) in drawing.nodes.items():
            lines.append(f"        {key} [label={_for_dot(label)}, {_DOT[kind]}]")
        for edge in drawing.edges:
            label = f", label={_for_dot(edge.label)}" if edge.label else ""
            lines.append(f"        {edge.start} -> {edge.end} [{styles[edge.kind]}{label}]")
        lines.append("    }")
    return "\n".join([*lines, "}"])


def _for_mermaid(label: str) -> str:
    return label.replace("#", "#35;").replace('"', "#quot;")


def _for_dot(label: str) -> str:
    escaped = label.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _drawings(plans: Sequence[Plan]) -> Iterator[_Drawing]:
    for number, plan in enumerate(plans):
        yield _drawing(plan, f"b{number}")


def _drawing(plan: Plan, prefix: str) -> _Drawing:
    drawing = _Drawing(f"{plan.backup}: {_times(plan)}", prefix)
    source = drawing.add("_source", "source", plan.source_type)
    previous, kind, label = source, "channel", format_size(TRUNK)
    trunk = [*(("stage", node.name) for node in plan.stages), ("fan_out", "fan-out")]
    for number, (node_kind, word) in enumerate(trunk):
        key = drawing.add(f"_trunk{number}", node_kind, word)
        drawing.edges.append(_Edge(previous, key, kind, label))
        previous, kind, label = key, "call", ""
    ends = [
        _add_branch(drawing, plan, branch, number, previous)
        for number, branch in enumerate(plan.branches)
    ]
    if plan.source.periods:
        _add_index(drawing, plan, source, [storage for storage, _ in ends])
    for number, name in enumerate(plan.notify):
        key = drawing.add(f"_notify{number}", "notify", f"notify {name}")
        drawing.edges += [_Edge(end, key, "tell") for _, end in ends]
    return drawing


def _add_branch(
    drawing: _Drawing, plan: Plan, branch: BranchPlan, number: int, fan_out: str
) -> tuple[str, str]:
    """The keys of its storage and of its last node."""
    previous, kind, label = fan_out, "channel", format_size(plan.buffer)
    storage = fan_out
    for place, (node_kind, word) in enumerate(_steps(branch)):
        key = drawing.add(f"_branch{number}_{place}", node_kind, word)
        # Rotation is no part of the stream: it follows the commit.
        drawing.edges.append(_Edge(previous, key, "tell" if node_kind == "rotate" else kind, label))
        storage = key if node_kind == "storage" else storage
        previous, kind, label = key, "call", ""
    return storage, previous


def _add_index(drawing: _Drawing, plan: Plan, source: str, storages: Sequence[str]) -> None:
    """The index of an increment goes beside its object, encrypted with a key of its own."""
    label = "encrypted index" if plan.index_key else "index"
    index = drawing.add("_index", "stage", label)
    bound = format_size(INDEX_BUFFER)
    drawing.edges.append(_Edge(source, index, "channel", bound))
    drawing.edges += [_Edge(index, storage, "channel", bound) for storage in storages]


FORMATS: dict[str, Callable[[Sequence[Plan]], str]] = {"text": text, "mermaid": mermaid, "dot": dot}
