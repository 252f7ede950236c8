"""Stored chat completions: list, retrieve, update, delete, and their messages.

Each is a turn of the store, so that other interfaces show and continue it, too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from starlette.types import Receive, Scope, Send

from antiphon.api.common.authentication import tenant_of
from antiphon.api.common.body import RequestDecoder, query_params, read_body
from antiphon.api.common.tool_bodies import choice_body, tool_bodies
from antiphon.api.http.asgi_responses import send_json
from antiphon.api.http.chat_completions_codec import completion_body, message_body
from antiphon.api.http.loose_chat_requests import with_normal_metadata
from antiphon.api.http.pagination import (
    list_body,
    paginate,
    parse_limit,
    parse_order,
    parse_response_filter,
)
from antiphon.api.http.responses_codec import Metadata, format_body
from antiphon.core.chain_fingerprints import group_messages, is_assistant_item
from antiphon.core.ids import completion_id_of, to_response_id
from antiphon.core.items import (
    FunctionCallOutput,
    InputAudio,
    InputFile,
    InputImage,
    InputVideo,
    Item,
    Message,
    Part,
    Refusal,
    text_of,
)
from antiphon.core.turns import Response
from antiphon.errors import NotFoundError
from antiphon.turn.service import TurnService
from antiphon.turn.store_protocols import ResponseIndex, is_answered
from antiphon.turn.turn_reader import response_of

_encode = msgspec.json.Encoder().encode


#: Chains of more turns are shown by a thread.
_MAX_INLINE_TURNS: Final = 64


class ChatCompletionUpdate(msgspec.Struct, frozen=True):
    """What ``POST /v1/chat/completions/{id}`` takes."""

    metadata: Metadata | None


_update_body = RequestDecoder(ChatCompletionUpdate, with_normal_metadata)


class StoredChatCompletionEndpoints:
    """The endpoints, over one service."""

    def __init__(self, service: TurnService, response_index: ResponseIndex) -> None:
        self._service = service
        self._response_index = response_index

    async def list_all(self, scope: Scope, receive: Receive, send: Send) -> None:
        """GET /v1/chat/completions, by model and metadata; oldest first"""
        query = query_params(scope)
        limit = parse_limit(query)
        after = query.get("after", [None])[-1]
        turns = await self._response_index.list_responses(
            tenant_of(scope),
            limit + 1,
            after=None if after is None else to_response_id(after),
            newest_first=parse_order(query, "asc") == "desc",
            response_filter=msgspec.structs.replace(
                parse_response_filter(query), status=None, chat_completions=True
            ),
        )
        page = [stored_completion_body(response_of(turn)) for turn in turns[:limit]]
        await send_json(send, _encode(list_body(page, has_more=len(turns) > limit)))

    async def retrieve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """GET /v1/chat/completions/{id}"""
        response = await self._find(scope)
        await send_json(send, _encode(stored_completion_body(response)))

    async def update(self, scope: Scope, receive: Receive, send: Send) -> None:
        """POST /v1/chat/completions/{id}: other metadata"""
        params = _update_body.decode_known(await read_body(receive))
        response = await self._find(scope)
        await self._response_index.update_metadata(
            tenant_of(scope), response.id, params.metadata or {}
        )
        await self.retrieve(scope, receive, send)

    async def delete(self, scope: Scope, receive: Receive, send: Send) -> None:
        """DELETE /v1/chat/completions/{id}"""
        response = await self._find(scope)
        await self._service.delete(tenant_of(scope), response.id)
        name = completion_id_of(response.id)
        body = {"id": name, "object": "chat.completion.deleted", "deleted": True}
        await send_json(send, _encode(body))

    async def list_messages(self, scope: Scope, receive: Receive, send: Send) -> None:
        """GET /v1/chat/completions/{id}/messages: what the completion was asked with"""
        response = await self._find(scope)
        chain = await self._service.reader.chain(tenant_of(scope), response.id)
        query = query_params(scope)

        def page() -> bytes:
            name = completion_id_of(response.id)
            messages = [
                {"id": f"{name}-{number}", "content_parts": None, **body}
                for number, body in enumerate(request_messages(chain))
            ]
            return _encode(paginate(messages, query, "asc"))

        # Thousands of turns take longer than others should wait.
        is_short = len(chain) <= _MAX_INLINE_TURNS
        await send_json(send, page() if is_short else await asyncio.to_thread(page))

    async def _find(self, scope: Scope) -> Response:
        name = scope["path_params"]["id"]
        try:
            response = await self._service.reader.response(tenant_of(scope), to_response_id(name))
        except NotFoundError:
            response = None
        if response is None or not is_answered(response.end):
            raise NotFoundError(
                f"No chat completion found with id '{name}'.", code="chat_completion_not_found"
            )
        return response


def stored_completion_body(response: Response) -> dict[str, Any]:
    """A stored completion, with what it was asked with besides its messages."""
    options = response.header.options
    return {
        **completion_body(response),
        "metadata": options.metadata,
        "tools": [_tool_body(tool) for tool in tool_bodies(options)],
        "tool_choice": choice_body(options),
        "temperature": options.temperature,
        "top_p": options.top_p,
        "presence_penalty": options.presence_penalty,
        "frequency_penalty": options.frequency_penalty,
        "seed": options.seed,
        "response_format": format_body(options.text_format),
        "service_tier": options.service_tier or "default",
        "input_user": options.user,
    }


def _tool_body(tool: dict[str, Any]) -> dict[str, Any]:
    """A tool with its fields where chat completions have them."""
    kind = tool["type"]
    if kind not in ("function", "custom"):
        return tool
    fields = {name: it for name, it in tool.items() if name != "type" and it is not None}
    return {"type": kind, kind: fields}


def request_messages(chain: Sequence[Response]) -> list[dict[str, Any]]:
    """The messages of the last turn's request: those of the turns before it, and its own."""
    messages: list[dict[str, Any]] = []
    for position, response in enumerate(chain, 1):
        messages += [
            _message_body(message)
            for message in group_messages(response.input)
            if is_assistant_item(message[0]) or isinstance(message[0], _SHOWN_ITEMS)
        ]
        if position < len(chain):
            messages.append(message_body(response.output))
    return messages


#: Other items are of other interfaces, and no messages of this one.
_SHOWN_ITEMS = (Message, FunctionCallOutput)


def _message_body(message: Sequence[Item]) -> dict[str, Any]:
    if is_assistant_item(message[0]):
        return message_body(message)
    item = message[0]
    if isinstance(item, FunctionCallOutput):
        return {"role": "tool", **_content_body(item.output), "tool_call_id": item.call_id}
    assert isinstance(item, Message)
    return {"role": item.role, **_content_body(item.content), "name": item.name}


def _content_body(content: str | tuple[Part, ...]) -> dict[str, Any]:
    if isinstance(content, str):
        return {"content": content}
    return {"content": text_of(content) or None, "content_parts": [_part_body(p) for p in content]}


def _part_body(part: Part) -> dict[str, Any]:
    match part:
        case InputImage(image_url=url, detail=detail):
            return {"type": "image_url", "image_url": {"url": url, "detail": detail}}
        case InputFile():
            fields = msgspec.structs.asdict(part)
            return {"type": "file", "file": {name: it for name, it in fields.items() if it}}
        case InputAudio(input_audio=audio):
            return {"type": "input_audio", "input_audio": audio}
        case InputVideo(video_url=url):
            return {"type": "video_url", "video_url": {"url": url}}
        case Refusal(refusal=refusal):
            return {"type": "refusal", "refusal": refusal}
    return {"type": "text", "text": part.text}
