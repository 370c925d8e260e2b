"""What modules may rely on: the contracts of the four kinds of stage, under one name.

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

from pydantic import Field

from pipeline.context import Findings, StageContext, Teardown
from pipeline.errors import (
    NotifierError,
    ObjectMissing,
    SourceError,
    StorageDenied,
    StorageError,
    StorageRefused,
    StorageUnavailable,
    TransformError,
)
from pipeline.events import Event
from pipeline.report import RunReport
from pipeline.stage import (
    CHUNK,
    Artifact,
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
from schemas.notifiers import NotifierSpecBase
from schemas.tls import Tls

__all__ = [
    "API",
    "CHUNK",
    "Artifact",
    "ByteSize",
    "Command",
    "Duration",
    "Event",
    "Field",
    "Findings",
    "Notifier",
    "NotifierError",
    "NotifierSpecBase",
    "ObjectInfo",
    "ObjectMissing",
    "RunReport",
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
]
