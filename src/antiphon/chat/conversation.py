"""``AsyncConversation``: a conversation with a model, stored turn by turn.

    chat = AsyncConversation(model="smollm2", instructions="You are a helpful assistant.")
    print((await chat.send("My name is Alice.")).text)
    async for delta in chat.stream("What's my name?"):
        print(delta, end="", flush=True)
    later = await AsyncConversation.resume(chat.response_id)    # another process, days later

Every turn is stored before it is answered. Settings come from the same file and environment
as the command line's, so both use the same store.
"""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Unpack, overload

import msgspec

from antiphon.chat.message_import import import_messages
from antiphon.chat.options import (
    ChatOptions,
    ConversationOptions,
    SendOptions,
    check_limit,
    check_option_names,
    check_response_id,
    check_string,
    resolve_settings,
)
from antiphon.chat.reply import (
    ConversationUsage,
    Reply,
    build_reply,
    conversation_usage,
    is_summary,
)
from antiphon.chat.stream import AsyncStream
from antiphon.chat.structured_output import OutputSchema
from antiphon.chat.turn_execution import (
    TurnExecution,
    apply_decisions,
    check_tools,
    earlier_call_outputs,
    replace_user_text,
    user_message,
)
from antiphon.core.context_policies import Summarize
from antiphon.core.items import FunctionCall, Item, open_calls
from antiphon.core.turns import DEFAULT_TENANT, Response, TurnRequest
from antiphon.errors import InvalidRequestError, NotFoundError
from antiphon.settings import Settings
from antiphon.tools.function_tool import Tool
from antiphon.transfer.messages_export import as_json, as_markdown
from antiphon.turn.chat_protocols import ChatRecord
from antiphon.turn.chats import ChatService
from antiphon.turn.running_turns import OnStart, RunningTurn
from antiphon.turn.search_protocols import SearchHit
from antiphon.turn.service import TurnService

if TYPE_CHECKING:
    from typing_extensions import TypeForm

    from antiphon.bootstrap import Engine

T = TypeVar("T")


