"""What `init` writes loads and passes `check`, whatever was chosen, and is made from the models."""

from __future__ import annotations

import os
import re
import socket
import stat
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError
from pydantic_core import PydanticUndefined

from pipeline.cli._init.found import find
from pipeline.cli._init.parts import UNIONS, Choice, choose, types
from pipeline.cli._init.render import SCHEMA_LINE, render
from pipeline.cli._init.text import flow, variables
from pipeline.cli.main import main
from schemas.document import parse, plain
from schemas.examples import example
from schemas.explain import keep_numbers_as_text
from schemas.load import load
from schemas.pipeline import Pipeline
from schemas.problems import Problems
from schemas.shapes import of_field
from tests.unit.test_schema import faults

TYPES = [name for kind in UNIONS for name in types(kind)]
NOWHERE = {name: 1 for name in ("mysql", "postgres", "redis", "mongodb")}
"""Ports at which nobody listens."""


def environ(choice: Choice) -> dict[str, str]:
    """Values for the variables of a configuration: the examples of the keys they stand for."""
    found = {}
    for part in chain.from_iterable(choice.parts.values()):
        for key, value in part.values.items():
            for name in variables(flow(value)):
                given = example(key, of_field(part.model.model_fields[key]))
                given = given[0] if isinstance(given, list) else given
                found[name] = "secret-value" if given.startswith("${") else given
    return found


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "pipeline.yaml"
    path.touch(0o600)
    return path


def test_a_type_has_one_meaning() -> None:
    assert len(set(TYPES)) == len(TYPES)


