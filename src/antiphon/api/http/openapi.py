"""The API's description as an OpenAPI 3.1 document. Pure.

It is put together from ``endpoints``, from the decoders' types, and, for what is answered,
from the encoders' own bodies: what they always show is what is required here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeAlias

import msgspec

from antiphon import errors
from antiphon.api.http.endpoints import ENDPOINTS, Endpoint
from antiphon.api.http.idempotency import LONGEST_KEY
from antiphon.api.http.response_body import response_body
from antiphon.core.turns import Header, Response
from antiphon.errors import AntiphonError

Schema: TypeAlias = dict[str, Any]

_HERE: Final = "#/components/schemas/"
_PLACE: Final = re.compile(r"\{(\w+)\}")
_PRIVATE: Final = re.compile(r"(?:antiphon\.api\.http\.\w+\.)?_?(\w+)")
_STRING: Final[Schema] = {"type": "string"}
_WHOLE: Final[Schema] = {"type": "integer"}

_KEY: Final[Schema] = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "With the same again, the same request gets what the first one made.",
    "schema": {"type": "string", "minLength": 1, "maxLength": LONGEST_KEY},
}
#: Status codes that any endpoint may answer with, and those of certain ones only.
_ANY: Final = frozenset({400, 401, 403, 404, 429, 500, 503})
_WITH_BODY: Final = frozenset({409, 413, 424, 502, 504})


def document(version: str) -> Schema:
    """The whole document; ``version`` is antiphon's."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "antiphon",
            "version": version,
            "description": "Conversations that last, in the words of the OpenAI Responses API.",
        },
        "security": [{}, {"key": []}],
        "paths": {
            path: {
                method.lower(): _operation(path, method, endpoint)
                for method, endpoint in methods.items()
            }
            for path, methods in ENDPOINTS.items()
        },
        "components": {
            "schemas": {**_bodies(), **_answers()},
            "responses": {"Error": _content("Error", "What went wrong.")},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(path: str, method: str, endpoint: Endpoint) -> Schema:
    operation: Schema = {
        "operationId": _operation_id(path, method),
        "summary": endpoint.about,
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": _STRING}
            for name in _PLACE.findall(path)
        ]
        + [
            {
                "name": one.name,
                "in": "query",
                "description": one.about,
                "schema": dict(one.schema),
                "style": one.style,
                "explode": True,
            }
            for one in endpoint.query
        ]
        + [_KEY] * endpoint.once,
        "responses": _responses(endpoint),
    }
    if endpoint.body is not None:
        schema = {"$ref": _HERE + endpoint.body.__name__}
        operation["requestBody"] = {
            "required": not endpoint.bare,
            "content": {"application/json": {"schema": schema}},
        }
    if endpoint.open:
        operation["security"] = [{}]
    return operation


def _operation_id(path: str, method: str) -> str:
    words = re.findall(r"\w+", path.removeprefix("/v1"))
    return "_".join([method.lower(), *words])


def _responses(endpoint: Endpoint) -> Schema:
    if endpoint.answer is None:
        good: Schema = {"description": endpoint.about, "content": {"text/plain": {}}}
    else:
        good = _content(endpoint.answer, endpoint.about)
    if endpoint.streams:
        good["content"]["text/event-stream"] = {"schema": _STRING}
    statuses = _ANY if endpoint.body is None else _ANY | _WITH_BODY
    refused = {"$ref": "#/components/responses/Error"}
    return {"200": good, **{str(status): refused for status in sorted(statuses)}}


def _content(name: str, about: str) -> Schema:
    return {
        "description": about,
        "content": {"application/json": {"schema": {"$ref": _HERE + name}}},
    }


def _bodies() -> Schema:
    """The schemas of all request bodies, and of what they are made of."""
    every = {
        endpoint.body
        for methods in ENDPOINTS.values()
        for endpoint in methods.values()
        if endpoint.body is not None
    }
    types = sorted(every, key=lambda one: one.__name__)
    _, found = msgspec.json.schema_components(types, ref_template=_HERE + "{name}")
    # Some types are private to their module, and two may have one name.
    names = _public(found)
    renamed = {names[name]: _renamed(schema, names) for name, schema in found.items()}
    return dict(sorted(renamed.items()))


def _public(names: Iterable[str]) -> dict[str, str]:
    public: dict[str, str] = {}
    for name in names:
        match = _PRIVATE.fullmatch(name)
        short = match[1] if match else name
        while short in public.values():
            short += "_"
        public[name] = short
    return public


def _renamed(value: Any, names: Mapping[str, str]) -> Any:
    match value:
        case dict():
            return {
                key: names.get(one, one).lstrip("_") if key == "title" else _renamed(one, names)
                for key, one in value.items()
            }
        case list():
            return [_renamed(one, names) for one in value]
        case str() if value.startswith(_HERE):
            return _HERE + names[value.removeprefix(_HERE)]
    return value


def _answers() -> Schema:
    shown = response_body(Response("", 0.0, Header(""), ()))
    listed = {"object": {"const": "list"}, "first_id": {}, "last_id": {}, "has_more": {}}
    answers: dict[str, Schema] = {
        "Response": {name: {} for name in shown} | {"id": _STRING, "status": _STRING},
        "Item": {"id": _STRING, "type": _STRING},
        "Conversation": {
            "id": _STRING,
            "object": _STRING,
            "created_at": _WHOLE,
            "metadata": {"type": "object"},
        },
        "Hit": {
            "id": _STRING,
            "object": _STRING,
            "conversation": {},
            "response_id": _STRING,
            "created_at": _WHOLE,
            "excerpt": _STRING,
        },
        "Deleted": {"id": _STRING, "object": _STRING, "deleted": {"const": True}},
        "Compaction": {
            "id": _STRING,
            "object": _STRING,
            "created_at": _WHOLE,
            "output": _many("Item"),
        }
        | {"usage": {"type": "object"}},
        "InputTokens": {"object": _STRING, "input_tokens": _WHOLE},
        "Context": {"object": _STRING, "response_id": _STRING, "messages": {"type": "array"}},
        "Model": {"id": _STRING, "object": _STRING, "created": _WHOLE, "owned_by": _STRING},
        "ModelList": {"object": {"const": "list"}, "data": _many("Model")},
        "ChatCompletion": {"id": _STRING, "object": _STRING, "choices": {"type": "array"}},
        "ResponseList": {**listed, "data": _many("Response")},
        "ItemList": {**listed, "data": _many("Item")},
        "ConversationList": {**listed, "data": _many("Conversation", "Hit")},
        "Message": {},
    }
    return {name: _object(fields) for name, fields in answers.items()} | {"Error": _error()}


def _many(*names: str) -> Schema:
    refs = [{"$ref": _HERE + name} for name in names]
    return {"type": "array", "items": refs[0] if len(refs) == 1 else {"anyOf": refs}}


def _object(fields: Mapping[str, Schema]) -> Schema:
    return {"type": "object", "properties": dict(fields), "required": sorted(fields)}


def _error() -> Schema:
    body = _object(
        {
            "message": _STRING,
            "type": {"enum": sorted({kind.type for kind in _kinds()})},
            "code": _STRING | {"examples": sorted({kind.default_code for kind in _kinds()})},
            "param": {"type": ["string", "null"]},
        }
    )
    body["properties"]["response_id"] = _STRING
    return _object({"error": body})


def _kinds() -> list[type[AntiphonError]]:
    return [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, AntiphonError)
    ]
