"""Several artifacts of `files` restored by one command: side by side, never into each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.cli.main import main

pytestmark = pytest.mark.integration


def configure(place: Path, **source: Any) -> str:
    for part in ("one", "two"):
        (place / part / "data").mkdir(parents=True)
        (place / part / "data" / "same").write_text(part)
        (place / part / "data" / part).write_text(part)
    keys = "".join(f", {key}: {value}" for key, value in source.items())
    path = place / "pipeline.yaml"
    path.write_text(
        f"name: shop\nstorages: {{disk: {{type: local, path: {place}/disk}}}}\n"
        f"backups:\n  both:\n    source: {{type: files, paths: ['{place}/*/data']{keys}}}\n"
        "    fan_out: [{storage: disk}]\n"
    )
    path.chmod(0o600)
    return str(path)


def test_whole_names_lie_side_by_side(tmp_path: Path) -> None:
    config = configure(tmp_path)
    assert main(["run", config, "-qq"]) == 0
    assert main(["restore", config, "--backup", "both", "--to", str(tmp_path / "back")]) == 0
    there = tmp_path / "back" / str(tmp_path).strip("/")
    for part in ("one", "two"):
        assert (there / part / "data" / "same").read_text() == part


@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
def test_trees_of_the_same_name_are_not_mixed(
    tmp_path: Path, overwrite: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    config = configure(tmp_path, names="relative")
    assert main(["run", config, "-qq"]) == 0
    to = ["--to", str(tmp_path / "back"), *overwrite]
    assert main(["restore", config, "--backup", "both", *to]) == 1
    assert 'would be restored over "' in capfd.readouterr().err
    assert (tmp_path / "back" / "data" / "same").read_text() == "one"
    assert not (tmp_path / "back" / "data" / "two").exists()
