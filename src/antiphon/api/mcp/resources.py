"""MCP resources: conversations as Markdown or JSON, and the prompt that continues one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from antiphon.api.mcp.tool_results import format_time
from antiphon.core.ids import conversation_key
from antiphon.core.items import item_lines, shorten
from antiphon.core.turns import Response
from antiphon.errors import NotFoundError
from antiphon.turn.chat_protocols import ChatStore
from antiphon.turn.conversations import ConversationService
from antiphon.turn.service import TurnService


def render_markdown(chain: Sequence[Response]) -> str:
    """A chain, oldest turn first.

    What was said is quoted: nothing in it can pass for a turn of its own.
    """
    return (
        "\n\n".join(["# Conversation", *(part for turn in chain for part in _turn_markdown(turn))])
        + "\n"
    )


def _turn_markdown(turn: Response) -> Iterable[str]:
    about = f"`{turn.id}`, {format_time(turn.created_at)}, {turn.header.model}"
    if turn.status != "completed":
        about += f", {turn.status}"
    yield f"## {about}"
    for item in (*turn.input, *turn.output):
        for speaker, text in item_lines(item):
            yield f"**{speaker}**\n\n{_quote(text)}"


def _quote(text: str) -> str:
    return "\n".join(f"> {line}".rstrip() for line in text.splitlines()) or ">"


_BASE_URI: Final = "antiphon://conversations/"
_JSON_SUFFIX: Final = ".json"
URI_TEMPLATE: Final = f"{_BASE_URI}{{id}}"
JSON_URI_TEMPLATE: Final = f"{URI_TEMPLATE}{_JSON_SUFFIX}"
#: How many conversations are listed as resources, and how many a prompt offers.
_MAX_LISTED: Final = 100
_MAX_OFFERED: Final = 10


class ConversationResource(msgspec.Struct, frozen=True):
    """A conversation in a list. ``id`` is that of its newest response."""

    uri: str
    id: str
    title: str
    description: str


class ResourceDocument(msgspec.Struct, frozen=True):
    """A conversation as text of a media type."""

    media_type: str
    text: str


class ConversationResources:
    """The latest conversations of a tenant: one of each chat, which ends at its head."""

    def __init__(
        self,
        service: TurnService,
        conversations: ConversationService | None,
        chats: ChatStore | None,
    ) -> None:
        self._service = service
        self._conversations = conversations
        self._chats = chats

    async def list_latest(
        self, tenant: str, limit: int = _MAX_LISTED
    ) -> list[ConversationResource]:
        """Newest first."""
        chats = await self._chats.list_chats(tenant, limit) if self._chats is not None else []
        return [
            ConversationResource(
                f"{_BASE_URI}{chat.head}",
                chat.head,
                chat.title or "(no words)",
                f"{chat.turns} turns, the latest at {format_time(chat.updated_at)} by {chat.model}",
            )
            for chat in chats
        ]

    async def read(self, tenant: str, uri: str) -> ResourceDocument:
        """A conversation up to one of its responses, or a named one. Raises ``NotFoundError``."""
        name = uri.removeprefix(_BASE_URI)
        if name == uri:
            raise NotFoundError(f"There is no resource '{uri}': they begin with {_BASE_URI}")
        chain = await self._chain(tenant, name.removesuffix(_JSON_SUFFIX))
        if not name.endswith(_JSON_SUFFIX):
            return ResourceDocument("text/markdown", render_markdown(chain))
        messages = await self._service.reader.messages(tenant, chain[-1].id) if chain else []
        return ResourceDocument("application/json", msgspec.json.encode(messages).decode())

    async def continue_prompt(self, tenant: str, search_words: str) -> str:
        """What to tell a model that shall go on with a conversation."""
        found_id = await self._find_conversation(tenant, search_words)
        threads = await self.list_latest(tenant, _MAX_OFFERED)
        if found_id is None and not threads:
            return (
                "There are no conversations yet. Ask me what to talk about, and begin one with"
                " the tool stateful_chat, without response_id."
            )
        lines = [f"- `{one.id}`: {one.title} ({one.description})" for one in threads]
        parts = ["These are our latest conversations:", "\n".join(lines)]
        if found_id is None and search_words:
            parts.append(
                f'None of them holds "{shorten(search_words)}". Ask me which one to go on with.'
            )
        else:
            chosen = found_id or threads[0].id
            parts += [
                f"Go on with `{chosen}`. This was said last in it:",
                render_markdown([await self._service.reader.response(tenant, chosen)]),
                "Tell me in one sentence where we were, and ask me what I want to say next.",
            ]
        parts.append(
            "What I say next goes to the tool stateful_chat, together with the response_id of the"
            " conversation that was chosen; and from then on always with the newest response_id."
        )
        return "\n\n".join(parts)

    async def _find_conversation(self, tenant: str, search_words: str) -> str | None:
        if not search_words or self._conversations is None:
            return None
        hits = await self._conversations.index.search(tenant, search_words, 1)
        return hits[0].response_id if hits else None

    async def _chain(self, tenant: str, name: str) -> list[Response]:
        if conversation_key(name) is None or self._conversations is None:
            return await self._service.reader.chain(tenant, name)
        return await self._conversations.turns(tenant, name)
