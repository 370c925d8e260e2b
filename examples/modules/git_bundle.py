"""A module for nxs-backup: bare repositories of git, one bundle each.

`git clone REPOSITORY.bundle` restores one. Name this file under `modules` in the configuration.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pipeline.api import (
    Artifact,
    Field,
    Source,
    SourceError,
    Spec,
    StageContext,
    Text,
    run_program,
)

API = 1


class GitBundleSource(Spec):
    """Bare repositories of git, as bundles."""

    type: Literal["git_bundle"]
    path: Text = Field(description="Directory that holds the repositories, such as /srv/git.")


class GitBundle(Source):
    """One artifact for each repository `NAME.git` of a directory."""

    def __init__(self, spec: GitBundleSource, backup: str) -> None:
        self._path = Path(spec.path)

    def artifacts(self) -> list[Artifact]:
        found = sorted(self._path.glob("*.git"))
        if not found:
            raise SourceError(f'there is no repository in "{self._path}"')
        return [Artifact(path.stem, ".bundle", target=path) for path in found]

    def stream(self, artifact: Artifact, context: StageContext) -> Iterator[bytes]:
        command = ["git", "-C", str(artifact.target), "bundle", "create", "--quiet", "-", "--all"]
        return run_program(command, context, SourceError)

    def probe(self) -> list[str]:
        names = [artifact.name for artifact in self.artifacts()]
        if not all(os.access(self._path / f"{name}.git", os.R_OK) for name in names):
            raise SourceError("a repository cannot be read")
        return [f"{len(names)} repositories"]


SOURCES = {GitBundleSource: GitBundle}
