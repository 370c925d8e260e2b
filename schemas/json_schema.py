"""The configuration as a JSON Schema (draft 2020-12), made from the models.

It accepts what the loader accepts, as far as a schema can say it: a reference (`${NAME}`) where a
value may stand, a number where text is expected, a quoted number where one is. It insists on quotes
around a name that is a number. Rules between keys are left to the loader. What has a `type` becomes
a chain of conditions: with these, editors and validators say what is wrong with the one that was
meant.
"""

from __future__ import annotations

import re
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from schemas.base import REFERENCE
from schemas.notifiers import NotifierSpec
from schemas.pipeline import Pipeline
from schemas.shapes import shape
from schemas.sources import SourceSpec
from schemas.storages import StorageSpec
from schemas.transforms import TransformSpec

DIALECT = "https://json-schema.org/draft/2020-12/schema"

_KINDS = {
    "Source": SourceSpec,
    "Stage": TransformSpec,
    "Storage": StorageSpec,
    "Notifier": NotifierSpec,
}
"""The unions: each becomes a definition of its own."""
_BOUNDS = ("ge", "gt", "le", "lt", "multiple_of")
"""Of a size or a time: in a schema they could not be compared with a text."""


def pipeline_schema(model: type[Pipeline] = Pipeline) -> dict[str, Any]:
    """The JSON Schema of a configuration file.

    Args:
        model: of a configuration whose modules add something; see `schemas.modules`.
    """
    made = model.model_json_schema(mode="validation", schema_generator=_Generator)
    definitions = made.pop("$defs")
    tidy = _Tidy(definitions)
    root = tidy.schema(made)
    definitions = {name: tidy.schema(each) for name, each in definitions.items()} | tidy.unions
    required = root.pop("required")
    # What is not here may stand in a file that is included.
    complete = {"if": {"required": ["include"]}, "else": {"required": required}}
    return {"$schema": DIALECT, **root, **complete, "$defs": dict(sorted(definitions.items()))}


class _Generator(GenerateJsonSchema):
    """Says of scalars what may stand in the file for them."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002
        return False

    def str_schema(self, schema: core_schema.StringSchema) -> JsonSchemaValue:
        found = super().str_schema(schema)
        if "pattern" in found:
            return {**found, "pattern": f"{found['pattern']}|{REFERENCE}"}
        return {**found, "type": ["string", "number"]}

    def int_schema(self, schema: core_schema.IntSchema) -> JsonSchemaValue:
        found = super().int_schema(schema)
        return {**found, "type": ["integer", "string"], "pattern": rf"^[+-]?[0-9]+$|{REFERENCE}"}

    def float_schema(self, schema: core_schema.FloatSchema) -> JsonSchemaValue:
        found = super().float_schema(schema)
        pattern = rf"^[+-]?[0-9]+(\.[0-9]+)?$|{REFERENCE}"
        return {**found, "type": ["number", "string"], "pattern": pattern}

    def bool_schema(self, schema: core_schema.BoolSchema) -> JsonSchemaValue:  # noqa: ARG002
        words = "true|false|yes|no|on|off"
        return {"type": ["boolean", "string"], "pattern": f"^({words})$|{REFERENCE}"}

    def literal_schema(self, schema: core_schema.LiteralSchema) -> JsonSchemaValue:
        """A choice; a single word is a mark, such as a `type`, and stands for nothing else."""
        found = super().literal_schema(schema)
        if "const" in found:
            return found
        return {"anyOf": [{"enum": found["enum"]}, {"type": "string", "pattern": REFERENCE}]}

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        inner = self.generate_inner(schema["schema"])
        if "type" not in inner or "const" in inner:
            return super().nullable_schema(schema)
        return {**inner, "type": [*_listed(inner["type"]), "null"]}

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        found = super().default_schema(schema)
        if "default" in found and found["default"] in (None, "", [], {}):
            del found["default"]
        return found


def _listed(types: Any) -> list[str]:
    return types if isinstance(types, list) else [types]


class _Tidy:
    """Makes of pydantic's output what is published."""

    def __init__(self, definitions: dict[str, Any]) -> None:
        self._definitions = definitions
        self.unions: dict[str, Any] = {}
        """Definitions that were made of unions."""

    def schema(self, node: Any) -> Any:
        if not isinstance(node, dict):
            return node
        found = {key: self._part(key, part) for key, part in node.items() if key not in _BOUNDS}
        if "patternProperties" in found:
            # Keys of another form are not let through.
            ((pattern, value),) = found.pop("patternProperties").items()
            found |= {"propertyNames": {"pattern": pattern}, "additionalProperties": value}
        if "discriminator" in found:
            del found["oneOf"]
            found["$ref"] = self._union(found.pop("discriminator")["mapping"])
        if found.get("format") == "password":
            found["type"] = ["number", *_listed(found["type"])]
        if "const" in found.get("properties", {}).get("type", {}):
            found["properties"]["type"]["description"] = found.get("description", "")
        return found

    def _part(self, key: str, part: Any) -> Any:
        if key in ("properties", "patternProperties"):
            return {name: self.schema(each) for name, each in part.items()}
        if key in ("anyOf", "oneOf", "allOf"):
            return [self.schema(each) for each in part]
        if key == "description":
            return re.sub(r"(?<!\n)\n(?!\n)", " ", part)
        return self.schema(part) if key in ("items", "additionalProperties") else part

    def _union(self, references: dict[str, str]) -> str:
        """A definition for what has one of several types; the way to it."""
        kind = next(
            kind for kind, union in _KINDS.items() if not shape(union).tags.keys() - references
        )
        types = []
        for tag, reference in sorted(references.items()):
            about = self._definitions[reference.rpartition("/")[2]].get("description", "")
            types.append({"const": tag, "description": self._part("description", about)})
        self.unions[kind] = {
            "type": "object",
            "properties": {"type": {"description": "What it is.", "oneOf": types}},
            "required": ["type"],
            "allOf": [
                {
                    "if": {"properties": {"type": {"const": tag}}, "required": ["type"]},
                    "then": {"$ref": reference},
                }
                for tag, reference in sorted(references.items())
            ],
        }
        return f"#/$defs/{kind}"
