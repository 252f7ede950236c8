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
from antiphon.api.http.idempotency import MAX_KEY_LENGTH
from antiphon.api.http.response_body import response_body
from antiphon.core.turns import Header, Response
from antiphon.errors import AntiphonError

Schema: TypeAlias = dict[str, Any]

_SCHEMA_REF: Final = "#/components/schemas/"
_PATH_PARAMETER: Final = re.compile(r"\{(\w+)\}")
_PRIVATE_NAME: Final = re.compile(r"(?:antiphon\.api\.(?:http|common)\.\w+\.)?_?(\w+)")
_STRING: Final[Schema] = {"type": "string"}
_INTEGER: Final[Schema] = {"type": "integer"}

_IDEMPOTENCY_KEY: Final[Schema] = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "With the same again, the same request gets what the first one made.",
    "schema": {"type": "string", "minLength": 1, "maxLength": MAX_KEY_LENGTH},
}
#: Status codes that any endpoint may answer with, and those of certain ones only.
_COMMON_STATUSES: Final = frozenset({400, 401, 403, 404, 429, 500, 503})
_BODY_STATUSES: Final = frozenset({409, 413, 424, 502, 504})


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
            "schemas": {**_request_schemas(), **_response_schemas()},
            "responses": {"Error": _json_content("Error", "What went wrong.")},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(path: str, method: str, endpoint: Endpoint) -> Schema:
    operation: Schema = {
        "operationId": _operation_id(path, method),
        "summary": endpoint.summary,
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": _STRING}
            for name in _PATH_PARAMETER.findall(path)
        ]
        + [
            {
                "name": one.name,
                "in": "query",
                "description": one.description,
                "schema": dict(one.schema),
                "style": one.style,
                "explode": True,
            }
            for one in endpoint.query
        ]
        + [_IDEMPOTENCY_KEY] * endpoint.takes_idempotency_key,
        "responses": _responses(endpoint),
    }
    if endpoint.body is not None:
        schema = {"$ref": _SCHEMA_REF + endpoint.body.__name__}
        operation["requestBody"] = {
            "required": not endpoint.body_optional,
            "content": {"application/json": {"schema": schema}},
        }
    if endpoint.public:
        operation["security"] = [{}]
    return operation


def _operation_id(path: str, method: str) -> str:
    words = re.findall(r"\w+", path.removeprefix("/v1"))
    return "_".join([method.lower(), *words])


def _responses(endpoint: Endpoint) -> Schema:
    if endpoint.response_schema is None:
        good: Schema = {"description": endpoint.summary, "content": {"text/plain": {}}}
    else:
        good = _json_content(endpoint.response_schema, endpoint.summary)
    if endpoint.streams:
        good["content"]["text/event-stream"] = {"schema": _STRING}
    statuses = _COMMON_STATUSES if endpoint.body is None else _COMMON_STATUSES | _BODY_STATUSES
    refused = {"$ref": "#/components/responses/Error"}
    return {"200": good, **{str(status): refused for status in sorted(statuses)}}


def _json_content(name: str, about: str) -> Schema:
    return {
        "description": about,
        "content": {"application/json": {"schema": {"$ref": _SCHEMA_REF + name}}},
    }


def _request_schemas() -> Schema:
    """The schemas of all request bodies, and of what they are made of."""
    every = {
        endpoint.body
        for methods in ENDPOINTS.values()
        for endpoint in methods.values()
        if endpoint.body is not None
    }
    types = sorted(every, key=lambda one: one.__name__)
    _, found = msgspec.json.schema_components(types, ref_template=_SCHEMA_REF + "{name}")
    # Some types are private to their module, and two may have one name.
    names = _public_names(found)
    renamed = {names[name]: _rename_refs(schema, names) for name, schema in found.items()}
    return dict(sorted(renamed.items()))


def _public_names(names: Iterable[str]) -> dict[str, str]:
    public: dict[str, str] = {}
    for name in names:
        match = _PRIVATE_NAME.fullmatch(name)
        short = match[1] if match else name
        while short in public.values():
            short += "_"
        public[name] = short
    return public


def _rename_refs(value: Any, names: Mapping[str, str]) -> Any:
    match value:
        case dict():
            return {
                key: names.get(one, one).lstrip("_") if key == "title" else _rename_refs(one, names)
                for key, one in value.items()
            }
        case list():
            return [_rename_refs(one, names) for one in value]
        case str() if value.startswith(_SCHEMA_REF):
            return _SCHEMA_REF + names[value.removeprefix(_SCHEMA_REF)]
    return value


def _response_schemas() -> Schema:
    shown = response_body(Response("", 0.0, Header(""), ()))
    listed = {"object": {"const": "list"}, "first_id": {}, "last_id": {}, "has_more": {}}
    answers: dict[str, Schema] = {
        "Response": {name: {} for name in shown} | {"id": _STRING, "status": _STRING},
        "Item": {"id": _STRING, "type": _STRING},
        "Conversation": {
            "id": _STRING,
            "object": _STRING,
            "created_at": _INTEGER,
            "metadata": {"type": "object"},
        },
        "Hit": {
            "id": _STRING,
            "object": _STRING,
            "conversation": {},
            "response_id": _STRING,
            "created_at": _INTEGER,
            "excerpt": _STRING,
        },
        "Deleted": {"id": _STRING, "object": _STRING, "deleted": {"const": True}},
        "Compaction": {
            "id": _STRING,
            "object": _STRING,
            "created_at": _INTEGER,
            "output": _array("Item"),
        }
        | {"usage": {"type": "object"}},
        "InputTokens": {"object": _STRING, "input_tokens": _INTEGER},
        "Context": {"object": _STRING, "response_id": _STRING, "messages": {"type": "array"}},
        "Model": {"id": _STRING, "object": _STRING, "created": _INTEGER, "owned_by": _STRING},
        "ModelList": {"object": {"const": "list"}, "data": _array("Model")},
        "ChatCompletion": {"id": _STRING, "object": _STRING, "choices": {"type": "array"}},
        "ResponseList": {**listed, "data": _array("Response")},
        "ItemList": {**listed, "data": _array("Item")},
        "ConversationList": {**listed, "data": _array("Conversation", "Hit")},
        "Message": {},
    }
    return {name: _object(fields) for name, fields in answers.items()} | {"Error": _error_schema()}


def _array(*names: str) -> Schema:
    refs = [{"$ref": _SCHEMA_REF + name} for name in names]
    return {"type": "array", "items": refs[0] if len(refs) == 1 else {"anyOf": refs}}


def _object(fields: Mapping[str, Schema]) -> Schema:
    return {"type": "object", "properties": dict(fields), "required": sorted(fields)}


def _error_schema() -> Schema:
    body = _object(
        {
            "message": _STRING,
            "type": {"enum": sorted({kind.type for kind in _error_classes()})},
            "code": _STRING
            | {"examples": sorted({kind.default_code for kind in _error_classes()})},
            "param": {"type": ["string", "null"]},
        }
    )
    body["properties"]["response_id"] = _STRING
    return _object({"error": body})


def _error_classes() -> list[type[AntiphonError]]:
    return [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, AntiphonError)
    ]
