"""``Toolbox``: a person has to agree before some tools run."""

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


async def answer(
    box: Toolbox, name: str, arguments: str = "", *, approved: bool = False
) -> str | None:
    return await box.call_tool(FunctionCall("call_1", name, arguments), approved=approved)


def answered(box: Toolbox, name: str, arguments: str = "", *, approved: bool = False) -> Any:
    return asyncio.run(answer(box, name, arguments, approved=approved))


def error(box: Toolbox, name: str, arguments: str = "") -> str:
    said = json.loads(answered(box, name, arguments))
    assert list(said) == ["error"]
    return str(said["error"])


class Bank:
    """A tool that needs approval, and people who are asked."""

    def __init__(self, needs: bool | Callable[..., bool] = True) -> None:
        self.paid: list[float] = []
        self.asked: list[FunctionCall] = []

        @tool(needs_approval=needs)
        def refund(amount: float, note: str = "") -> str:
            self.paid.append(amount)
            return "paid"

        self.tool = refund

    def box(self, said: Any = None) -> Toolbox:
        def approve(call: FunctionCall) -> Any:
            self.asked.append(call)
            if isinstance(said, BaseException):
                raise said
            return said

        return Toolbox([self.tool], approve=None if said is None else approve)


def test_a_call_that_needs_approval_is_left_open_without_a_person() -> None:
    bank = Bank()
    assert answered(bank.box(), "refund", '{"amount": 5}') is None
    assert bank.paid == []
    assert answered(bank.box(), "refund", '{"amount": 5}', approved=True) == "paid"
    assert bank.paid == [5.0]


def test_a_person_may_agree() -> None:
    bank = Bank()
    assert answered(bank.box(True), "refund", '{"amount": 5}') == "paid"
    assert bank.asked == [FunctionCall("call_1", "refund", '{"amount": 5}')]
    assert answered(bank.box(True), "refund", '{"amount": 6}', approved=True) == "paid"
    assert len(bank.asked) == 1


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (False, "A person declined this call, so it was not run."),
        ("too much", "so it was not run. The reason given: too much"),
        ("", "A person declined this call, so it was not run."),
        (1, "A person declined this call, so it was not run."),
    ],
)
def test_a_person_may_decline(said: Any, told: str) -> None:
    bank = Bank()
    assert error(bank.box(said), "refund", '{"amount": 5}').endswith(told)
    assert bank.paid == []


@pytest.mark.parametrize("raised", [EOFError(), SystemExit(1), StopIteration()], ids=repr)
def test_an_approver_that_fails_declines(
    raised: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    bank = Bank()
    assert "Nobody could be asked" in error(bank.box(raised), "refund", '{"amount": 5}')
    assert bank.paid == []
    assert [one.getMessage() for one in caplog.records] == ["approve failed for a call of refund."]


def test_nobody_is_asked_about_arguments_that_do_not_fit() -> None:
    bank = Bank()
    assert "Invalid arguments" in error(bank.box(True), "refund", '{"amount": "much"}')
    assert bank.asked == []


def test_the_arguments_may_decide_whether_a_person_is_asked() -> None:
    bank = Bank(lambda amount, note: amount > 100 or note == "ask")
    box = bank.box(False)
    assert answered(box, "refund", '{"amount": 100}') == "paid"
    assert "declined" in error(box, "refund", '{"amount": 100, "note": "ask"}')
    assert "declined" in error(box, "refund", '{"amount": 101}')
    assert bank.paid == [100.0]


def test_where_that_cannot_be_told_a_person_is_asked(caplog: pytest.LogCaptureFixture) -> None:
    bank = Bank(lambda wrong: False)
    assert answered(bank.box(), "refund", '{"amount": 1}') is None
    assert [one.getMessage() for one in caplog.records] == ["needs_approval of tool refund failed."]


def test_an_async_person_is_asked_without_a_limit_and_may_be_cancelled() -> None:
    bank = Bank()

    async def main() -> None:
        asked = asyncio.Event()

        async def approve(call: FunctionCall) -> bool:
            asked.set()
            await asyncio.Event().wait()
            return True

        box = Toolbox([bank.tool], approve=approve, timeout=0.001)
        task = asyncio.create_task(answer(box, "refund", '{"amount": 5}'))
        await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert bank.paid == []


def test_an_async_person_may_agree_however_it_is_written() -> None:
    async def agree(call: FunctionCall) -> bool:
        return True

    def later(call: FunctionCall) -> Awaitable[bool]:
        return agree(call)

    for approve in (agree, later, functools.partial(agree)):
        bank = Bank()
        assert answered(Toolbox([bank.tool], approve=approve), "refund", '{"amount": 5}') == "paid"


def test_a_terminal_is_asked_one_question_at_a_time() -> None:
    together = threading.Barrier(2)
    met: list[bool] = []

    def approve(call: FunctionCall) -> bool:
        try:
            together.wait(0.2)
            met.append(True)
        except threading.BrokenBarrierError:
            met.append(False)
        return True

    box = Toolbox([Bank().tool], approve=approve)

    async def main() -> None:
        calls = (answer(box, "refund", '{"amount": 5}') for _ in range(2))
        assert await asyncio.gather(*calls) == ["paid", "paid"]

    # On one loop after the other, as programs with several ``asyncio.run`` do.
    asyncio.run(main())
    asyncio.run(main())
    assert met == [False] * 4
