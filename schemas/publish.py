"""JSON Schemas made from the models; `python -m schemas.publish` renews the files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from schemas.json_schema import DIALECT, pipeline_schema
from schemas.manifest import Manifest

MANIFEST = Path(__file__).with_name("manifest.schema.json")
PIPELINE = Path(__file__).with_name("pipeline.schema.json")


def manifest_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a manifest as it lies on a storage."""
    schema = Manifest.model_json_schema(mode="serialization")
    return {"$schema": DIALECT, **schema}


def render(schema: dict[str, Any]) -> str:
    """The text of the published file."""
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    MANIFEST.write_text(render(manifest_schema()), encoding="utf-8")
    PIPELINE.write_text(render(pipeline_schema()), encoding="utf-8")
