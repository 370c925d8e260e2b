"""Questions in a terminal: plain lines, numbered choices, an answer for whoever just hits Enter."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from pipeline.cli._init.parts import USUAL, Choice, Part, choose, types
from pipeline.cli._init.text import flow, variables
from pipeline.errors import NxsError
from schemas.document import Mapping as Node
from schemas.document import parse, plain
from schemas.examples import example
from schemas.explain import explain, keep_numbers_as_text, refuse_truths
from schemas.pipeline import Pipeline
from schemas.problems import Problem, Problems, suggest
from schemas.shapes import of_field

T = TypeVar("T")

_KINDS = {
    "sources": "What is backed up?",
    "storages": "Where to? Each backup goes to all of them at once.",
    "stages": "What is done on the way?",
    "notifiers": "Who is told?",
}
_NOTHING = "-"


def ask_for(project: str, found: Mapping[str, Mapping[str, Any]]) -> Choice:
    """Have everything chosen.

    Args:
        project: the name that is proposed.
        found: sources of this machine, with what is known about them.

    Raises:
        NxsError: there are no more answers.
    """
    _say("Enter takes what stands in brackets; several are written as: 1 3. Ctrl-C leaves nothing.")
    names: list[str] = []
    for kind, question in _KINDS.items():
        names += _choose_types(kind, question, found if kind == "sources" else {})
    choice = choose(_name(project), names, found)
    parts = {kind: [_complete(kind, each) for each in choice.of(kind)] for kind in choice.parts}
    return Choice(choice.project, parts)


def ask(question: str, proposal: str, remark: str = "") -> str:
    """One line of an answer; the proposal when it is empty.

    Raises:
        NxsError: there are no more answers.
    """
    print(f"{question} [{proposal}{remark}]: ", end="", file=sys.stderr, flush=True)
    line = sys.stdin.readline()
    if not line.endswith("\n"):
        raise NxsError("the answers ended", "name the types instead: nxs-backup init files s3")
    return line.strip() or proposal


def until_right(ask_again: Callable[[], str], take: Callable[[str], T]) -> T:
    """Ask until `take`, which raises `ValueError` with a reason, takes the answer."""
    while True:
        try:
            return take(ask_again())
        except ValueError as wrong:
            _say(f"  {wrong}")


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _choose_types(kind: str, question: str, found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    known = [name for name in types(kind) if name != "memory"]
    _say(f"\n{question}")
    for number, name in enumerate(known, start=1):
        about = (types(kind)[name].__doc__ or "").partition("\n")[0]
        here = "  (found here)" if name in found else ""
        _say(f"{number:4}  {name:18} {about}{here}")
    usual = [name for name in known if name in found] or [USUAL.get(kind, _NOTHING)]
    return until_right(
        lambda: ask("Numbers or names", " ".join(usual)), lambda text: _types_of(text, known)
    )


def _types_of(text: str, known: Sequence[str]) -> list[str]:
    chosen = []
    for word in re.split(r"[\s,]+", text):
        is_number = word.isdecimal() and 1 <= int(word) <= len(known)
        name = known[int(word) - 1] if is_number else word
        if name == _NOTHING:
            continue
        if name not in known:
            raise ValueError(suggest(word, known, "types"))
        chosen.append(name)
    return chosen


def _name(project: str) -> str:
    _say("")
    return str(_value(Part(Pipeline, {"name": project}, ""), "name"))


def _complete(kind: str, made: Part) -> Part:
    """The part with answers for what only the user knows; secrets come from variables."""
    if made.values.keys() <= {"type"}:
        return made
    _say(f"\n{kind[:-1]} {made.entry}")
    while True:
        answered = _answered(made)
        wrong = problems_of(answered.model, answered.values)
        if not wrong:
            return answered
        _say(f"  {_reason(wrong[0])}")


def _answered(made: Part) -> Part:
    values = dict(made.values)
    for key in [name for name in made.values if name != "type"]:
        values[key] = _value(replace(made, values=values), key)
    return replace(made, values={key: each for key, each in values.items() if each is not None})


def _value(made: Part, key: str) -> Any:
    """The answer for one key; None when it is not to be set."""
    info = made.model.model_fields[key]
    proposal = made.values[key]
    names = variables(f"{key}: {flow(proposal)}")
    if names:
        _say(f"  {key}: from the variable {names[0]}")
        return proposal
    _say(f"  {info.description}")
    shown = shlex.join(proposal) if isinstance(proposal, list) else str(proposal)
    remark = "" if info.is_required() else f"; {_NOTHING} for none"
    return until_right(
        lambda: ask(f"  {key}", shown, remark), lambda text: _checked(made, key, text)
    )


def _checked(made: Part, key: str, text: str) -> Any:
    """The answer as a value, when the model takes it.

    Raises:
        ValueError: it does not, and why.
    """
    if text == _NOTHING and not made.model.model_fields[key].is_required():
        return None
    value: Any = shlex.split(text) if isinstance(made.values[key], list) else text
    wrong = problems_of(made.model, {**made.values, key: value})
    here = [found for found in wrong if re.match(rf"{key}\b", found.path)]
    if here:
        raise ValueError(_reason(here[0]))
    return value


def _reason(problem: Problem) -> str:
    return "; ".join(filter(None, (problem.message, problem.hint)))


def problems_of(model: type[BaseModel], values: Mapping[str, Any]) -> list[Problem]:
    """What the loader would say of a block; for variables, examples stand in."""
    filled = {
        key: example(key, of_field(model.model_fields[key])) if variables(flow(value)) else value
        for key, value in values.items()
    }
    problems = Problems()
    root = parse(flow(filled).encode(), "", problems)
    if isinstance(root, Node):
        keep_numbers_as_text(root, model)
        refuse_truths(root, model, problems)
        try:
            model.model_validate(plain(root))
        except ValidationError as error:
            found = error.errors(include_url=False, include_input=False)
            explain(found, root, model, problems)
    return problems.sorted()