class AsyncConversation:
    """A conversation with a model, stored turn by turn.

    ``model`` None is the settings' default; ``ChatOptions`` lists the other arguments.

    Methods raise ``AntiphonError``; a failed turn leaves the conversation unchanged, so that
    sending again repeats nothing. Send one turn at a time: two at once continue from the
    same response, as two branches.
    """

    # No other attribute can be set: chat.temperature = 0 would look as if it had an effect.
    __slots__ = (
        *("_model", "_instructions", "_options", "_response_id", "_branched_at"),
        "__weakref__",
    )

    def __init__(self, model: str | None = None, **options: Unpack[ChatOptions]) -> None:
        self.model = model
        self.instructions = options.get("instructions")
        self._options = ConversationOptions(options)
        self._response_id: str | None = None
        #: Where ``branch`` made it; None: it did not.
        self._branched_at: str | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}(model={self.model!r}, response_id={self._response_id!r})"

    @property
    def response_id(self) -> str | None:
        """The id of the newest turn, to go on from; None before the first."""
        return self._response_id

    @property
    def model(self) -> str | None:
        """The model's name; None is the settings' default."""
        return self._model

    @model.setter
    def model(self, name: str | None) -> None:
        self._model = check_string("model", name)

    @property
    def instructions(self) -> str | None:
        """The instructions: the system message of every turn."""
        return self._instructions

    @instructions.setter
    def instructions(self, text: str | None) -> None:
        self._instructions = check_string("instructions", text)

    @classmethod
    async def resume(
        cls, response_id: str | None, *, model: str | None = None, **options: Unpack[ChatOptions]
    ) -> AsyncConversation:
        """Continue from any stored response: the newest of a conversation, or a branch.

        Model, instructions and sampling options are that response's unless given; tools and
        policies are not stored and have to be given again. Raises ``NotFoundError``, and
        ``InvalidRequestError`` for None, the ``response_id`` of a conversation without turns.
        """
        response_id = check_response_id(response_id)
        chat = cls(model, **options)
        response = await (await chat._get_service()).reader.response(DEFAULT_TENANT, response_id)
        header = response.header
        chat.model = model or header.model
        if "instructions" not in options:
            chat.instructions = header.instructions
        chat._options = ConversationOptions(options, header.options)
        chat._response_id = response.id
        return chat

    @classmethod
    async def load(
        cls,
        messages: Sequence[Mapping[str, Any]],
        *,
        model: str | None = None,
        **options: Unpack[ChatOptions],
    ) -> AsyncConversation:
        """Import a conversation from a messages array, in the chat completions dialect.

        It is stored at once, turn by turn. A leading
        system message becomes the instructions. Where the last message is a user's,
        ``regenerate()`` answers it. Raises ``InvalidRequestError`` naming the invalid message.
        """
        chat = cls(model, **options)
        loaded = import_messages(messages)
        if "instructions" not in options:
            chat.instructions = loaded.instructions
        service = await chat._get_service()
        for turn in loaded.turns:
            # Open calls before the last turn will get no output any more.
            completed = turn is loaded.turns[-1] or not open_calls((*turn.input, *turn.output))
            chat._response_id = await service.store_turn(
                chat._build_request(turn.input), turn.output, completed=completed
            )
        return chat

    @staticmethod
    async def list_chats(
        limit: int = 20, *, after: str | None = None, settings: Settings | None = None
    ) -> list[ChatRecord]:
        """The stored chats, the one with the newest turn first, whichever program made them.

        ``resume(chat.head)`` continues one. ``after`` is the ``id`` of the last chat of the page
        before. Raises ``InvalidRequestError`` for an unknown one.
        """
        engine = await _open_engine(settings)
        chats = ChatService(engine.service, engine.stores)
        return await chats.list_chats(
            DEFAULT_TENANT, check_limit(limit), after=check_string("after", after)
        )

    @staticmethod
    async def search_chats(
        query: str, limit: int = 20, *, after: str | None = None, settings: Settings | None = None
    ) -> list[SearchHit]:
        """Turns in which all words of ``query`` were said, by whomever, the best first.

        ``resume(hit.response_id)`` continues from one. ``after`` is the ``response_id`` of the last
        hit of the page before. Raises ``InvalidRequestError`` for an unknown one.
        """
        search = (await _open_engine(settings)).stores.search
        words = check_string("query", query) or ""
        after = check_string("after", after)
        return list(await search.search(DEFAULT_TENANT, words, check_limit(limit), after=after))

    @overload
    async def send(
        self, text: str | None = None, *, returns: TypeForm[T], **options: Unpack[SendOptions]
    ) -> Reply[T]: ...

    @overload
    async def send(
        self, text: str | None = None, *, returns: None = None, **options: Unpack[SendOptions]
    ) -> Reply[None]: ...

    async def send(
        self, text: str | None = None, *, returns: Any = None, **options: Unpack[SendOptions]
    ) -> Reply[Any]:
        """Send a message and wait for the whole answer.

        Structured output: with ``returns``, a type, the answer is a value of it, ``reply.parsed``:
        a Pydantic model, dataclass, TypedDict, union, ``Literal``, list of these, and so on. An
        invalid answer is sent back once for correction, then raises ``InvalidOutputError``.
        """
        return await self._prepare_execution(text, returns, options).run()

    @overload
    def stream(
        self, text: str | None = None, *, returns: TypeForm[T], **options: Unpack[SendOptions]
    ) -> AsyncStream[T]: ...

    @overload
    def stream(
        self, text: str | None = None, *, returns: None = None, **options: Unpack[SendOptions]
    ) -> AsyncStream[None]: ...

    def stream(
        self, text: str | None = None, *, returns: Any = None, **options: Unpack[SendOptions]
    ) -> AsyncStream[Any]:
        """Send a message and stream the answer.

        Iterate the stream for its text, ``events()`` for typed events, ``objects()`` for the
        partial object of an answer with ``returns``.
        """
        return AsyncStream(self._prepare_execution(text, returns, options))

    def register_tool(
        self,
        name: str,
        description: str,
        parameters: Mapping[str, Any],
        func: Callable[..., Any],
    ) -> None:
        """Let the model call ``func`` with arguments that fit ``parameters``, a JSON schema."""
        self._options.toolbox.add(Tool.from_schema(name, description, parameters, func))

    async def messages(self) -> list[dict[str, Any]]:
        """The whole conversation as a messages array: every message in full, no summaries.

        In the chat completions dialect, with the instructions first. Context policies do
        not apply: ``context()`` is what the model would see.
        """
        if self._response_id is None:
            return await self.context()
        service = await self._get_service()
        return await service.reader.messages(
            DEFAULT_TENANT, self._response_id, self.instructions or ""
        )

    async def context(self) -> list[dict[str, Any]]:
        """The messages array that the model would see next, before your next message.

        In the chat completions dialect. Context policies are applied, and summaries
        replace the turns that they cover: ``messages()`` has these in full.
        """
        return await (await self._get_service()).preview_context(self._build_request(()))

    async def items(self) -> tuple[Item, ...]:
        """All typed items, oldest first: messages, reasoning, calls, outputs, summaries.

        ``messages()`` is the same conversation in the chat completions dialect.
        """
        return tuple(item for turn in await self._chain() for item in (*turn.input, *turn.output))

    async def usage(self) -> ConversationUsage:
        """The tokens of the conversation's turns, and their cost where prices are set."""
        return conversation_usage(await self._chain(), self._options.settings.models)

    async def pending(self) -> tuple[FunctionCall, ...]:
        """The tool calls that need a decision before the conversation can go on."""
        if self._response_id is None:
            return ()
        service = await self._get_service()
        turn = await service.reader.response(DEFAULT_TENANT, self._response_id)
        # A summary does not change which calls before it are open.
        while is_summary(turn):
            before = await service.reader.previous(DEFAULT_TENANT, turn.id)
            if before is None:
                return ()
            turn = await service.reader.response(DEFAULT_TENANT, before.response_id)
        return turn.open_calls

    async def summarize(self, *, keep_turns: int = 0) -> Reply[None]:
        """Summarize the conversation now, all but its newest ``keep_turns`` turns.

        From then on ``context()`` has the summary in place of these turns; they stay in
        ``items()`` and ``messages()``. The reply's text is the summary.
        """
        policies = [one for one in self._options.context_policies if isinstance(one, Summarize)]
        policy = msgspec.structs.replace(
            policies[0] if policies else Summarize(max_messages=1), keep_turns=keep_turns
        )
        response = await (await self._get_service()).summarize(self._build_request(()), policy)
        self._response_id = response.id
        return build_reply(response)

    def reset(self, *, keep_system: bool = True) -> None:
        """Start from an empty history, with the same instructions or without; turns stay stored."""
        self._response_id = None
        if not keep_system:
            self.instructions = None

    async def delete(self) -> None:
        """Erase the conversation with all its branches, for good; it is empty then.

        Turns that run in it are stopped first. Raises ``NotFoundError`` where it is gone already.
        """
        if self._response_id is not None:
            engine = await self._get_engine()
            await ChatService(engine.service, engine.stores).delete(
                DEFAULT_TENANT, self._response_id
            )
            self._response_id = None

    async def delete_response(self, response_id: str, *, cascade: bool = False) -> None:
        """Erase one turn, for good; with ``cascade`` also all turns that continue it.

        What continues it goes on without it. Where the newest turn was erased, the conversation
        goes on from the one before the erased one. Raises ``NotFoundError``.
        """
        response_id = check_response_id(response_id)
        service = await self._get_service()
        before = await service.reader.previous(DEFAULT_TENANT, response_id)
        await service.delete(DEFAULT_TENANT, response_id, cascade=cascade)
        if self._response_id is not None:
            try:
                await service.reader.response(DEFAULT_TENANT, self._response_id)
            except NotFoundError:
                self._response_id = before.response_id if before is not None else None

    async def branch(self, at: str | None = None) -> AsyncConversation:
        """Branch: another conversation that continues from here, or from the response ``at``.

        With the same model, instructions, tools and settings. Raises ``NotFoundError``.
        """
        if at is not None:
            at = check_response_id(at, "at")
            await (await self._get_service()).reader.response(DEFAULT_TENANT, at)
        return self._fork(at or self._response_id)

    @overload
    async def regenerate(self, *, returns: TypeForm[T]) -> Reply[T]: ...

    @overload
    async def regenerate(self, *, returns: None = None) -> Reply[None]: ...

    async def regenerate(self, *, returns: Any = None) -> Reply[Any]:
        """Answer the last message again; the old answer stays as a branch.

        Outputs of approved calls are reused: those tools do not run again.
        """
        last = await self._last_response()
        if is_summary(last):
            raise InvalidRequestError(
                "The last turn is a summary: branch from the response before it.",
                code="nothing_to_regenerate",
            )
        return await self._rerun_turn(last, last.input, returns)

    @overload
    async def edit(self, response_id: str, new_text: str, *, returns: TypeForm[T]) -> Reply[T]: ...

    @overload
    async def edit(
        self, response_id: str, new_text: str, *, returns: None = None
    ) -> Reply[None]: ...

    async def edit(self, response_id: str, new_text: str, *, returns: Any = None) -> Reply[Any]:
        """Replace the message of an earlier turn, and continue from there as a new branch.

        ``response_id`` is the turn's. Images of its message stay. Raises ``NotFoundError``.
        """
        response_id = check_response_id(response_id)
        turn = await (await self._get_service()).reader.response(DEFAULT_TENANT, response_id)
        return await self._rerun_turn(turn, replace_user_text(turn.input, new_text), returns)

    async def export(self, form: Literal["json", "markdown"] = "json") -> str:
        """Export the conversation as text: its messages array in JSON, or a page in Markdown."""
        match form:
            case "json":
                return as_json(await self.messages())
            case "markdown":
                return as_markdown(await self.messages())
        raise InvalidRequestError(f"The form is json or markdown, not {form!r}.", param="form")

    async def _start_turn(self, request: TurnRequest, on_start: OnStart) -> RunningTurn:
        service, tools = await self._get_service(), self._options.toolbox
        # Also without tools: a model may call one that does not exist, and needs an error output.
        return await service.start(request, tools, on_start=on_start)

    def _set_response_id(self, response_id: str) -> None:
        self._response_id = response_id

    def _keep_partial(self, response_id: str, started_at: str | None) -> None:
        # A stream that was left open and is closed late must not undo what was said since.
        if self._response_id == started_at:
            self._response_id = response_id

    def _execution(
        self,
        build_request: Callable[[], Awaitable[TurnRequest]],
        schema: OutputSchema[Any] | None,
    ) -> TurnExecution:
        return TurnExecution(
            self._start_turn, self._set_response_id, self._keep_partial, build_request, schema
        )

    async def _get_engine(self) -> Engine:
        return await _open_engine(self._options.settings)

    async def _get_service(self) -> TurnService:
        return (await self._get_engine()).service

    def _prepare_execution(
        self, text: str | None, returns: Any, options: SendOptions
    ) -> TurnExecution:
        check_option_names(options, SendOptions)
        schema = None if returns is None else OutputSchema(returns)

        async def request() -> TurnRequest:
            decisions = options.get("decisions")
            call_decisions = apply_decisions(
                await self.pending(), {} if decisions is None else decisions
            )
            check_tools(call_decisions.approved_calls, self._options.toolbox.specs)
            message = await user_message(text, options, required=not decisions)
            turn_request = self._build_request((*call_decisions.declined_outputs, *message), schema)
            # In a branch that was made on purpose, calls are decided once more.
            is_first = bool(decisions) and self._branched_at != self._response_id
            return msgspec.structs.replace(
                turn_request,
                approved_calls=call_decisions.approved_calls,
                on_decided="retry" if is_first else None,
            )

        return self._execution(request, schema)

    def _build_request(
        self, items: tuple[Item, ...], schema: OutputSchema[Any] | None = None
    ) -> TurnRequest:
        options = self._options
        return TurnRequest(
            input=items,
            model=self.model,
            previous_response_id=self._response_id,
            instructions=self.instructions,
            options=options.turn_options(schema.text_format if schema else None),
            context_policies=options.context_policies,
            max_tool_rounds=options.max_tool_rounds,
            timeout=options.timeout,
        )

    async def _rerun_turn(
        self, turn: Response, input_items: tuple[Item, ...], returns: Any
    ) -> Reply[Any]:
        """Run a turn again beside itself, in the same chat, with the same or another input."""
        schema = None if returns is None else OutputSchema(returns)
        items = (*earlier_call_outputs(turn), *input_items)

        async def request() -> TurnRequest:
            return msgspec.structs.replace(
                self._build_request(items, schema), previous_response_id=None, sibling_of=turn.id
            )

        return await self._execution(request, schema).run()

    async def _last_response(self) -> Response:
        if self._response_id is None:
            raise InvalidRequestError("Nothing has been said yet.", code="empty_conversation")
        return await (await self._get_service()).reader.response(DEFAULT_TENANT, self._response_id)

    async def _chain(self) -> list[Response]:
        if self._response_id is None:
            return []
        return await (await self._get_service()).reader.chain(DEFAULT_TENANT, self._response_id)

    def _fork(self, response_id: str | None) -> AsyncConversation:
        other = copy.copy(self)
        other._options = self._options.copy()
        other._response_id = other._branched_at = response_id
        return other


async def _open_engine(settings: Settings | None) -> Engine:
    """The running loop's engine for these settings, else for those of file and environment."""
    from antiphon.bootstrap import shared_engine  # loaded on first use

    return await shared_engine(resolve_settings(settings))
