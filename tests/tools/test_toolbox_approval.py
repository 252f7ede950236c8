"""``Toolbox`` approvals: some tools run only after a person has approved."""

from __future__ import annotations

import asyncio
import functools
import json
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from antiphon.core.items import FunctionCall
from antiphon.tools.function_tool import tool
from antiphon.tools.toolbox import Toolbox


async def call_tool_async(
    toolbox: Toolbox, name: str, arguments: str = "", *, approved: bool = False
) -> str | None:
    return await toolbox.call_tool(FunctionCall("call_1", name, arguments), approved=approved)


def call_tool(toolbox: Toolbox, name: str, arguments: str = "", *, approved: bool = False) -> Any:
    return asyncio.run(call_tool_async(toolbox, name, arguments, approved=approved))


def error_of(toolbox: Toolbox, name: str, arguments: str = "") -> str:
    decision = json.loads(call_tool(toolbox, name, arguments))
    assert list(decision) == ["error"]
    return str(decision["error"])


class RefundTool:
    """A tool that needs approval; records payments and approval requests."""

    def __init__(self, needs: bool | Callable[..., bool] = True) -> None:
        self.paid: list[float] = []
        self.approval_requests: list[FunctionCall] = []

        @tool(needs_approval=needs)
        def refund(amount: float, note: str = "") -> str:
            self.paid.append(amount)
            return "paid"

        self.tool = refund

    def toolbox(self, decision: Any = None) -> Toolbox:
        def approve(call: FunctionCall) -> Any:
            self.approval_requests.append(call)
            if isinstance(decision, BaseException):
                raise decision
            return decision

        return Toolbox([self.tool], approve=None if decision is None else approve)


def test_call_without_an_approver_is_left_open() -> None:
    refunds = RefundTool()
    assert call_tool(refunds.toolbox(), "refund", '{"amount": 5}') is None
    assert refunds.paid == []
    assert call_tool(refunds.toolbox(), "refund", '{"amount": 5}', approved=True) == "paid"
    assert refunds.paid == [5.0]


def test_approved_call_runs() -> None:
    refunds = RefundTool()
    assert call_tool(refunds.toolbox(True), "refund", '{"amount": 5}') == "paid"
    assert refunds.approval_requests == [FunctionCall("call_1", "refund", '{"amount": 5}')]
    assert call_tool(refunds.toolbox(True), "refund", '{"amount": 6}', approved=True) == "paid"
    assert len(refunds.approval_requests) == 1


@pytest.mark.parametrize(
    ("decision", "expected"),
    [
        (False, "A person declined this call, so it was not run."),
        ("too much", "so it was not run. The reason given: too much"),
        ("", "A person declined this call, so it was not run."),
        (1, "A person declined this call, so it was not run."),
    ],
)
def test_declined_call_does_not_run(decision: Any, expected: str) -> None:
    refunds = RefundTool()
    assert error_of(refunds.toolbox(decision), "refund", '{"amount": 5}').endswith(expected)
    assert refunds.paid == []


@pytest.mark.parametrize("raised", [EOFError(), SystemExit(1), StopIteration()], ids=repr)
def test_failing_approver_declines(raised: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    refunds = RefundTool()
    assert "Nobody could be asked" in error_of(refunds.toolbox(raised), "refund", '{"amount": 5}')
    assert refunds.paid == []
    assert [one.getMessage() for one in caplog.records] == ["approve failed for a call of refund."]


def test_invalid_arguments_are_refused_before_approval() -> None:
    refunds = RefundTool()
    assert "Invalid arguments" in error_of(refunds.toolbox(True), "refund", '{"amount": "much"}')
    assert refunds.approval_requests == []


def test_needs_approval_can_depend_on_arguments() -> None:
    refunds = RefundTool(lambda amount, note: amount > 100 or note == "ask")
    toolbox = refunds.toolbox(False)
    assert call_tool(toolbox, "refund", '{"amount": 100}') == "paid"
    assert "declined" in error_of(toolbox, "refund", '{"amount": 100, "note": "ask"}')
    assert "declined" in error_of(toolbox, "refund", '{"amount": 101}')
    assert refunds.paid == [100.0]


def test_failing_needs_approval_requires_approval(caplog: pytest.LogCaptureFixture) -> None:
    refunds = RefundTool(lambda wrong: False)
    assert call_tool(refunds.toolbox(), "refund", '{"amount": 1}') is None
    assert [one.getMessage() for one in caplog.records] == ["needs_approval of tool refund failed."]


def test_async_approver_has_no_timeout_and_can_be_cancelled() -> None:
    refunds = RefundTool()

    async def main() -> None:
        approval_requests = asyncio.Event()

        async def approve(call: FunctionCall) -> bool:
            approval_requests.set()
            await asyncio.Event().wait()
            return True

        toolbox = Toolbox([refunds.tool], approve=approve, timeout=0.001)
        task = asyncio.create_task(call_tool_async(toolbox, "refund", '{"amount": 5}'))
        await approval_requests.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert refunds.paid == []


def test_all_kinds_of_async_approvers_are_awaited() -> None:
    async def agree(call: FunctionCall) -> bool:
        return True

    def later(call: FunctionCall) -> Awaitable[bool]:
        return agree(call)

    for approve in (agree, later, functools.partial(agree)):
        refunds = RefundTool()
        assert (
            call_tool(Toolbox([refunds.tool], approve=approve), "refund", '{"amount": 5}') == "paid"
        )


def test_blocking_approver_is_called_one_at_a_time() -> None:
    together = threading.Barrier(2)
    overlapped: list[bool] = []

    def approve(call: FunctionCall) -> bool:
        try:
            together.wait(0.2)
            overlapped.append(True)
        except threading.BrokenBarrierError:
            overlapped.append(False)
        return True

    toolbox = Toolbox([RefundTool().tool], approve=approve)

    async def main() -> None:
        calls = (call_tool_async(toolbox, "refund", '{"amount": 5}') for _ in range(2))
        assert await asyncio.gather(*calls) == ["paid", "paid"]

    # On two event loops in sequence, as in programs with several ``asyncio.run``.
    asyncio.run(main())
    asyncio.run(main())
    assert overlapped == [False] * 4
