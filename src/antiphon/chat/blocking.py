"""``Conversation``: the blocking twin of ``AsyncConversation``.

chat = Conversation(model="smollm2", instructions="You are a helpful assistant.")
print(chat.send("My name is Alice.").text)
for delta in chat.stream("What's my name?"):
    print(delta, end="", flush=True)
later = Conversation.resume(chat.response_id)      # another process, days later
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Unpack, overload

from antiphon.chat.conversation import AsyncConversation
from antiphon.chat.options import ChatOptions, SendOptions
from antiphon.chat.reply import ConversationUsage, Reply
from antiphon.chat.stream import LoopPortal, Stream
from antiphon.core.items import FunctionCall, Item
from antiphon.settings import Settings
from antiphon.turn.chat_protocols import ChatRecord
from antiphon.turn.search_protocols import SearchHit

if TYPE_CHECKING:
    from typing_extensions import TypeForm

T = TypeVar("T")


async def _close_shared() -> None:
    from antiphon.bootstrap import close_shared_engines  # loaded on first use

    await close_shared_engines()


portal = LoopPortal(_close_shared)


def _run_blocking(work: Coroutine[Any, Any, T]) -> T:
    async def wait() -> T:
        return await work

    try:
        return portal.run(wait)
    finally:
        # Without a loop to run on, Python would warn that it was never awaited.
        work.close()


class Conversation:
    """The blocking twin of ``AsyncConversation``, callable from any thread.

    The same arguments, methods and errors, without ``await``. The event loop runs on a
    thread of antiphon's own, so a running loop (a notebook's) does not matter.
    """

    __slots__ = ("__weakref__", "_async_conversation")

    def __init__(self, model: str | None = None, **options: Unpack[ChatOptions]) -> None:
        self._async_conversation = AsyncConversation(model, **options)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(model={self.model!r}, response_id={self.response_id!r})"

    @property
    def response_id(self) -> str | None:
        """The id of the newest turn, to go on from; None before the first."""
        return self._async_conversation.response_id

    @property
    def model(self) -> str | None:
        """The model's name; None is the settings' default."""
        return self._async_conversation.model

    @model.setter
    def model(self, name: str | None) -> None:
        self._async_conversation.model = name

    @property
    def instructions(self) -> str | None:
        """The instructions: the system message of every turn."""
        return self._async_conversation.instructions

    @instructions.setter
    def instructions(self, text: str | None) -> None:
        self._async_conversation.instructions = text

    @classmethod
    def resume(
        cls, response_id: str | None, *, model: str | None = None, **options: Unpack[ChatOptions]
    ) -> Conversation:
        """Continue from any stored response: the newest of a conversation, or a branch."""
        return cls._wrap(
            _run_blocking(AsyncConversation.resume(response_id, model=model, **options))
        )

    @classmethod
    def load(
        cls,
        messages: Sequence[Mapping[str, Any]],
        *,
        model: str | None = None,
        **options: Unpack[ChatOptions],
    ) -> Conversation:
        """Import a conversation from a messages array, in the chat completions dialect."""
        return cls._wrap(_run_blocking(AsyncConversation.load(messages, model=model, **options)))

    @staticmethod
    def list_chats(
        limit: int = 20, *, after: str | None = None, settings: Settings | None = None
    ) -> list[ChatRecord]:
        """The stored chats, the one with the newest turn first, whichever program made them."""
        return _run_blocking(AsyncConversation.list_chats(limit, after=after, settings=settings))

    @staticmethod
    def search_chats(
        query: str, limit: int = 20, *, after: str | None = None, settings: Settings | None = None
    ) -> list[SearchHit]:
        """Turns in which all words of ``query`` were said, by whomever, the best first."""
        return _run_blocking(
            AsyncConversation.search_chats(query, limit, after=after, settings=settings)
        )

    @overload
    def send(
        self, text: str | None = None, *, returns: TypeForm[T], **options: Unpack[SendOptions]
    ) -> Reply[T]: ...

    @overload
    def send(
        self, text: str | None = None, *, returns: None = None, **options: Unpack[SendOptions]
    ) -> Reply[None]: ...

    def send(
        self, text: str | None = None, *, returns: Any = None, **options: Unpack[SendOptions]
    ) -> Reply[Any]:
        """Send a message and wait for the whole answer; with ``returns``, a value of that type."""
        return _run_blocking(self._async_conversation.send(text, returns=returns, **options))

    @overload
    def stream(
        self, text: str | None = None, *, returns: TypeForm[T], **options: Unpack[SendOptions]
    ) -> Stream[T]: ...

    @overload
    def stream(
        self, text: str | None = None, *, returns: None = None, **options: Unpack[SendOptions]
    ) -> Stream[None]: ...

    def stream(
        self, text: str | None = None, *, returns: Any = None, **options: Unpack[SendOptions]
    ) -> Stream[Any]:
        """Send a message and stream the answer; closing early cancels it."""
        return Stream(self._async_conversation.stream(text, returns=returns, **options), portal)

    def register_tool(
        self,
        name: str,
        description: str,
        parameters: Mapping[str, Any],
        func: Callable[..., Any],
    ) -> None:
        """Let the model call ``func`` with arguments that fit ``parameters``, a JSON schema."""
        self._async_conversation.register_tool(name, description, parameters, func)

    def messages(self) -> list[dict[str, Any]]:
        """The whole conversation as a messages array: every message in full, no summaries.

        ``context()`` is what the model would see.
        """
        return _run_blocking(self._async_conversation.messages())

    def context(self) -> list[dict[str, Any]]:
        """The messages array that the model would see next, before your next message.

        Context policies are applied, and summaries replace the turns that they cover.
        """
        return _run_blocking(self._async_conversation.context())

    def items(self) -> tuple[Item, ...]:
        """All typed items, oldest first: messages, reasoning, calls, outputs, summaries."""
        return _run_blocking(self._async_conversation.items())

    def usage(self) -> ConversationUsage:
        """The tokens of the conversation's turns, and their cost where prices are set."""
        return _run_blocking(self._async_conversation.usage())

    def pending(self) -> tuple[FunctionCall, ...]:
        """The tool calls that need a decision before the conversation can go on."""
        return _run_blocking(self._async_conversation.pending())

    def summarize(self, *, keep_turns: int = 0) -> Reply[None]:
        """Summarize the conversation now, all but its newest ``keep_turns`` turns."""
        return _run_blocking(self._async_conversation.summarize(keep_turns=keep_turns))

    def reset(self, *, keep_system: bool = True) -> None:
        """Start from an empty history, with the same instructions or without; turns stay stored."""
        self._async_conversation.reset(keep_system=keep_system)

    def delete(self) -> None:
        """Erase the conversation with all its branches, for good; it is empty then."""
        _run_blocking(self._async_conversation.delete())

    def delete_response(self, response_id: str, *, cascade: bool = False) -> None:
        """Erase one turn, for good; with ``cascade`` also all turns that continue it."""
        _run_blocking(self._async_conversation.delete_response(response_id, cascade=cascade))

    def branch(self, at: str | None = None) -> Conversation:
        """Branch: another conversation that continues from here, or from the response ``at``."""
        return self._wrap(_run_blocking(self._async_conversation.branch(at)))

    @overload
    def regenerate(self, *, returns: TypeForm[T]) -> Reply[T]: ...

    @overload
    def regenerate(self, *, returns: None = None) -> Reply[None]: ...

    def regenerate(self, *, returns: Any = None) -> Reply[Any]:
        """Answer the last message again; the old answer stays as a branch."""
        return _run_blocking(self._async_conversation.regenerate(returns=returns))

    @overload
    def edit(self, response_id: str, new_text: str, *, returns: TypeForm[T]) -> Reply[T]: ...

    @overload
    def edit(self, response_id: str, new_text: str, *, returns: None = None) -> Reply[None]: ...

    def edit(self, response_id: str, new_text: str, *, returns: Any = None) -> Reply[Any]:
        """Replace the message of an earlier turn, and continue from there as a new branch."""
        return _run_blocking(self._async_conversation.edit(response_id, new_text, returns=returns))

    def export(self, form: Literal["json", "markdown"] = "json") -> str:
        """Export the conversation as text: its messages array in JSON, or a page in Markdown."""
        return _run_blocking(self._async_conversation.export(form))

    @classmethod
    def _wrap(cls, async_conversation: AsyncConversation) -> Conversation:
        chat = cls.__new__(cls)
        chat._async_conversation = async_conversation
        return chat
