"""MCP tools: definitions and handlers of all tools."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from antiphon.api.mcp import tool_arguments as take
from antiphon.api.mcp import tool_results as give
from antiphon.api.mcp import tool_schemas as about
from antiphon.api.mcp.request_context import McpCaller
from antiphon.api.mcp.turn_execution import TurnExecutor
from antiphon.core.ids import conversation_key
from antiphon.core.items import InputText, Message
from antiphon.core.turns import Options, TurnRequest
from antiphon.errors import InvalidRequestError
from antiphon.turn.conversations import ConversationService
from antiphon.turn.service import TurnService


class ToolDefinition(msgspec.Struct, frozen=True):
    """One tool: its name, types and handler, and its annotations for clients."""

    name: str
    title: str
    description: str
    arguments_type: type[msgspec.Struct]
    result_type: type[give.ToolResult]
    run: Callable[[McpCaller, Any], Awaitable[give.ToolResult]]
    read_only: bool = False
    destructive: bool = False
    open_world: bool = False


class ToolHandlers:
    """What the tools do, over one service."""

    def __init__(self, service: TurnService, conversations: ConversationService | None) -> None:
        self._service = service
        self._conversations = conversations
        self._executor = TurnExecutor(service)

    async def stateful_chat(
        self, caller: McpCaller, arguments: take.StatefulChatArguments
    ) -> give.ToolResult:
        """A turn that is stored, and goes on from another where one is named."""
        take.check_ranges(arguments.temperature, arguments.max_tokens)
        # Calling models fill in what they leave out with nothing.
        continued = arguments.response_id or None
        on_conversation = continued is not None and conversation_key(continued) is not None
        request = TurnRequest(
            (Message("user", arguments.prompt),),
            model=arguments.model,
            previous_response_id=None if on_conversation else continued,
            # Other interfaces name conversations, and search shows their names.
            conversation=continued if on_conversation else None,
            options=Options(
                temperature=arguments.temperature,
                max_output_tokens=arguments.max_tokens,
                reasoning_summary="auto" if arguments.include_reasoning else None,
                # Nobody who has no history at hand could shorten it.
                truncation="auto",
            ),
        )
        warnings: tuple[str, ...] = ()
        if arguments.system_prompt and continued is None:
            # As a message it holds for the whole conversation.
            system = Message("system", arguments.system_prompt)
            request = msgspec.structs.replace(request, input=(system, *request.input))
        elif arguments.system_prompt:
            warnings = (about.SYSTEM_PROMPT_IGNORED,)
        response, more = await self._executor.execute(caller, request)
        answer = give.stateful_chat_result(response, reasoning=arguments.include_reasoning)
        return _with_warnings(answer, *warnings, *more)

    async def chat(self, caller: McpCaller, arguments: take.ChatArguments) -> give.ToolResult:
        """A turn that nothing is kept of."""
        take.check_ranges(arguments.temperature, arguments.max_tokens)
        options = Options(temperature=arguments.temperature, max_output_tokens=arguments.max_tokens)
        return await self._unstored_chat(caller, arguments, options)

    async def chat_with_reasoning(
        self, caller: McpCaller, arguments: take.ReasoningChatArguments
    ) -> give.ToolResult:
        """``chat`` with what the model thought."""
        take.check_ranges(None, arguments.max_tokens)
        options = Options(
            max_output_tokens=arguments.max_tokens,
            reasoning_effort=arguments.reasoning_effort,
            reasoning_summary="auto",
        )
        return await self._unstored_chat(caller, arguments, options, reasoning=True)

    async def chat_with_vision(
        self, caller: McpCaller, arguments: take.VisionChatArguments
    ) -> give.ToolResult:
        """``chat`` about images."""
        take.check_ranges(None, arguments.max_tokens)
        paths = (
            arguments.image_paths if isinstance(arguments, take.LocalVisionChatArguments) else None
        )
        images = await take.load_images(
            arguments.image_urls or (), paths or (), arguments.detail, caller.folders
        )
        message = Message("user", (InputText(arguments.prompt), *images))
        options = Options(max_output_tokens=arguments.max_tokens)
        return await self._unstored_chat(caller, arguments, options, message=message)

    async def retrieve(
        self, caller: McpCaller, arguments: take.RetrieveArguments
    ) -> give.ToolResult:
        """One stored turn."""
        return give.retrieve_result(
            await self._service.reader.response(caller.tenant, arguments.response_id)
        )

    async def delete(self, caller: McpCaller, arguments: take.DeleteArguments) -> give.ToolResult:
        """Erase one stored turn."""
        await self._service.delete(caller.tenant, arguments.response_id)
        return give.DeleteResult(response_id=arguments.response_id, deleted=True)

    async def list_models(
        self, caller: McpCaller, arguments: take.ListModelsArguments
    ) -> give.ToolResult:
        """All models that have a name here."""
        models = self._service.models
        try:
            default = models.get(None)[0]
        except InvalidRequestError:
            default = None
        listed = tuple(
            give.ModelListEntry(name, info.owned_by, info.images, info.context_window)
            for name, info in ((name, model.info) for name, model in models.items())
        )
        return give.ModelListResult(default=default, models=listed)

    async def search(self, caller: McpCaller, arguments: take.SearchArguments) -> give.ToolResult:
        """Stored turns by their words."""
        if self._conversations is None:
            raise InvalidRequestError("This server keeps nothing that could be searched.")
        index = self._conversations.index
        hits = await index.search(caller.tenant, arguments.query, arguments.limit)
        result = give.search_result(hits)
        if unsearched := await index.count_unsearched(caller.tenant):
            warning = f"{unsearched} turns are still to be indexed: search again in a moment."
            return _with_warnings(result, warning)
        return result

    async def _unstored_chat(
        self,
        caller: McpCaller,
        arguments: take.ChatArguments | take.ReasoningChatArguments | take.VisionChatArguments,
        options: Options,
        *,
        message: Message | None = None,
        reasoning: bool = False,
    ) -> give.ToolResult:
        request = TurnRequest(
            (message or Message("user", arguments.prompt),),
            model=arguments.model,
            instructions=arguments.system_prompt,
            options=options,
            store=False,
        )
        response, warnings = await self._executor.execute(caller, request)
        return _with_warnings(give.chat_result(response, reasoning=reasoning), *warnings)


def tool_definitions(tools: ToolHandlers, *, local: bool) -> dict[str, ToolDefinition]:
    """All tools by their names. ``local``: for callers on this machine, who have files here."""
    return {
        tool.name: tool for tool in (*_stateful_tools(tools), *_stateless_tools(tools, local=local))
    }


def _stateful_tools(tools: ToolHandlers) -> tuple[ToolDefinition, ...]:
    return (
        ToolDefinition(
            "stateful_chat",
            "Chat with memory",
            about.STATEFUL_CHAT,
            take.StatefulChatArguments,
            give.StatefulChatResult,
            tools.stateful_chat,
            open_world=True,
        ),
        ToolDefinition(
            "retrieve_stateful_response",
            "Retrieve an answer",
            about.RETRIEVE,
            take.RetrieveArguments,
            give.RetrieveResult,
            tools.retrieve,
            read_only=True,
        ),
        ToolDefinition(
            "delete_stateful_response",
            "Erase an answer",
            about.DELETE,
            take.DeleteArguments,
            give.DeleteResult,
            tools.delete,
            destructive=True,
        ),
        ToolDefinition(
            "search_conversations",
            "Search conversations",
            about.SEARCH,
            take.SearchArguments,
            give.SearchResult,
            tools.search,
            read_only=True,
        ),
    )


def _stateless_tools(tools: ToolHandlers, *, local: bool) -> tuple[ToolDefinition, ...]:
    vision = take.LocalVisionChatArguments if local else take.VisionChatArguments
    return (
        ToolDefinition(
            "chat",
            "Chat",
            about.CHAT,
            take.ChatArguments,
            give.ChatResult,
            tools.chat,
            open_world=True,
        ),
        ToolDefinition(
            "chat_with_reasoning",
            "Chat with reasoning",
            about.CHAT_WITH_REASONING,
            take.ReasoningChatArguments,
            give.ChatResult,
            tools.chat_with_reasoning,
            open_world=True,
        ),
        ToolDefinition(
            "chat_with_vision",
            "Chat about images",
            about.CHAT_WITH_VISION,
            vision,
            give.ChatResult,
            tools.chat_with_vision,
            open_world=True,
        ),
        ToolDefinition(
            "list_models",
            "List models",
            about.LIST_MODELS,
            take.ListModelsArguments,
            give.ModelListResult,
            tools.list_models,
            read_only=True,
        ),
    )


def _with_warnings(result: give.ToolResult, *warnings: str) -> give.ToolResult:
    return msgspec.structs.replace(result, warnings=(*result.warnings, *warnings))
