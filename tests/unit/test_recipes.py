"""The recipes of `examples/` in other people's formats: each is checked by those who know it."""

from __future__ import annotations

import json
import re
import subprocess
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
from ruamel.yaml import YAML

from pipeline.cli.main import _parser
from pipeline.graph import compile_backup
from pipeline.registry import Storages
from schemas.base import parse_size
from schemas.load import Loaded, load
from tests.markdown import PAGES, ROOT, prose, value_for

EXAMPLES = ROOT / "examples"
KUBERNETES = EXAMPLES / "kubernetes" / "nxs-backup.yaml"
CONFIGURATIONS = [EXAMPLES / "ci" / "snapshot.yaml", EXAMPLES / "docker" / "pipeline.yaml"]
UNITS = sorted((EXAMPLES / "systemd").iterdir())


def documents(path: Path) -> list[Any]:
    with open(path) as file:
        return [document for document in YAML(typ="safe", pure=True).load_all(file) if document]


def loaded(text: str, folder: Path) -> Loaded:
    """A configuration in an environment like the one that it is written for."""
    for name in re.findall(r"\$\{file:([^}]+)\}", text):
        secret = folder / name.strip("/")
        secret.parent.mkdir(parents=True, exist_ok=True)
        secret.write_text(value_for(name.upper().replace("-", "_")))
    path = folder / "pipeline.yaml"
    path.write_text(text.replace("${file:/", "${file:" + f"{folder}/"))
    path.chmod(0o600)
    variables = {name: value_for(name) for name in re.findall(r"\$\{([A-Z0-9_]+)", text)}
    found = load(path, variables)
    assert [str(problem) for problem in found.warnings] == []
    return found


def ceiling(found: Loaded) -> int:
    """The most memory that a run of all backups takes, one after the other."""
    storages = Storages(found.pipeline.storages)
    names = found.pipeline.backups
    return max(compile_backup(found.pipeline, name, storages).ceiling() for name in names)


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda path: path.parent.name)
def test_a_configuration_loads(path: Path, tmp_path: Path) -> None:
    assert loaded(path.read_text(), tmp_path).pipeline.host != ""


@pytest.mark.parametrize("path", [*CONFIGURATIONS, KUBERNETES], ids=lambda path: path.parent.name)
def test_a_host_whose_name_changes_has_one_of_its_own(path: Path) -> None:
    text = documents(path)[0]
    shown = text if "data" not in text else YAML(typ="safe").load(text["data"]["pipeline.yaml"])
    assert shown["host"]


# -- CI --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "schema"), [("github-actions.yml", "github-workflows"), ("gitlab-ci.yml", "gitlab-ci")]
)
def test_a_pipeline_of_ci_is_valid(name: str, schema: str) -> None:
    validate(EXAMPLES / "ci" / name, schema)


def validate(path: Path, name: str) -> None:
    """Against a schema that check-jsonschema brings along."""
    vendor = files("check_jsonschema") / "builtin_schemas" / "vendor" / f"{name}.json"
    schema = json.loads(vendor.read_text())
    validator = jsonschema.validators.validator_for(schema)(schema)
    (document,) = documents(path)
    assert [error.message for error in validator.iter_errors(document)] == []


def test_ci_gets_every_variable_of_its_configuration() -> None:
    (workflow,) = documents(EXAMPLES / "ci" / "github-actions.yml")
    wanted = re.findall(r"\$\{([A-Z0-9_]+):\?", CONFIGURATIONS[0].read_text())
    assert set(workflow["jobs"]["snapshot"]["env"]) == set(wanted)


@pytest.mark.parametrize("name", ["github-actions.yml", "gitlab-ci.yml"])
def test_ci_calls_the_program_rightly(name: str) -> None:
    text = (EXAMPLES / "ci" / name).read_text()
    lines = re.findall(r"python3 tools/nxs-backup\.pyz ([^>\n]+)", text)
    assert len(lines) == 2
    for line in lines:
        _parser().parse_args(line.split())


# -- containers ------------------------------------------------------------------------------------


def test_the_compose_file_is_valid() -> None:
    validate(EXAMPLES / "docker" / "compose.yaml", "compose-spec")


def test_what_the_compose_file_gives_is_what_the_configuration_takes(tmp_path: Path) -> None:
    (compose,) = documents(EXAMPLES / "docker" / "compose.yaml")
    text = CONFIGURATIONS[1].read_text()
    service = compose["services"]["backup"]
    assert set(re.findall(r"/run/secrets/(\w+)", text)) == set(service["secrets"])
    assert set(re.findall(r"\$\{([A-Z0-9_]+)", text)) == set(service["environment"])
    assert set(service["secrets"]) <= set(compose["secrets"])
    limit = parse_size(service["mem_limit"].replace("m", "MiB"))
    assert ceiling(loaded(text, tmp_path)) < limit


