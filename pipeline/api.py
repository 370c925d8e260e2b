"""What modules may rely on: the contracts of the four kinds of stage, under one name; the guide is
docs/modules.md.

A module is a Python file that the configuration names under `modules`; it adds sources, stages,
storages and notifiers::

    from typing import Literal
    from pipeline.api import Artifact, Field, Source, Spec, Text

    API = 1                                     # the version of these contracts it is written for

    class BundleSource(Spec):                   # what a user may write
        \"\"\"A repository of git.\"\"\"
        type: Literal["git"]
        path: Text = Field(description="Directory of the repository.")

    class Bundle(Source):                       # what does the work
        ...

    SOURCES = {BundleSource: Bundle}            # also TRANSFORMS, STORAGES, NOTIFIERS

A name that is exported here keeps its meaning within one version; what a contract asks for is in
the docstrings of `pipeline/stage.py`.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import cast

from pydantic import Field

from pipeline.context import Findings, StageContext, Teardown
from pipeline.errors import (
    Aborted,
    NotifierError,
    ObjectMissing,
    SourceError,
    StorageDenied,
    StorageError,
    StorageRefused,
    StorageUnavailable,
    TransformError,
)
from pipeline.events import Event, RunStarted
from pipeline.naming import part_name
from pipeline.report import RunReport
from pipeline.stage import (
    CHUNK,
    Artifact,
    Needed,
    Notifier,
    ObjectInfo,
    Shard,
    Source,
    Storage,
    Transform,
    Writer,
)
from schemas.base import ByteSize, Command, Duration, Secret, Spec, Text
from schemas.modules import API
from schemas.telling import NotifierSpecBase
from schemas.tls import Tls

__all__ = [
    "API",
    "CHUNK",
    "Aborted",
    "Artifact",
    "ByteSize",
    "Command",
    "Duration",
    "Event",
    "Field",
    "Findings",
    "Needed",
    "Notifier",
    "NotifierError",
    "NotifierSpecBase",
    "ObjectInfo",
    "ObjectMissing",
    "RunReport",
    "RunStarted",
    "Secret",
    "Shard",
    "Source",
    "SourceError",
    "Spec",
    "StageContext",
    "Storage",
    "StorageDenied",
    "StorageError",
    "StorageRefused",
    "StorageUnavailable",
    "Teardown",
    "Text",
    "Tls",
    "Transform",
    "TransformError",
    "Writer",
    "part_name",
    "run_program",
]


def run_program(
    argv: Sequence[str],
    context: StageContext,
    error: type[SourceError | TransformError],
    chunks: Iterable[bytes] | None = None,
    *,
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    timeout: float | None = None,
) -> Iterator[bytes]:
    """Run a program and yield its output as chunks; the usual way to write a source or a stage.

    It is ended, with all that it has started, when the run is stopped, when it takes too long, or
    when the generator is closed.

    Args:
        argv: program and arguments, which every user of the machine can see; no shell is involved.
        error: what is raised when it cannot be started, exits with another code than 0, or does not
            read all of its input. The end of its standard error is in the message.
        chunks: its standard input; without it that is empty.
        env: variables added to our own: the place for secrets, which are cut out of messages.
        timeout: seconds it may take.
    """
    child = importlib.import_module("stages._child")
    program = child.Program(argv, env=env or {}, cwd=cwd, timeout=timeout)
    return cast("Iterator[bytes]", child.stream(program, context, error, chunks))
