"""Whether what was converted would load: the same checks, without the values of variables."""

from __future__ import annotations

from pydantic import ValidationError

from schemas.document import Mapping, Scalar, parse, plain, scalars
from schemas.explain import explain, keep_numbers_as_text, refuse_truths
from schemas.overlaps import check_overlaps
from schemas.pipeline import Pipeline
from schemas.problems import Problem, Problems
from schemas.references import check_references


def problems_of(text: str, file: str) -> list[Problem]:
    """What is wrong with a configuration, as far as that can be told without its variables.

    Args:
        text: YAML.
        file: how it is to be called.
    """
    problems = Problems()
    root = parse(text.encode(), file, problems)
    if not isinstance(root, Mapping):
        return problems.sorted()
    for scalar in scalars(root):
        _hide(scalar)
    keep_numbers_as_text(root, Pipeline)
    refuse_truths(root, Pipeline, problems)
    check_references(root, problems)
    try:
        check_overlaps(Pipeline.model_validate(plain(root)), root, problems)
    except ValidationError as error:
        explain(error.errors(include_url=False, include_input=False), root, Pipeline, problems)
    return problems.sorted()


def _hide(scalar: Scalar) -> None:
    """What depends on a variable is not known now, and no reason to complain."""
    if not isinstance(scalar.value, str):
        return
    text = scalar.value.replace("$$", "")
    if "${" in text:
        scalar.value, scalar.broken = None, True
    else:
        scalar.value = scalar.value.replace("$$", "$")
