"""OpenAPI: the API's description as a 3.1 document and as a page, ``/openapi.json`` and ``/docs``.

The document is generated from the route table (``routes``), from the decoders' types, and, for
responses, from the encoders' own bodies: the fields that those always have are required here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from html import escape
from importlib.metadata import version
from typing import Any, Final, TypeAlias

import msgspec
from starlette.types import Receive, Scope, Send

from antiphon import errors
from antiphon.api.http.asgi_responses import send_json
from antiphon.api.http.chains import branch_body
from antiphon.api.http.chats import chat_body, sum_body
from antiphon.api.http.idempotency import MAX_KEY_LENGTH
from antiphon.api.http.responses_codec import response_body
from antiphon.core.turns import Header, Response, Usage
from antiphon.errors import AntiphonError
from antiphon.turn.chat_protocols import ChatRecord, TurnBranch

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
_HTML: Final = [
    (b"content-type", b"text/html; charset=utf-8"),
    # The page has no script, loads nothing, and is framed by nobody.
    (
        b"content-security-policy",
        b"default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    ),
]
_STYLE: Final = (
    "body{font:1rem/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;"
    "color:#1a1a1a;background:#fff}code,.m{font-family:ui-monospace,monospace}"
    ".m{display:inline-block;min-width:4.5rem;font-weight:700}"
    "details{border-top:1px solid #8884;padding:.4rem 0}summary{cursor:pointer}"
    "td,th{text-align:left;vertical-align:top;padding:.1rem 1rem .1rem 0}"
    "@media(prefers-color-scheme:dark){body{color:#eee;background:#111}}"
)
#: Status codes that any endpoint may answer with, and those of certain ones only.
_COMMON_STATUSES: Final = frozenset({400, 401, 403, 404, 429, 431, 500, 503})
_BODY_STATUSES: Final = frozenset({408, 409, 413, 415, 424, 502, 504})


#: What a file is, by its media type.
_BINARY: Final[Schema] = {"type": "string", "format": "binary"}
_FILE_SCHEMAS: Final[dict[str, Schema]] = {"application/json": {"type": ["array", "object"]}}


class Parameter(msgspec.Struct, frozen=True):
    """A query parameter; ``style`` as in OpenAPI."""

    name: str
    schema: Mapping[str, Any]
    description: str
    style: str = "form"


class Operation(msgspec.Struct, frozen=True):
    """One method of one path, as it is described.

    ``path`` is a template of Starlette's. ``response_schema`` names one of the schemas here,
    None: the response is text, of ``media_types``. ``body`` is the type that the request body is
    decoded to. ``takes_file``: the body is a file of one of these types instead.
    ``streams``: the response may be an event stream.
    """

    method: str
    path: str
    summary: str
    response_schema: str | None
    body: type[msgspec.Struct] | None = None
    query: tuple[Parameter, ...] = ()
    streams: bool = False
    body_optional: bool = False
    takes_idempotency_key: bool = False
    takes_file: tuple[str, ...] = ()
    media_types: tuple[str, ...] = ("text/plain",)
    success_status: int = 200
    #: Needs no API key, even where there are keys.
    public: bool = False

    @property
    def documented_path(self) -> str:
        """The path without Starlette's converters, as OpenAPI writes it."""
        return self.path.replace(":path}", "}")


