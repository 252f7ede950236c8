"""The tools: what each is called, takes, does and gives back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from antiphon.api.mcp import tool_arguments as take
from antiphon.api.mcp import tool_results as give
from antiphon.api.mcp import tool_schemas as about
from antiphon.api.mcp.caller import Caller
from antiphon.api.mcp.image_arguments import pictures
from antiphon.api.mcp.turn_execution import Asking
from antiphon.core.ids import conversation_key
from antiphon.core.items import InputText, Message
from antiphon.core.turns import Options, TurnRequest
from antiphon.errors import InvalidRequestError
from antiphon.turn.conversations import ConversationService
from antiphon.turn.service import TurnService


class Tool(msgspec.Struct, frozen=True):
    """``reads`` only, or ``erases``; ``asks`` a model, which may be anywhere."""

    name: str
    title: str
    description: str
    takes: type[msgspec.Struct]
    gives: type[give.Result]
    run: Callable[[Caller, Any], Awaitable[give.Result]]
    reads: bool = False
    erases: bool = False
    asks: bool = False


class Tools:
    """What the tools do, over one service."""

    def __init__(self, service: TurnService, conversations: ConversationService | None) -> None:
        self._service = service
        self._conversations = conversations
        self._asking = Asking(service)

    async def stateful_chat(self, caller: Caller, asked: take.StatefulChat) -> give.Result:
        """A turn that is stored, and goes on from another where one is named."""
        take.check_ranges(asked.temperature, asked.max_tokens)
        # Calling models fill in what they leave out with nothing.
        continued = asked.response_id or None
        on_conversation = continued is not None and conversation_key(continued) is not None
        request = TurnRequest(
            (Message("user", asked.prompt),),
            model=asked.model,
            previous_response_id=None if on_conversation else continued,
            # Other interfaces name conversations, and search shows their names.
            conversation=continued if on_conversation else None,
            options=Options(
                temperature=asked.temperature,
                max_output_tokens=asked.max_tokens,
                reasoning_summary="auto" if asked.include_reasoning else None,
                # Nobody who has no history at hand could shorten it.
                truncation="auto",
            ),
        )
        warnings: tuple[str, ...] = ()
        if asked.system_prompt and continued is None:
            # As a message it holds for the whole conversation.
            system = Message("system", asked.system_prompt)
            request = msgspec.structs.replace(request, input=(system, *request.input))
        elif asked.system_prompt:
            warnings = (about.SYSTEM_PROMPT_IGNORED,)
        response, more = await self._asking.ask(caller, request)
        answer = give.stateful_answer_of(response, reasoning=asked.include_reasoning)
        return _warned(answer, *warnings, *more)

    async def chat(self, caller: Caller, asked: take.Chat) -> give.Result:
        """A turn that nothing is kept of."""
        take.check_ranges(asked.temperature, asked.max_tokens)
        options = Options(temperature=asked.temperature, max_output_tokens=asked.max_tokens)
        return await self._chat(caller, asked, options)

    async def chat_with_reasoning(
        self, caller: Caller, asked: take.ChatWithReasoning
    ) -> give.Result:
        """``chat`` with what the model thought."""
        take.check_ranges(None, asked.max_tokens)
        options = Options(
            max_output_tokens=asked.max_tokens,
            reasoning_effort=asked.reasoning_effort,
            reasoning_summary="auto",
        )
        return await self._chat(caller, asked, options, reasoning=True)

    async def chat_with_vision(self, caller: Caller, asked: take.ChatWithVision) -> give.Result:
        """``chat`` about images."""
        take.check_ranges(None, asked.max_tokens)
        paths = asked.image_paths if isinstance(asked, take.ChatWithLocalVision) else None
        images = await pictures(asked.image_urls or (), paths or (), asked.detail, caller.folders)
        said = Message("user", (InputText(asked.prompt), *images))
        options = Options(max_output_tokens=asked.max_tokens)
        return await self._chat(caller, asked, options, said=said)

    async def retrieve(self, caller: Caller, asked: take.Retrieve) -> give.Result:
        """One stored turn."""
        return give.turn_of(await self._service.response(caller.tenant, asked.response_id))

    async def delete(self, caller: Caller, asked: take.Delete) -> give.Result:
        """Erase one stored turn."""
        await self._service.delete(caller.tenant, asked.response_id)
        return give.Deleted(response_id=asked.response_id, deleted=True)

    async def list_models(self, caller: Caller, asked: take.ListModels) -> give.Result:
        """All models that have a name here."""
        models = self._service.models
        try:
            default = models.get(None)[0]
        except InvalidRequestError:
            default = None
        listed = tuple(
            give.ListedModel(name, info.owned_by, info.images, info.context_window)
            for name, info in ((name, model.info) for name, model in models.names())
        )
        return give.ModelList(default=default, models=listed)

    async def search(self, caller: Caller, asked: take.Search) -> give.Result:
        """Stored turns by their words."""
        if self._conversations is None:
            raise InvalidRequestError("This server keeps nothing that could be searched.")
        hits = await self._conversations.search(caller.tenant, asked.query, asked.limit)
        return give.found_of(hits)

    async def _chat(
        self,
        caller: Caller,
        asked: take.Chat | take.ChatWithReasoning | take.ChatWithVision,
        options: Options,
        *,
        said: Message | None = None,
        reasoning: bool = False,
    ) -> give.Result:
        request = TurnRequest(
            (said or Message("user", asked.prompt),),
            model=asked.model,
            instructions=asked.system_prompt,
            options=options,
            store=False,
        )
        response, warnings = await self._asking.ask(caller, request)
        return _warned(give.answer_of(response, reasoning=reasoning), *warnings)


def toolbox(tools: Tools, *, local: bool) -> dict[str, Tool]:
    """All tools by their names. ``local``: for callers on this machine, who have files here."""
    return {tool.name: tool for tool in (*_with_memory(tools), *_without(tools, local=local))}


def _with_memory(tools: Tools) -> tuple[Tool, ...]:
    return (
        Tool(
            "stateful_chat",
            "Chat with memory",
            about.STATEFUL_CHAT,
            take.StatefulChat,
            give.StatefulAnswer,
            tools.stateful_chat,
            asks=True,
        ),
        Tool(
            "retrieve_stateful_response",
            "Retrieve an answer",
            about.RETRIEVE,
            take.Retrieve,
            give.Turn,
            tools.retrieve,
            reads=True,
        ),
        Tool(
            "delete_stateful_response",
            "Erase an answer",
            about.DELETE,
            take.Delete,
            give.Deleted,
            tools.delete,
            erases=True,
        ),
        Tool(
            "search_conversations",
            "Search conversations",
            about.SEARCH,
            take.Search,
            give.FoundList,
            tools.search,
            reads=True,
        ),
    )


def _without(tools: Tools, *, local: bool) -> tuple[Tool, ...]:
    vision = take.ChatWithLocalVision if local else take.ChatWithVision
    return (
        Tool("chat", "Chat", about.CHAT, take.Chat, give.Answer, tools.chat, asks=True),
        Tool(
            "chat_with_reasoning",
            "Chat with reasoning",
            about.CHAT_WITH_REASONING,
            take.ChatWithReasoning,
            give.Answer,
            tools.chat_with_reasoning,
            asks=True,
        ),
        Tool(
            "chat_with_vision",
            "Chat about images",
            about.CHAT_WITH_VISION,
            vision,
            give.Answer,
            tools.chat_with_vision,
            asks=True,
        ),
        Tool(
            "list_models",
            "List models",
            about.LIST_MODELS,
            take.ListModels,
            give.ModelList,
            tools.list_models,
            reads=True,
        ),
    )


def _warned(result: give.Result, *warnings: str) -> give.Result:
    return msgspec.structs.replace(result, warnings=(*result.warnings, *warnings))
