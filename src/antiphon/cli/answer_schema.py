"""Answer schema: the JSON schema of a file, as the form that answers are asked for in."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec

from antiphon.errors import ConfigError, InvalidOutputError

_MAX_NAME = 64


def load_schema(path: Path) -> dict[str, Any]:
    """``Options.text_format`` for the schema of a file. Raises ``ConfigError``."""
    try:
        schema = msgspec.json.decode(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"schema {path}: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise ConfigError(f"schema {path}: that is no JSON: {error}") from error
    if not isinstance(schema, dict) or schema.get("type") != "object":
        raise ConfigError(f'schema {path}: a schema of "type": "object" is needed')
    name = re.sub(r"[^a-zA-Z0-9_-]+", "_", str(schema.get("title") or path.stem))
    return {
        "type": "json_schema",
        "name": name.strip("_")[:_MAX_NAME] or "answer",
        "schema": schema,
        "strict": _is_closed(schema),
    }


def check_json(text: str) -> None:
    """Raises ``InvalidOutputError`` for an answer that is no JSON, as one that was cut off."""
    try:
        msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise InvalidOutputError(f"the answer is no JSON: {error}", text=text) from error


def _is_closed(schema: Any) -> bool:
    """Whether all its objects name all that must be in them: what providers can guarantee."""
    if isinstance(schema, list):
        return all(map(_is_closed, schema))
    if not isinstance(schema, dict):
        return True
    if schema.get("type") == "object" and (
        schema.get("additionalProperties") is not False
        or set(schema.get("required", ())) != set(schema.get("properties", ()))
    ):
        return False
    return all(map(_is_closed, schema.values()))