INSTRUCTIONS = {"FROM", "RUN", "COPY", "ENV", "USER", "STOPSIGNAL", "ENTRYPOINT", "CMD"}


def test_the_dockerfile_is_understood_and_calls_the_program_rightly() -> None:
    text = re.sub(r"^#.*\n", "", (EXAMPLES / "docker" / "Dockerfile").read_text(), flags=re.M)
    lines = [line.split(None, 1) for line in re.sub(r"\\\n", " ", text).splitlines() if line]
    assert {instruction for instruction, _ in lines} <= INSTRUCTIONS
    assert lines[0][0] == "FROM"
    last = dict(lines)
    program = "/usr/local/bin/nxs-backup"
    assert last["COPY"] == f"nxs-backup.pyz {program}"
    assert json.loads(last["ENTRYPOINT"]) == [program]
    assert not last["USER"].startswith(("0", "root"))
    _parser().parse_args(json.loads(last["CMD"]))
    assert last["RUN"].startswith(f"{program} version && ")
    shell = [rest for instruction, rest in lines if instruction == "RUN"]
    check_shell("#!/bin/sh\n" + "\n".join(shell) + "\n")


# -- Kubernetes ------------------------------------------------------------------------------------


def test_the_manifests_are_valid() -> None:
    kinds = []
    for document in documents(KUBERNETES):
        kinds.append(document["kind"])
        for version in (kubernetes_validate.latest_version(), "1.31"):
            kubernetes_validate.validate(document, version, strict=True)
    assert kinds == ["ConfigMap", "Secret", "CronJob"]


def test_the_parts_of_the_manifests_fit(tmp_path: Path) -> None:
    config, secret, cron = documents(KUBERNETES)
    pod = cron["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes["config"]["configMap"]["name"] == config["metadata"]["name"]
    assert volumes["secrets"]["secret"]["secretName"] == secret["metadata"]["name"]
    options = _parser().parse_args(container["args"])
    assert options.file == f"{mounts['config']}/{next(iter(config['data']))}"
    text = config["data"]["pipeline.yaml"]
    named = set(re.findall(r"\$\{file:([^}]+)\}", text))
    assert named == {f"{mounts['secrets']}/{key}" for key in secret["stringData"]}
    limit = parse_size(container["resources"]["limits"]["memory"] + "B")
    assert ceiling(loaded(text, tmp_path)) < limit


# -- systemd ---------------------------------------------------------------------------------------


def test_the_units_are_sound(tmp_path: Path) -> None:
    program = tmp_path / "nxs-backup"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    for unit in UNITS:
        text = unit.read_text().replace("/usr/local/bin/nxs-backup", str(program))
        (tmp_path / unit.name).write_text(text)
    names = [str(tmp_path / unit.name) for unit in UNITS]
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *names], capture_output=True, text=True
    )
    about_ours = [line for line in done.stderr.splitlines() if "nxs-backup" in line]
    assert (done.returncode, about_ours) == (0, [])


def test_the_service_is_hardened_and_calls_the_program_rightly() -> None:
    (service,) = [unit for unit in UNITS if unit.suffix == ".service"]
    (line,) = re.findall(r"^ExecStart=\S+ (.*)$", service.read_text(), re.MULTILINE)
    _parser().parse_args(line.split())
    command = ["systemd-analyze", "security", "--no-pager", "--offline=true", "--threshold=25"]
    done = subprocess.run([*command, str(service)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-300:] + done.stderr


# -- shell -----------------------------------------------------------------------------------------


def check_shell(script: str) -> None:
    done = subprocess.run(
        ["shellcheck", "--shell=sh", "-"], input=script, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", sorted(EXAMPLES.rglob("*.sh")), ids=lambda path: path.name)
def test_a_script_is_sound(path: Path) -> None:
    check_shell(path.read_text())


def test_every_recipe_is_told_of() -> None:
    told = "".join(prose(page) for page in [ROOT / "README.md", *PAGES])
    for folder in (path for path in EXAMPLES.iterdir() if path.is_dir()):
        for path in folder.iterdir():
            if path.suffix not in (".pyc", "") or path.name == "Dockerfile":
                assert f"examples/{folder.name}/{path.name}" in told, path
