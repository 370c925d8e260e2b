"""`schema`: the JSON Schema of the configuration, for editors and validators."""

from __future__ import annotations

import argparse

from pipeline.cli.session import environment, refused
from schemas.json_schema import pipeline_schema
from schemas.load import InvalidConfiguration, load_extensions
from schemas.modules import NONE
from schemas.publish import manifest_schema, render


def run(options: argparse.Namespace) -> int:
    """Print the schema; returns the exit code."""
    if options.manifest:
        print(render(manifest_schema()), end="")
        return 0
    try:
        extensions = load_extensions(options.file, environment(options)) if options.file else NONE
    except InvalidConfiguration as invalid:
        raise refused(invalid, options) from None
    print(render(pipeline_schema(extensions.pipeline)), end="")
    return 0
