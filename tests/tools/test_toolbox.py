"""``Toolbox``: what answers the calls of tools, whatever they do."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import json
import logging
import threading
from typing import Annotated, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import AfterValidator, BaseModel

from antiphon.core.items import FunctionCall
from antiphon.errors import ConfigError
from antiphon.tools.function_tool import Tool, tool
from antiphon.tools.tool_context import ToolContext
from antiphon.tools.toolbox import Toolbox
from antiphon.turn.protocols import ToolExecutor

ORDERS = {"ORD-123": {"status": "shipped", "eta": "2 days"}}


@tool
def lookup_order(order_id: str) -> dict[str, str]:
    """Look up order status."""
    return ORDERS[order_id]


class Ticket(BaseModel):
    name: str
    issue: str


def create_ticket(request: Ticket) -> str:
    return f"Created customer ticket for {request.name} with issue {request.issue}"


async def forever() -> None:
    await asyncio.Event().wait()


async def answer(
    box: ToolExecutor, name: str, arguments: str = "", *, approved: bool = False
) -> str | None:
    return await box.call_tool(FunctionCall("call_1", name, arguments), approved=approved)


def answered(box: ToolExecutor, name: str, arguments: str = "", *, approved: bool = False) -> Any:
    return asyncio.run(answer(box, name, arguments, approved=approved))


def error(box: ToolExecutor, name: str, arguments: str = "", *, approved: bool = False) -> str:
    said = json.loads(answered(box, name, arguments, approved=approved))
    assert list(said) == ["error"]
    return str(said["error"])


def test_functions_tools_and_raw_schemas_answer() -> None:
    weather = Tool.from_schema(
        "get_weather",
        "Get current weather for a location",
        {"type": "object", "properties": {"location": {"type": "string"}}},
        lambda location: {"temp": 72, "location": location},
    )
    box = Toolbox([lookup_order, create_ticket, weather])
    assert [one.name for one in box.specs] == ["lookup_order", "create_ticket", "get_weather"]
    assert answered(box, "lookup_order", '{"order_id": "ORD-123"}') == (
        '{"status":"shipped","eta":"2 days"}'
    )
    assert answered(box, "create_ticket", '{"name": "Omar", "issue": "login"}') == (
        "Created customer ticket for Omar with issue login"
    )
    assert answered(box, "get_weather", '{"location": "Tokyo"}') == '{"temp":72,"location":"Tokyo"}'


def test_tools_can_be_added_and_have_names_of_their_own() -> None:
    box = Toolbox([lookup_order])
    before = box.specs
    assert box.add(create_ticket).name == "create_ticket"
    assert [one.name for one in box.specs] == ["lookup_order", "create_ticket"]
    assert len(before) == 1
    with pytest.raises(ConfigError, match="Two tools are named 'lookup_order'"):
        box.add(lookup_order)


@pytest.mark.parametrize("tools", ["lookup_order", {"a": 1}, 3, lookup_order, [3], [len], [int]])
def test_what_is_no_tool_is_refused(tools: Any) -> None:
    with pytest.raises(ConfigError):
        Toolbox(tools)


@pytest.mark.parametrize("options", [{"timeout": 0}, {"timeout": "5"}, {"approve": "yes"}])
def test_options_of_the_wrong_kind_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Toolbox([], **options)


def test_an_unknown_tool_is_told_which_there_are() -> None:
    box = Toolbox([lookup_order, create_ticket])
    assert error(box, "look_up") == (
        "There is no tool named 'look_up'. The tools: lookup_order, create_ticket."
    )
    assert "The tools: none" in error(Toolbox(), "x\ud800" * 10_000)


def test_arguments_that_do_not_fit_never_reach_the_tool() -> None:
    box = Toolbox([lookup_order])
    assert error(box, "lookup_order") == "Invalid arguments: argument 'order_id' is missing."
    assert "not valid JSON" in error(box, "lookup_order", '{"order_id"')


def test_no_arguments_are_enough_where_none_are_needed() -> None:
    @tool
    def ping() -> None: ...

    assert answered(Toolbox([ping]), "ping", "") == "null"


def test_a_failing_tool_is_logged_without_its_arguments(caplog: pytest.LogCaptureFixture) -> None:
    box = Toolbox([lookup_order])
    assert error(box, "lookup_order", '{"order_id": "S3CRET"}') == (
        "lookup_order failed: KeyError: 'S3CRET'"
    )
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("antiphon.tools", logging.WARNING)
    assert record.exc_info is not None
    assert record.exc_info[0] is KeyError
    assert record.getMessage() == "Tool lookup_order failed."


def test_a_validator_that_breaks_is_a_failing_tool(caplog: pytest.LogCaptureFixture) -> None:
    def broken(value: str) -> str:
        raise KeyError(value)

    @tool
    def take(text: Annotated[str, AfterValidator(broken)]) -> None: ...

    assert error(Toolbox([take]), "take", '{"text": "x"}') == "take failed: KeyError: 'x'"
    assert caplog.records


def test_a_result_that_is_no_json_is_an_error(caplog: pytest.LogCaptureFixture) -> None:
    @tool
    def blocking() -> float:
        return float("nan")

    @tool
    async def waiting() -> object:
        return object()

    box = Toolbox([blocking, waiting])
    assert error(box, "blocking").startswith("blocking gave a result that is not JSON")
    assert error(box, "waiting").startswith("waiting gave a result that is not JSON")
    assert len(caplog.records) == 2


def test_a_context_is_filled_in() -> None:
    @tool
    async def who(ctx: ToolContext[dict[str, str]], greeting: str = "Hi") -> list[str]:
        return [greeting, ctx.deps["user"], ctx.call_id, ctx.name]

    raw = Tool.from_schema("raw", None, None, lambda ctx: ctx.name)
    raw_who = Tool.from_schema("raw_who", None, None, who.function)
    box = Toolbox([who, raw, raw_who], deps={"user": "Ann"})
    assert answered(box, "who") == '["Hi","Ann","call_1","who"]'
    assert answered(box, "raw_who") == '["Hi","Ann","call_1","raw_who"]'
    assert "missing 1 required positional argument" in error(box, "raw")
    assert "no argument 'ctx'" in error(box, "who", '{"ctx": {}}')


async def test_blocking_tools_run_at_once_on_threads_that_see_the_context() -> None:
    user = contextvars.ContextVar("user", default="nobody")
    both = threading.Barrier(2, timeout=30)

    @tool
    def meet() -> list[Any]:
        both.wait()
        return [user.get(), threading.current_thread().daemon]

    user.set("Ann")
    box = Toolbox([meet])
    calls = (answer(box, "meet") for _ in range(2))
    assert await asyncio.gather(*calls) == ['["Ann",true]'] * 2


def test_what_a_function_gives_is_awaited() -> None:
    async def fetch(x: int) -> int:
        return x + 1

    box = Toolbox(
        [
            Tool.from_schema("hidden", None, None, lambda x: fetch(x + 0)),
            Tool.from_schema("partial", None, None, functools.partial(fetch, 2)),
        ]
    )
    assert answered(box, "hidden", '{"x": 1}') == "2"
    assert answered(box, "partial") == "3"


async def test_a_blocking_tool_that_takes_too_long_is_left_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    release, over = threading.Event(), threading.Event()

    @tool(timeout=0.01)
    def hang() -> str:
        release.wait()
        over.set()
        return "late"

    said = await answer(Toolbox([hang]), "hang")
    assert json.loads(said or "") == {"error": "hang did not finish within 0.01 s."}
    assert not over.is_set()
    release.set()
    await asyncio.to_thread(over.wait)
    assert [one.getMessage() for one in caplog.records] == [
        "Tool hang did not finish within 0.01 s."
    ]


def test_an_async_tool_that_takes_too_long_is_cancelled() -> None:
    cancelled: list[str] = []

    @tool
    async def hang(swallow: bool) -> str:
        try:
            await forever()
        except asyncio.CancelledError:
            cancelled.append("yes")
            if not swallow:
                raise
        return "late"

    box = Toolbox([hang], timeout=0.01)
    for swallow in ("true", "false"):
        assert "did not finish" in error(box, "hang", f'{{"swallow": {swallow}}}')
    assert cancelled == ["yes", "yes"]


def test_a_tool_may_have_no_limit_or_one_of_its_own() -> None:
    async def slow() -> str:
        # Longer than the toolbox's limit, however fast the machine.
        for _ in range(3):
            await asyncio.to_thread(threading.Event().wait, 0.01)
        return "done"

    def box(timeout: float | None) -> Toolbox:
        return Toolbox([tool(timeout=timeout)(slow)], timeout=0.001)

    assert answered(box(None), "slow") == "done"
    assert answered(box(60), "slow") == "done"
    assert "did not finish" in error(Toolbox([slow], timeout=0.001), "slow")


def test_a_tools_own_timeout_error_is_a_failure() -> None:
    @tool
    async def fetch() -> None:
        raise TimeoutError("no answer")

    assert error(Toolbox([fetch]), "fetch") == "fetch failed: TimeoutError: no answer"


def test_cancelling_an_answer_cancels_the_tool() -> None:
    seen: list[str] = []

    async def main() -> None:
        started = asyncio.Event()

        @tool
        async def hang() -> None:
            started.set()
            try:
                await forever()
            except asyncio.CancelledError:
                seen.append("cancelled")
                raise

        task = asyncio.create_task(answer(Toolbox([hang]), "hang"))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert seen == ["cancelled"]


RESULTS = st.one_of(
    st.text(st.characters()),
    st.floats(),
    st.binary(),
    st.recursive(st.none() | st.integers(), st.lists),
    st.builds(object),
    st.sampled_from([ValueError, SystemExit, StopIteration, TimeoutError, asyncio.CancelledError]),
)
ARGUMENTS = st.one_of(
    st.text(st.characters()),
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(st.characters()),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["x", "y"]), inner),
    ).map(json.dumps),
    st.sampled_from(["{}", '{"x": 1}', "[" * 10_000, '{"x": 1' + "0" * 5000 + "}"]),
)


@settings(deadline=None)
@given(
    st.sampled_from(["blocking", "waiting", "raw", "nothing"]),
    ARGUMENTS,
    RESULTS,
    st.booleans(),
)
def test_whatever_happens_the_answer_is_a_text(
    name: str, arguments: str, result: Any, approved: bool
) -> None:
    def act(x: Any = None) -> Any:
        if isinstance(result, type):
            raise result("\ud800")
        return result

    async def waiting(x: int = 0) -> Any:
        return act()

    schema = {"properties": {"x": {"type": ["integer", "string"]}}}
    box = Toolbox(
        [
            tool(name="blocking", needs_approval=True)(act),
            waiting,
            Tool.from_schema("raw", None, schema, act),
        ]
    )
    # The log would hold the exception's half of a character, which no report of a test can carry.
    logging.disable()
    try:
        said = answered(box, name, arguments, approved=approved)
    finally:
        logging.disable(logging.NOTSET)
    assert said is None or said.encode() is not None
    assert said is not None or (name == "blocking" and not approved)
