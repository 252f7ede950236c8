"""Conversations as resources, and the prompt that goes on with one.

Conversations as people and models read them. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from antiphon.api.mcp.tool_results import moment
from antiphon.core.ids import conversation_key
from antiphon.core.items import (
    Compaction,
    FunctionCall,
    FunctionCallOutput,
    InputFile,
    InputImage,
    InputVideo,
    Item,
    Message,
    Part,
    decode_item,
    text_and_refusals_of,
)
from antiphon.core.turns import Response
from antiphon.errors import NotFoundError
from antiphon.turn.conversations import ConversationService
from antiphon.turn.protocols import RecentThread
from antiphon.turn.service import TurnService


def markdown(chain: Sequence[Response]) -> str:
    """A chain, oldest turn first.

    What was said is quoted: nothing in it can pass for a turn of its own.
    """
    return "\n\n".join(["# Conversation", *(part for turn in chain for part in _turn(turn))]) + "\n"


def opening(recent: RecentThread) -> str:
    """How a thread begins, in one short line."""
    item = decode_item(recent.first_item) if recent.first_item is not None else None
    return short(text_and_refusals_of(item.content)) if isinstance(item, Message) else ""


def short(text: str, longest: int = 80) -> str:
    """The text in one line, cut."""
    line = " ".join(text.split())
    return line if len(line) <= longest else line[: longest - 3] + "..."


def _turn(turn: Response) -> Iterable[str]:
    about = f"`{turn.id}`, {moment(turn.created_at)}, {turn.header.model}"
    if turn.status != "completed":
        about += f", {turn.status}"
    yield f"## {about}"
    for item in (*turn.input, *turn.output):
        for who, said in _lines(item):
            yield f"**{who}**\n\n{_quoted(said)}"


def _lines(item: Item) -> Iterable[tuple[str, str]]:
    match item:
        case Message(role=role, content=content):
            yield role, _words(content)
        case FunctionCall(name=name, arguments=arguments):
            yield "call", f"{name}({arguments})"
        case FunctionCallOutput(output=output):
            yield "output", _words(output)
        case Compaction(summary=summary):
            yield "summary of what was before", summary


def _words(content: str | tuple[Part, ...]) -> str:
    if isinstance(content, str):
        return content
    return "\n\n".join(filter(None, (_part(part) for part in content)))


def _part(part: Part) -> str:
    match part:
        case InputImage():
            return "[image]"
        case InputFile(filename=name):
            return f"[file {name}]" if name else "[file]"
        case InputVideo():
            return "[video]"
    return text_and_refusals_of((part,))


def _quoted(text: str) -> str:
    return "\n".join(f"> {line}".rstrip() for line in text.splitlines()) or ">"


_BASE: Final = "antiphon://conversations/"
_JSON: Final = ".json"
TEMPLATE: Final = f"{_BASE}{{id}}"
JSON_TEMPLATE: Final = f"{TEMPLATE}{_JSON}"
#: How many conversations are listed as resources, and how many a prompt offers.
_LISTED: Final = 100
_OFFERED: Final = 10


class Thread(msgspec.Struct, frozen=True):
    """A conversation in a list. ``id`` is that of its newest response."""

    uri: str
    id: str
    title: str
    about: str


class Document(msgspec.Struct, frozen=True):
    """A conversation as text. ``media`` is its media type."""

    media: str
    text: str


class Threads:
    """The latest conversations of a tenant."""

    def __init__(self, service: TurnService, conversations: ConversationService | None) -> None:
        self._service = service
        self._conversations = conversations

    async def latest(self, tenant: str, limit: int = _LISTED) -> list[Thread]:
        """Newest first."""
        return [
            Thread(
                f"{_BASE}{recent.response_id}",
                recent.response_id,
                opening(recent) or "(no words)",
                f"{recent.turns} turns, the latest at {moment(recent.created_at)}"
                f" by {recent.model}",
            )
            for recent in await self._service.recent_threads(tenant, limit)
        ]

    async def read(self, tenant: str, uri: str) -> Document:
        """A conversation up to one of its responses, or a named one. Raises ``NotFoundError``."""
        name = uri.removeprefix(_BASE)
        if name == uri:
            raise NotFoundError(f"There is no resource '{uri}': they begin with {_BASE}")
        chain = await self._chain(tenant, name.removesuffix(_JSON))
        if not name.endswith(_JSON):
            return Document("text/markdown", markdown(chain))
        messages = await self._service.messages(tenant, chain[-1].id) if chain else []
        return Document("application/json", msgspec.json.encode(messages).decode())

    async def resume(self, tenant: str, about: str) -> str:
        """What to tell a model that shall go on with a conversation."""
        picked = await self._pick(tenant, about)
        threads = await self.latest(tenant, _OFFERED)
        if picked is None and not threads:
            return (
                "There are no conversations yet. Ask me what to talk about, and begin one with"
                " the tool stateful_chat, without response_id."
            )
        lines = [f"- `{one.id}`: {one.title} ({one.about})" for one in threads]
        parts = ["These are our latest conversations:", "\n".join(lines)]
        if picked is None and about:
            parts.append(f'None of them holds "{short(about)}". Ask me which one to go on with.')
        else:
            chosen = picked or threads[0].id
            parts += [
                f"Go on with `{chosen}`. This was said last in it:",
                markdown((await self._service.chain(tenant, chosen))[-1:]),
                "Tell me in one sentence where we were, and ask me what I want to say next.",
            ]
        parts.append(
            "What I say next goes to the tool stateful_chat, together with the response_id of the"
            " conversation that was chosen; and from then on always with the newest response_id."
        )
        return "\n\n".join(parts)

    async def _pick(self, tenant: str, about: str) -> str | None:
        if not about or self._conversations is None:
            return None
        hits = await self._conversations.search(tenant, about, 1)
        return hits[0].response_id if hits else None

    async def _chain(self, tenant: str, name: str) -> list[Response]:
        if conversation_key(name) is None or self._conversations is None:
            return await self._service.chain(tenant, name)
        return await self._conversations.turns(tenant, name)