@pytest.mark.parametrize("name", TYPES)
def test_every_type_passes_check(
    name: str, written: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    choice = choose("shop", [name], {})
    written.write_text(render(choice))
    variables_file = written.with_name("env")
    variables_file.write_text("".join(f"{k}={v}\n" for k, v in environ(choice).items()))
    code = main(["check", str(written), "--env-file", str(variables_file)])
    assert (code, capfd.readouterr().err) == (0, "")


@pytest.mark.parametrize(
    ("first", "others"),
    [(name, "storages") for name in types("sources")]
    + [(name, "notifiers") for name in types("stages")],
)
def test_every_two_types_load_together(first: str, others: str, written: Path) -> None:
    for second in types(others):
        choice = choose("shop", [second, first], {})
        text = render(replace(choice, is_brief=True))
        written.write_text(text)
        assert load(written, environ(choice)).warnings == []
        assert set(variables(text)) == environ(choice).keys()


def test_all_types_together_load_and_are_valid_to_the_schema(written: Path) -> None:
    choice = choose("shop", TYPES, {})
    written.write_text(render(choice))
    loaded = load(written, environ(choice))
    assert {each.type for each in loaded.pipeline.storages.values()} == set(types("storages"))
    assert faults(plain(parse(written.read_bytes(), "", Problems()))) == []


def uncommented(text: str) -> str:
    """The text with every key that is commented out."""
    while (less := re.sub(r"(?m)^((?:  )*(?:- )?)#(?! )", r"\1", text)) != text:
        text = less
        text = re.sub(r"(?m)^((?:  )*)#(?=(?:  )+[#\w])", r"\1", text)
    return text


@pytest.mark.parametrize("name", TYPES)
def test_what_is_commented_out_is_right_but_for_rules_between_keys(name: str) -> None:
    text = uncommented(render(choose("shop", [name], {})))
    assert not re.search(r"(?m)^ *#\S", text)
    problems = Problems()
    root: Any = parse(text.encode(), "pipeline.yaml", problems)
    assert problems.sorted() == []
    assert faults(plain(root)) == []
    keep_numbers_as_text(root, Pipeline)
    assert [found for found in errors(root) if found["type"] != "value_error"] == []


def errors(root: Any) -> list[Any]:
    document = plain(root)
    del document["modules"], document["include"]
    try:
        Pipeline.model_validate(document)
    except ValidationError as error:
        return list(error.errors())
    return []


@pytest.mark.parametrize("name", TYPES)
def test_every_key_of_the_model_is_there_with_its_description(name: str) -> None:
    text = " ".join(re.sub(r"(?m)^[ #]*", "", render(choose("shop", [name], {}))).split())
    model = next(found for kind in UNIONS for t, found in types(kind).items() if t == name)
    for key, info in model.model_fields.items():
        assert f" {key}: " in text
        assert " ".join((info.description or "").split()) in text


def test_brief_leaves_out_what_is_optional() -> None:
    choice = choose("shop", ["mysql", "s3"], {})
    text = render(replace(choice, is_brief=True))
    assert not re.search(r"(?m)^ *#\w", text)
    assert len(text.splitlines()) < 60


def test_stages_stand_in_an_order_that_makes_sense() -> None:
    stages = [part.entry for part in choose("shop", ["age", "throttle", "gzip"], {}).of("stages")]
    assert stages == ["gzip", "age", "throttle"]
    assert [part.entry for part in choose("shop", ["age"], {}).of("stages")] == ["zstd", "age"]


def test_a_type_that_is_named_twice_is_there_once() -> None:
    assert len(choose("shop", ["s3", "s3"], {}).of("storages")) == 1


SECRETS = [
    (name, key)
    for kind in UNIONS
    for name, model in types(kind).items()
    for key, info in model.model_fields.items()
    if of_field(info).annotation is SecretStr and info.get_default() in (None, PydanticUndefined)
]


@pytest.mark.parametrize(("name", "key"), SECRETS)
def test_a_secret_comes_from_a_variable(name: str, key: str) -> None:
    text = render(choose("shop", [name], {}))
    values = re.findall(rf"(?m)^ *#?{key}: (.*)$", text)
    assert f"${{{name.upper()}_{key.upper()}}}" in values


# --- what is found on a machine


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    for name in ("etc", "srv", "home", "var/www"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("etc/hosts", "var/www/index.html"):
        (tmp_path / name).touch()
    return tmp_path


def test_directories_with_something_in_them_are_found(machine: Path) -> None:
    assert find(machine, NOWHERE) == {"files": {"paths": ["/etc", "/var/www"]}}


@pytest.mark.parametrize(
    ("place", "name", "address"),
    [
        ("run/mysqld/mysqld.sock", "mysql", {"socket": "/run/mysqld/mysqld.sock"}),
        ("run/postgresql/.s.PGSQL.5432", "postgres", {"host": "/run/postgresql"}),
        ("run/redis/redis-server.sock", "redis", {"socket": "/run/redis/redis-server.sock"}),
    ],
)
def test_a_server_is_found_by_its_socket(
    place: str, name: str, address: dict[str, str], tmp_path: Path, written: Path
) -> None:
    (tmp_path / place).parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as server:
        bind(server, tmp_path / place)
        found = find(tmp_path, NOWHERE)
    assert found == {name: {**address, "user": None, "password": None}}
    written.write_text(render(choose("shop", found, found)))
    source = load(written, {}).pipeline.backups[name].source
    assert {key: getattr(source, key) for key in address} == address
    assert source.password is None  # type: ignore[union-attr]


def bind(server: socket.socket, path: Path) -> None:
    """Names of sockets must be short; a name below an open directory is."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    server.bind(f"/proc/self/fd/{folder}/{path.name}")
    os.close(folder)


@pytest.mark.parametrize("name", NOWHERE)
def test_a_server_is_found_by_its_port(name: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        found = find(tmp_path, {**NOWHERE, name: server.getsockname()[1]})
    assert found == {name: {"host": "127.0.0.1"}}


# --- the file


def test_a_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "pipeline.yaml"
    before = os.umask(0)
    try:
        assert main(["init", "files", "--output", str(path)]) == 0
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text().startswith(SCHEMA_LINE + "\n")
    assert os.listdir(tmp_path) == ["pipeline.yaml"]


def test_a_file_is_never_replaced_unless_forced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "pipeline.yaml"
    path.write_text("mine")
    path.chmod(0o644)
    assert main(["init", "files", "--output", str(path)]) == 1
    assert capsys.readouterr().err.splitlines() == [
        f'error: "{path}" exists already',
        "    hint: --force replaces it",
    ]
    assert path.read_text() == "mine"
    assert main(["init", "files", "--output", str(path), "--force"]) == 0
    assert path.read_text().startswith(SCHEMA_LINE)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["pipeline.yaml"]


def test_a_link_to_nowhere_is_not_followed(tmp_path: Path) -> None:
    path = tmp_path / "pipeline.yaml"
    path.symlink_to(tmp_path / "elsewhere")
    assert main(["init", "files", "--output", str(path)]) == 1
    assert not (tmp_path / "elsewhere").exists()


def test_a_place_that_cannot_be_written_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["init", "files", "--output", str(tmp_path / "none" / "x.yaml")]) == 1
    assert "cannot be written: no such file or directory" in capsys.readouterr().err


def test_without_a_file_it_goes_to_stdout_alone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["init", "mysql", "s3"]) == 0
    told = capsys.readouterr()
    assert told.out.startswith(SCHEMA_LINE)
    assert "then: nxs-backup check FILE --connect" in told.err
    assert "S3_SECRET_KEY" in told.err


def test_an_unknown_type_is_a_usage_error_that_names_the_nearest(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["init", "mysqll"])
    assert ended.value.code == 2
    assert "unknown type; did you mean mysql? known types: age, " in capsys.readouterr().err
