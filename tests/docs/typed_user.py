"""A user's program that says which types it expects; for mypy to read, never run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, Literal, TypedDict, assert_type

from pydantic import BaseModel

import antiphon
from antiphon import (
    AntiphonError,
    AsyncConversation,
    AsyncStream,
    ChatRecord,
    ConfigError,
    ConflictError,
    ContextLengthExceededError,
    Conversation,
    ConversationUsage,
    FunctionCall,
    InvalidOutputError,
    InvalidRequestError,
    Item,
    ModelError,
    ModelNotFoundError,
    ModelTimeoutError,
    ModelUnavailableError,
    NotFoundError,
    Reply,
    SearchHit,
    Settings,
    StoreError,
    Stream,
    Summarize,
    TokenBudget,
    Tool,
    ToolContext,
    UpstreamRateLimitError,
    Usage,
    Window,
    events,
    load_settings,
    tool,
)
from antiphon.core.events import Event


class Ticket(BaseModel):
    issue: str


@dataclass
class Point:
    x: int


class Place(TypedDict):
    city: str


class Color(Enum):
    RED = "red"


class Shop:
    @tool
    def price(self, article: str) -> float:
        """Say what an article costs."""
        return 1.0


@tool
def shout(text: str, times: int = 1) -> str:
    """Shout."""
    return text.upper() * times


@tool(name="wait", timeout=None, needs_approval=lambda seconds: seconds > 10)
async def wait_for(seconds: float) -> bool:
    """Wait."""
    return True


@tool(needs_approval=True)
def who(ctx: ToolContext[Shop]) -> float:
    """Ask."""
    assert_type(ctx.deps, Shop)
    assert_type(ctx.call_id, str)
    return ctx.deps.price("tea")


def plain(a: int) -> int:
    """Add one."""
    return a + 1


async def tools() -> None:
    """What was decorated can be called as before."""
    assert_type(shout("a", times=2), str)
    assert_type(await wait_for(1.0), bool)
    assert_type(Shop().price("tea"), float)
    assert_type(who(ToolContext(Shop(), "call_1", "who")), float)
    raw = Tool.from_schema("raw", "Raw.", {"type": "object"}, plain)
    assert_type(raw, Tool[..., int])
    assert_type(Tool(plain)(1), int)
    shout(1)  # type: ignore[arg-type]
    shout()  # type: ignore[call-arg]


def approve(call: FunctionCall) -> bool | str:
    return "no" if call.name == "who" else True


async def approve_later(call: FunctionCall) -> bool:
    return True


def settings() -> None:
    assert_type(load_settings(), Settings)
    Conversation(
        "grok-4",
        instructions="Be brief.",
        tools=[shout, wait_for, who, Shop().price, plain, Tool(plain, name="other")],
        deps=Shop(),
        approve=approve,
        context=Window(20),
        temperature=0.5,
        top_p=0.9,
        max_output_tokens=100,
        reasoning_effort="low",
        tool_choice="auto",
        parallel_tool_calls=False,
        max_tool_rounds=3,
        timeout=30,
        settings=load_settings(),
    )
    Conversation(context=[Summarize(max_tokens=1000), TokenBudget(2000)], approve=approve_later)
    Conversation(temprature=1)  # type: ignore[call-arg]
    Conversation(temperature="hot")  # type: ignore[arg-type]


def shapes(chat: Conversation) -> None:
    assert_type(chat.send("Hi"), Reply[None])
    assert_type(chat.send("Hi").parsed, None)
    assert_type(chat.send("Hi", returns=Ticket).parsed, Ticket)
    assert_type(chat.send("Hi", returns=Point).parsed, Point)
    assert_type(chat.send("Hi", returns=Place).parsed, Place)
    assert_type(chat.send("Hi", returns=Color).parsed, Color)
    assert_type(chat.send("Hi", returns=int).parsed, int)
    assert_type(chat.send("Hi", returns=list[Ticket]).parsed, list[Ticket])
    assert_type(chat.send("Hi", returns=dict[str, Point]).parsed, dict[str, Point])
    assert_type(chat.send("Hi", returns=Ticket | Point).parsed, Ticket | Point)
    assert_type(chat.send("Hi", returns=Ticket | None).parsed, Ticket | None)
    assert_type(chat.send("Hi", returns=Literal["yes", "no"]).parsed, Literal["yes", "no"])
    assert_type(chat.send("Hi", returns=Annotated[int, "a percentage"]).parsed, int)
    assert_type(chat.regenerate(), Reply[None])
    assert_type(chat.regenerate(returns=Ticket).parsed, Ticket)
    assert_type(chat.edit("resp_1", "Hi").parsed, None)
    assert_type(chat.edit("resp_1", "Hi", returns=list[Point]).parsed, list[Point])
    chat.send("Hi", returns=Ticket, images=["a.png", b"..."], detail="low")
    chat.send(decisions={"call_1": True, "call_2": "not now"})
    chat.send("Hi", detail="huge")  # type: ignore[call-overload]


def streams(chat: Conversation) -> None:
    assert_type(chat.stream("Hi"), Stream[None])
    with chat.stream("Hi", returns=Ticket) as stream:
        assert_type(next(stream), str)
        assert_type(stream.events(), Iterator[Event])
        assert_type(stream.objects(), Iterator[Any])
        assert_type(stream.close(), None)
    assert_type(stream.reply, Reply[Ticket])
    assert_type(stream.reply.parsed, Ticket)


def reading(event: Event) -> str:
    """Every kind of event, and no other: mypy knows when one is forgotten."""
    match event:
        case events.TextDelta() | events.RefusalDelta():
            return event.text
        case events.ReasoningDelta() | events.RawReasoningDelta():
            return event.text
        case events.ArgumentsDelta(text=text):
            return text
        case events.ItemAdded(item=item) | events.ItemDone(item=item):
            return type(item).__name__
        case events.Created(response=response) | events.Ended(response=response):
            return response.id


def replies(reply: Reply[None]) -> None:
    assert_type(reply.text, str)
    assert_type(reply.response_id, str)
    assert_type(reply.model, str)
    assert_type(reply.usage, Usage | None)
    assert_type(reply.output, tuple[Item, ...])
    assert_type(reply.pending, tuple[FunctionCall, ...])
    assert reply.status in ("completed", "incomplete")


def states(chat: Conversation, schema: Mapping[str, Any]) -> None:
    assert_type(chat.response_id, str | None)
    assert_type(chat.model, str | None)
    assert_type(chat.instructions, str | None)
    assert_type(chat.messages(), list[dict[str, Any]])
    assert_type(chat.context(), list[dict[str, Any]])
    assert_type(chat.items(), tuple[Item, ...])
    assert_type(chat.usage(), ConversationUsage)
    assert_type(chat.usage().cost, float | None)
    assert_type(chat.pending(), tuple[FunctionCall, ...])
    assert_type(Conversation.list_chats(limit=5), list[ChatRecord])
    assert_type(Conversation.search_chats("words"), list[SearchHit])
    assert_type(chat.delete_response("resp_1", cascade=True), None)
    assert_type(chat.delete(), None)
    assert_type(chat.summarize(keep_turns=2), Reply[None])
    assert_type(chat.branch("resp_1"), Conversation)
    assert_type(chat.export("markdown"), str)
    assert_type(Conversation.resume(chat.response_id), Conversation)
    assert_type(Conversation.resume("resp_1", tools=[shout], timeout=5), Conversation)
    assert_type(Conversation.load(chat.messages(), model="grok-4"), Conversation)
    chat.register_tool("raw", "Raw.", schema, plain)
    chat.reset(keep_system=False)
    chat.model = None
    chat.instructions = "Be long."
    chat.export("yaml")  # type: ignore[arg-type]


async def twin(chat: AsyncConversation) -> None:
    assert_type(await chat.send("Hi"), Reply[None])
    assert_type((await chat.send("Hi", returns=list[Place])).parsed, list[Place])
    assert_type((await chat.send("Hi", returns=Ticket | Point)).parsed, Ticket | Point)
    assert_type((await chat.regenerate(returns=Point)).parsed, Point)
    assert_type((await chat.edit("resp_1", "Hi", returns=Ticket)).parsed, Ticket)
    async with chat.stream("Hi", returns=Ticket) as stream:
        assert_type(stream, AsyncStream[Ticket])
        async for delta in stream:
            assert_type(delta, str)
        async for event in stream.events():
            reading(event)
    assert_type(stream.reply.parsed, Ticket)
    assert_type(await chat.messages(), list[dict[str, Any]])
    assert_type(await chat.context(), list[dict[str, Any]])
    assert_type(await chat.items(), tuple[Item, ...])
    assert_type(await chat.usage(), ConversationUsage)
    assert_type(await chat.pending(), tuple[FunctionCall, ...])
    assert_type(await chat.summarize(), Reply[None])
    assert_type(await chat.branch(), AsyncConversation)
    assert_type(await chat.export(), str)
    assert_type(await AsyncConversation.resume(chat.response_id), AsyncConversation)
    assert_type(await AsyncConversation.load([]), AsyncConversation)


def failures(chat: Conversation) -> float | None:
    try:
        chat.send("Hi")
    except UpstreamRateLimitError as error:
        return error.retry_after
    except (ModelTimeoutError, ModelUnavailableError) as error:
        assert_type(error.message, str)
    except InvalidOutputError as error:
        assert_type(error.text, str)
    except ContextLengthExceededError as error:
        assert_type(error.used, int | None)
    except (ModelNotFoundError, NotFoundError, InvalidRequestError, ConflictError) as error:
        assert_type(error.param, str | None)
    except (ModelError, StoreError, ConfigError) as error:
        assert_type(error.code, str)
    except AntiphonError as error:
        assert_type(error.response_id, str | None)
    return None


assert_type(antiphon.__version__, str)
