"""Write src/contract.ts, the TypeScript types of the documents, from their JSON schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from otoscope.documents.curve import CurveDoc
from otoscope.documents.explain import ExplainDoc
from otoscope.documents.features import FeaturesDoc
from otoscope.documents.graph import GraphDoc
from otoscope.documents.intervention import Outcome
from otoscope.documents.lens import LensDoc
from otoscope.documents.sweep import SweepDoc

TARGET = Path(__file__).parent / "src" / "contract.ts"
HEADER = "// Generated from otoscope.documents by generate_types.py (`npm run types`); do not edit.\n"
SIMPLE = {"string": "string", "integer": "number", "number": "number", "boolean": "boolean", "null": "null"}


def type_of(schema: dict[str, Any]) -> str:
    """The TypeScript type of one JSON schema."""
    if "$ref" in schema:
        return _name(schema["$ref"].rsplit("/", 1)[1])
    if "const" in schema or "enum" in schema:
        return " | ".join(json.dumps(value) for value in schema.get("enum", [schema.get("const")]))
    if "anyOf" in schema:
        return " | ".join(dict.fromkeys(type_of(option) for option in schema["anyOf"]))
    if "prefixItems" in schema:
        return f"[{', '.join(type_of(item) for item in schema['prefixItems'])}]"
    if schema["type"] == "array":
        return f"Array<{type_of(schema['items'])}>"
    if "additionalProperties" in schema:
        return f"Record<string, {type_of(schema['additionalProperties'])}>"
    return SIMPLE[schema["type"]]


def interface(name: str, schema: dict[str, Any]) -> str:
    """One exported interface with its documentation."""
    lines = [_comment(schema["description"]), f"export interface {_name(name)} {{"]
    for field, kind in schema["properties"].items():
        # Documents omit unknown values, so a field that may be null is a field that may be missing.
        optional = kind.get("default", "") is None
        written = type_of(kind).removesuffix(" | null") if optional else type_of(kind)
        lines.append(f"  {field}{'?' if optional else ''}: {written};")
    return "\n".join([*lines, "}"])


def generate() -> str:
    """The whole file's text."""
    interfaces: dict[str, str] = {}
    for document in (ExplainDoc, FeaturesDoc, GraphDoc, Outcome, CurveDoc, LensDoc, SweepDoc):
        schema = document.model_json_schema(mode="serialization")
        parts = schema.pop("$defs") | {document.__name__: schema}
        interfaces |= {name: interface(name, part) for name, part in parts.items()}
    return "\n\n".join([HEADER.strip(), *interfaces.values()]) + "\n"


def _name(name: str) -> str:
    return "PackedArray" if name == "Array" else name  # Array is taken in TypeScript


def _comment(text: str) -> str:
    lines = text.splitlines()
    if len(lines) == 1:
        return f"/** {text} */"
    return "\n".join(["/**", *(f" * {line}".rstrip() for line in lines), " */"])


if __name__ == "__main__":
    TARGET.write_text(generate(), encoding="utf-8")
