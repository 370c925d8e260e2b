"""Draws a compiled backup as text, Mermaid or DOT: pure functions of a plan."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pipeline.graph import TRUNK, BranchPlan, Plan
from pipeline.report import format_size


@dataclass(frozen=True)
class _Edge:
    start: str
    end: str
    label: str = ""


def text(plan: Plan) -> str:
    """The trunk on one line, a line for each branch, then the memory ceiling."""
    trunk = [plan.source_type, *(node.name for node in plan.stages)]
    lines = [f"{plan.backup}: {' --> '.join(trunk)} --> fan-out"]
    last = len(plan.branches) - 1
    for position, branch in enumerate(plan.branches):
        corner = "`" if position == last else "|"
        lines.append(f"  {corner}--> {' --> '.join(_branch_words(branch))}")
    for name in plan.notify:
        lines.append(f"  notify {name}")
    lines.append(f"  memory at most {format_size(plan.ceiling())}:")
    lines += [f"    {format_size(size):>10}  {part}" for part, size in plan.memory()]
    return "\n".join(lines)


def _branch_words(branch: BranchPlan) -> Iterator[str]:
    yield from (node.name for node in branch.stages)
    yield f"storage {branch.name}" + ("" if branch.required else " (optional)")
    if branch.rotate is not None:
        yield "rotate"


def mermaid(plan: Plan) -> str:
    """A flowchart that Markdown viewers render."""
    nodes, edges = _parts(plan)
    lines = ["flowchart LR"]
    lines += [f'    {key}["{label}"]' for key, label in nodes.items()]
    lines += [
        f"    {edge.start} -->{'|' + edge.label + '|' if edge.label else ''} {edge.end}"
        for edge in edges
    ]
    return "\n".join(lines)


def dot(plan: Plan) -> str:
    """A graph for Graphviz."""
    nodes, edges = _parts(plan)
    lines = [f'digraph "{plan.backup}" {{', "    rankdir=LR", "    node [shape=box]"]
    lines += [f'    {key} [label="{label}"]' for key, label in nodes.items()]
    lines += [f'    {edge.start} -> {edge.end} [label="{edge.label}"]' for edge in edges]
    return "\n".join([*lines, "}"])


def _parts(plan: Plan) -> tuple[dict[str, str], list[_Edge]]:
    """Nodes by key, and the edges with the bounds of their channels."""
    nodes = {"source": f"{plan.backup}: {plan.source_type}"}
    edges: list[_Edge] = []
    previous, label = "source", format_size(TRUNK)
    for position, node in enumerate(plan.stages):
        key = f"stage{position}"
        nodes[key] = node.name
        edges.append(_Edge(previous, key, label))
        previous, label = key, ""
    nodes["fan_out"] = "fan-out"
    edges.append(_Edge(previous, "fan_out", label))
    for position, branch in enumerate(plan.branches):
        _add_branch(nodes, edges, f"branch{position}", branch, format_size(plan.buffer))
    return nodes, edges


def _add_branch(
    nodes: dict[str, str], edges: list[_Edge], prefix: str, branch: BranchPlan, bound: str
) -> None:
    previous, label = "fan_out", bound
    words = list(_branch_words(branch))
    for position, word in enumerate(words):
        key = f"{prefix}_{position}"
        nodes[key] = word
        edges.append(_Edge(previous, key, label))
        previous, label = key, ""


FORMATS: dict[str, Callable[[Plan], str]] = {"text": text, "mermaid": mermaid, "dot": dot}