class DocsEndpoints:
    """``/openapi.json`` and ``/docs``. The document is built by the first request."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        self._document = cache(lambda: document(operations, version("antiphon")))
        self._json = cache(lambda: msgspec.json.encode(self._document()))
        self._page = cache(lambda: render_docs_page(self._document()).encode())

    async def get_openapi(self, scope: Scope, receive: Receive, send: Send) -> None:
        """GET /openapi.json"""
        await send_json(send, self._json())

    async def get_docs(self, scope: Scope, receive: Receive, send: Send) -> None:
        """GET /docs"""
        body = self._page()
        headers = [*_HTML, (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def document(operations: Sequence[Operation], version: str) -> Schema:
    """The whole document; ``version`` is antiphon's. Pure."""
    paths: dict[str, Schema] = {}
    for one in operations:
        paths.setdefault(one.documented_path, {})[one.method.lower()] = _operation(one)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "antiphon",
            "version": version,
            "description": "Conversations that last, in the words of the OpenAI Responses API.",
        },
        "security": [{}, {"key": []}],
        "paths": paths,
        "components": {
            "schemas": {**_request_schemas(operations), **_response_schemas()},
            "responses": {"Error": _json_content("Error", "What went wrong.")},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(endpoint: Operation) -> Schema:
    path = endpoint.documented_path
    operation: Schema = {
        "operationId": _operation_id(path, endpoint.method),
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
    if endpoint.takes_file:
        content: Schema = {
            media: {"schema": _FILE_SCHEMAS.get(media, _BINARY)} for media in endpoint.takes_file
        }
        operation["requestBody"] = {"required": True, "content": content}
    if endpoint.public:
        operation["security"] = [{}]
    return operation


def _operation_id(path: str, method: str) -> str:
    words = re.findall(r"\w+", path.removeprefix("/v1"))
    return "_".join([method.lower(), *words])


def _responses(endpoint: Operation) -> Schema:
    if endpoint.response_schema is None:
        good: Schema = {
            "description": endpoint.summary,
            "content": {media: {} for media in endpoint.media_types},
        }
    else:
        good = _json_content(endpoint.response_schema, endpoint.summary)
    if endpoint.streams:
        good["content"]["text/event-stream"] = {"schema": _STRING}
    has_body = endpoint.body is not None or endpoint.takes_file
    statuses = _COMMON_STATUSES | _BODY_STATUSES if has_body else _COMMON_STATUSES
    refused = {"$ref": "#/components/responses/Error"}
    return {
        str(endpoint.success_status): good,
        **{str(status): refused for status in sorted(statuses)},
    }


def _json_content(name: str, about: str) -> Schema:
    return {
        "description": about,
        "content": {"application/json": {"schema": {"$ref": _SCHEMA_REF + name}}},
    }


def _request_schemas(operations: Sequence[Operation]) -> Schema:
    """The schemas of all request bodies, and of what they are made of."""
    bodies = {one.body for one in operations if one.body is not None}
    types = sorted(bodies, key=lambda one: one.__name__)
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
                key: (
                    names.get(one, one).lstrip("_")
                    # A field may have that name too.
                    if key == "title" and isinstance(one, str)
                    else _rename_refs(one, names)
                )
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
        **_chat_schemas(listed),
        "Deleted": {"id": _STRING, "object": _STRING, "deleted": {"const": True}},
        "Compaction": {
            "id": _STRING,
            "object": _STRING,
            "created_at": _INTEGER,
            "output": _array("Item"),
        }
        | {"usage": {"type": "object"}},
        "InputTokens": {"object": _STRING, "input_tokens": _INTEGER},
        "Model": {"id": _STRING, "object": _STRING, "created": _INTEGER, "owned_by": _STRING},
        "ModelList": {"object": {"const": "list"}, "data": _array("Model")},
        "LanguageModel": {
            **dict.fromkeys(("id", "object", "owned_by", "version", "fingerprint"), _STRING),
            **{name: {"type": "array"} for name in ("input_modalities", "output_modalities")},
            "created": _INTEGER,
            "prompt_text_token_price": _INTEGER,
            "completion_text_token_price": _INTEGER,
        },
        "LanguageModelList": {"models": _array("LanguageModel")},
        "ApiKeyInfo": {"redacted_api_key": _STRING, "api_key_id": _STRING, "name": _STRING},
        "Tokens": {"token_ids": {"type": "array"}},
        "ChatCompletion": {"id": _STRING, "object": _STRING, "choices": {"type": "array"}},
        "ChatMessage": {"id": _STRING, "role": _STRING, "content": {}},
        "ChatCompletionList": {**listed, "data": _array("ChatCompletion")},
        "ChatMessageList": {**listed, "data": _array("ChatMessage")},
        "ResponseList": {**listed, "data": _array("Response")},
        "ItemList": {**listed, "data": _array("Item")},
        "ConversationList": {**listed, "data": _array("Conversation", "Hit")},
        "Message": {},
    }
    answers |= _transfer_schemas(listed)
    return {name: _object(fields) for name, fields in answers.items()} | {"Error": _error_schema()}


def _chat_schemas(listed: Schema) -> Schema:
    branch = branch_body(TurnBranch("", 0.0, "", "completed", None, "", 0), 0)
    chat = chat_body(ChatRecord("", 0.0, 0.0, "", 0, 0, "", "idle"))
    answers: Schema = {
        "Context": {
            **dict.fromkeys(("object", "response_id"), _STRING),
            "messages": {"type": "array"},
            **dict.fromkeys(("turns_left_out", "turns_summarized"), _INTEGER),
        },
        "Rhythm": {
            **dict.fromkeys(("object", "response_id"), _STRING),
            "first_word_after": {"type": ["number", "null"]},
            "data": {"type": "array"},
        },
        "Chat": {name: {} for name in chat} | {"id": _STRING, "status": _STRING},
        "Turn": {
            "object": _STRING,
            "response": {"$ref": _SCHEMA_REF + "Response"},
            "input": _array("Item"),
            "position": _INTEGER,
            "siblings": {"type": "object"},
            "children": _INTEGER,
            "expires_at": {},
        },
        "TurnList": {
            **{name: one for name, one in listed.items() if name != "has_more"},
            "data": _array("Turn"),
            "has_more_before": {"type": "boolean"},
            "has_more_after": {"type": "boolean"},
            "total": _INTEGER,
        },
        "Branch": {name: {} for name in branch} | {"response_id": _STRING},
        "BranchList": {**listed, "data": _array("Branch"), "total": _INTEGER},
        "ChatList": {**listed, "data": _array("Chat")},
        "Approval": {
            **dict.fromkeys(("id", "object", "response_id", "chat_id", "name"), _STRING),
            "title": {},
            "created_at": _INTEGER,
            "arguments": _STRING,
        },
        "ChatBranchList": {**listed, "data": {"type": "array"}},
        "ChatHitList": {**listed, "data": {"type": "array"}},
        "UsageList": {"object": {"const": "list"}, "data": _array("UsageSum")},
        "UsageSum": dict.fromkeys(("turns", *sum_body(Usage(), None)), _INTEGER),
        "StoreUsage": {
            "object": {"const": "store.usage"},
            **dict.fromkeys(("chats", "conversations", "turns", "counted_to"), _INTEGER),
            "expires_next": {},
        },
        "ResponseUsage": {
            "object": {"const": "response.usage"},
            "turn": {"type": "object"},
            "chain": {"type": "object"},
            "turns": _INTEGER,
        },
        "ApprovalList": {**listed, "data": _array("Approval")},
    }
    return answers


def _transfer_schemas(listed: Schema) -> dict[str, Schema]:
    """The responses of imports and shared links."""
    return {
        "Import": {
            "id": _STRING,
            "object": _STRING,
            "status": {"enum": ["running", "completed", "failed"]},
            "source": {},
            "created_at": _INTEGER,
            "completed_at": {},
            "progress": {"type": "number"},
            "chats": {"type": "object"},
            "counts": {"type": "object"},
            "new_turns": _INTEGER,
            "report": {"type": "array"},
            "has_more": {"type": "boolean"},
            "skipped_files": {"type": "array"},
            "error": {},
        },
        "ImportList": {**listed, "data": _array("Import")},
        "Share": {
            "id": _STRING,
            "object": _STRING,
            "response_id": _STRING,
            "created_at": _INTEGER,
            "expires_at": {},
        },
        "ShareList": {**listed, "data": _array("Share")},
    }


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


def render_docs_page(document: dict[str, Any]) -> str:
    """An OpenAPI document to be read: every endpoint, what it takes and gives. Pure."""
    title = escape(f"{document['info']['title']} {document['info']['version']}")
    endpoints = "".join(
        _render_endpoint(method, path, operation, document)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width"><style>'
        f"{_STYLE}</style><h1>{title}</h1><p>{escape(document['info']['description'])} "
        "The same for programs: <a href=openapi.json>openapi.json</a>.</p>"
        f"{endpoints}</html>\n"
    )


def _render_endpoint(
    method: str, path: str, operation: dict[str, Any], document: dict[str, Any]
) -> str:
    rows = [(one["name"], one["in"], one.get("description", "")) for one in operation["parameters"]]
    body = operation.get("requestBody")
    if body is not None:
        name = body["content"]["application/json"]["schema"].get("$ref", "").rpartition("/")[2]
        schema = document["components"]["schemas"].get(name, {})
        required = schema.get("required", ())
        rows += [
            (field, "body", "required" if field in required else "")
            for field in schema.get("properties", ())
        ]
    table = "".join(
        f"<tr><td><code>{escape(name)}</code><td>{where}<td>{escape(about)}"
        for name, where, about in rows
    )
    return (
        f"<details><summary><span class=m>{method.upper()}</span> <code>{escape(path)}</code> "
        f"{escape(operation['summary'])}</summary><table>{table}</table></details>"
    )
