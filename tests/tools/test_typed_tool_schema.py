"""JSON schemas: no noise, and the same in every process."""

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


def test_titles_are_left_out_but_not_fields_of_that_name() -> None:
    assert generate_schema(TypeAdapter(Titled)) == {
        "type": "object",
        "properties": {
            "title": {"type": "string"},
            "values": {"type": "object", "additionalProperties": {"type": "integer"}},
        },
        "required": ["title", "values"],
        "examples": [{"title": "kept"}],
    }


def test_a_type_that_refers_to_itself_has_an_object_at_the_top() -> None:
    schema = generate_schema(TypeAdapter(Node))
    assert schema["type"] == "object"
    children = {"type": "array", "items": {"$ref": "#/$defs/Node"}, "default": []}
    assert schema["properties"]["children"] == children
    assert schema["$defs"]["Node"]["properties"]["children"] == children


def test_a_default_that_is_no_json_is_left_out() -> None:
    model: Any = create_model("M", x=(Any, object()))
    assert generate_schema(TypeAdapter(model))["properties"] == {"x": {}}


def test_the_order_of_a_set_is_the_same_in_every_process() -> None:
    code = """
from pydantic import TypeAdapter, create_model
from antiphon.tools.typed_tool import generate_schema
print(generate_schema(TypeAdapter(create_model("M", x=(set[str], {"a", "b", "c", "d", "e"})))))
"""
    said = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in "123"
    }
    assert len(said) == 1
