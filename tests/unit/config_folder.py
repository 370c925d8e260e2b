"""A folder of configuration files for the tests of the loader."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path

import pytest

from schemas.load import InvalidConfiguration, Loaded, load

MINIMAL = """
name: shop
storages: {nas: {type: local, path: /srv/backups}}
backups:
  etc: {source: {type: files, paths: [/etc]}, fan_out: [{storage: nas}]}
"""


class Folder:
    """The working directory of a test; its files can be read by their owner alone."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, name: str, text: str, mode: int = 0o600) -> Path:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        path.chmod(mode)
        return path

    def load(
        self, text: str, environ: Mapping[str, str] | None = None, mode: int = 0o600
    ) -> Loaded:
        self.write("pipeline.yaml", text, mode)
        return load("pipeline.yaml", environ or {})

    def errors(self, text: str, environ: Mapping[str, str] | None = None) -> list[str]:
        with pytest.raises(InvalidConfiguration) as caught:
            self.load(text, environ)
        return [str(problem) for problem in caught.value.problems]


def in_place_of_local(storage: str) -> str:
    """The minimal file with another storage."""
    return MINIMAL.replace("{type: local, path: /srv/backups}", storage)
