"""JSON schemas of types: without titles, and the same in every process."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, create_model

from antiphon.tools.typed_tool import generate_schema


class Node(BaseModel):
    title: str
    children: list[Node] = []


class Titled(BaseModel):
    model_config = ConfigDict(title="Noise", json_schema_extra={"examples": [{"title": "kept"}]})

    title: str = Field(title="More noise")
    values: Annotated[dict[str, Annotated[int, Field(title="Deep noise")]], "note"]


def test_titles_are_removed_but_not_fields_named_title() -> None:
    assert generate_schema(TypeAdapter(Titled)) == {
        "type": "object",
        "properties": {
            "title": {"type": "string"},
            "values": {"type": "object", "additionalProperties": {"type": "integer"}},
        },
        "required": ["title", "values"],
        "examples": [{"title": "kept"}],
    }


def test_recursive_type_has_an_object_at_the_top() -> None:
    schema = generate_schema(TypeAdapter(Node))
    assert schema["type"] == "object"
    children = {"type": "array", "items": {"$ref": "#/$defs/Node"}, "default": []}
    assert schema["properties"]["children"] == children
    assert schema["$defs"]["Node"]["properties"]["children"] == children


def test_default_that_is_not_json_is_omitted() -> None:
    model: Any = create_model("M", x=(Any, object()))
    assert generate_schema(TypeAdapter(model))["properties"] == {"x": {}}


def test_set_default_order_is_stable_across_processes() -> None:
    code = """
from pydantic import TypeAdapter, create_model
from antiphon.tools.typed_tool import generate_schema
print(generate_schema(TypeAdapter(create_model("M", x=(set[str], {"a", "b", "c", "d", "e"})))))
"""
    schemas = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in "123"
    }
    assert len(schemas) == 1
