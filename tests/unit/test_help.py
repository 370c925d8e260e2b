"""What `--help` says can be read, and its examples are commands that exist."""

from __future__ import annotations

import argparse
import shlex

import pytest

from pipeline.cli.help import HELP
from pipeline.cli.main import _parser, main

OWN = {"worker", "complete"}
"""Commands for our own processes and scripts."""


def commands() -> dict[str, argparse.ArgumentParser]:
    actions = _parser()._actions
    (found,) = (each for each in actions if isinstance(each, argparse._SubParsersAction))
    return {name: parser for name, parser in found.choices.items() if name not in OWN}


EXAMPLES = [(name, example) for name, more in HELP.items() for example in more.examples]


def test_every_command_has_help() -> None:
    assert HELP.keys() == commands().keys()
    assert all(more.examples for more in HELP.values())


@pytest.mark.parametrize(("name", "example"), EXAMPLES, ids=[example for _, example in EXAMPLES])
def test_an_example_is_a_command_that_exists(name: str, example: str) -> None:
    line = example.removeprefix('eval "$(').removesuffix(')"')
    words = shlex.split(line, comments=True)
    end = next((place for place, word in enumerate(words) if word in ("|", ">")), len(words))
    assert words[:2] == ["nxs-backup", name]
    options = _parser().parse_args(words[1:end])
    assert options.module


@pytest.mark.parametrize("name", HELP)
def test_help_can_be_read(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert HELP[name].epilog() in text
    for example in HELP[name].examples:
        assert f"\n  {example}\n" in text
    paragraphs = HELP[name].text.split("\n\n")
    assert all(" ".join(each.split()) in " ".join(text.split()) for each in paragraphs)


@pytest.mark.parametrize("name", HELP)
def test_every_argument_says_what_it_is(name: str) -> None:
    parser = commands()[name]
    silent = [action.dest for action in parser._actions if not action.help]
    assert silent == []


@pytest.mark.parametrize("name", HELP)
def test_a_command_has_one_line_in_the_list(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    listed = capsys.readouterr().out
    assert any(line.split()[:1] == [name] for line in listed.splitlines())
    assert not OWN & {line.split()[0] for line in listed.splitlines() if line.split()}
