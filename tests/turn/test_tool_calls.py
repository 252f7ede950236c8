"""The tool calls of one answer: side by side or in turn, and none is left running."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.core.items import FunctionCall
from antiphon.turn.tool_calls import run_tool_calls
from support.turn_service import run, run_ready_tasks

A, B, C = (FunctionCall(name, name, "{}") for name in "abc")


class Bench:
    """A tool source; ``work`` does a call, and what happens to each call is written down."""

    def __init__(self, work: Callable[[FunctionCall], Awaitable[str | None]]) -> None:
        self._work = work
        self.story: list[tuple[str, str]] = []
        self.approved: list[bool] = []
        self.busy = 0
        self.busiest = 0

    async def call_tool(self, call: FunctionCall, *, approved: bool = False) -> str | None:
        self.story.append(("begin", call.name))
        self.approved.append(approved)
        self.busy += 1
        self.busiest = max(self.busy, self.busiest)
        try:
            return await self._work(call)
        except asyncio.CancelledError:
            # Whoever is cancelled may have to tidy up, and gets the time.
            await asyncio.sleep(0)
            self.story.append(("cancelled", call.name))
            raise
        finally:
            self.busy -= 1

    def take(self, call: FunctionCall, output: str) -> None:
        self.story.append((output, call.name))

    async def run(self, calls: Sequence[FunctionCall], *, parallel: bool) -> bool:
        return await run_tool_calls(self, calls, self.take, parallel=parallel)


async def test_calls_run_side_by_side_and_are_taken_as_they_come() -> None:
    gates = {call.name: asyncio.Event() for call in (A, B, C)}

    async def work(call: FunctionCall) -> str:
        await gates[call.name].wait()
        return "done"

    bench = Bench(work)
    running = asyncio.ensure_future(bench.run([A, B, C], parallel=True))
    await run_ready_tasks()
    assert bench.story == [("begin", "a"), ("begin", "b"), ("begin", "c")]
    for name in "cab":
        gates[name].set()
        await run_ready_tasks()
    assert bench.story[3:] == [("done", "c"), ("done", "a"), ("done", "b")]
    assert await running is True


def test_calls_run_one_after_another_where_that_is_asked_for() -> None:
    async def work(call: FunctionCall) -> str:
        await run_ready_tasks()
        return "done"

    bench = Bench(work)
    assert run(bench.run([B, A], parallel=False)) is True
    assert bench.story == [("begin", "b"), ("done", "b"), ("begin", "a"), ("done", "a")]


@pytest.mark.parametrize("parallel", [True, False])
def test_a_call_that_is_not_answered_is_left_open(parallel: bool) -> None:
    async def work(call: FunctionCall) -> str | None:
        return None if call is A else "done"

    bench = Bench(work)
    assert run(bench.run([A, B], parallel=parallel)) is False
    assert [what for what in bench.story if what[0] != "begin"] == [("done", "b")]


def test_an_empty_output_is_an_output() -> None:
    async def work(call: FunctionCall) -> str:
        return ""

    bench = Bench(work)
    assert run(bench.run([A], parallel=True)) is True
    assert bench.story == [("begin", "a"), ("", "a")]


@pytest.mark.parametrize("parallel", [True, False])
def test_of_no_calls_none_is_left_open(parallel: bool) -> None:
    async def work(call: FunctionCall) -> str:
        return "done"

    assert run(Bench(work).run([], parallel=parallel)) is True


@pytest.mark.parametrize("approved", [True, False])
def test_whether_a_person_has_agreed_is_passed_on(approved: bool) -> None:
    async def work(call: FunctionCall) -> str:
        return "done"

    bench = Bench(work)
    run(run_tool_calls(bench, [A, B], bench.take, parallel=True, approved=approved))
    assert bench.approved == [approved, approved]


async def test_a_source_that_raises_stops_the_others() -> None:
    async def work(call: FunctionCall) -> str:
        if call is B:
            raise RuntimeError("A tool source must not raise.")
        if call is C:
            return "done"
        return await asyncio.Event().wait() and ""

    bench = Bench(work)
    with pytest.raises(ExceptionGroup) as caught:
        await bench.run([C, A, B], parallel=True)
    assert isinstance(caught.value.exceptions[0], RuntimeError)
    assert [one for one in bench.story if one[0] != "begin"] == [
        ("done", "c"),
        ("cancelled", "a"),
    ]
    assert bench.busy == 0


@pytest.mark.parametrize("parallel", [True, False])
async def test_cancelling_stops_what_runs_and_waits_until_it_has(parallel: bool) -> None:
    async def work(call: FunctionCall) -> str:
        if call is A:
            return "done"
        await asyncio.Event().wait()
        return "never"

    bench = Bench(work)
    running = asyncio.ensure_future(bench.run([A, B, C], parallel=parallel))
    await run_ready_tasks()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    begun = ["a", "b", "c"] if parallel else ["a", "b"]
    assert [name for what, name in bench.story if what == "begin"] == begun
    assert sorted(name for what, name in bench.story if what == "cancelled") == begun[1:]
    assert ("done", "a") in bench.story, "what was done before stays done"
    assert bench.busy == 0


#: What each call gives, and after how many steps of the loop.
JOBS = st.lists(st.tuples(st.none() | st.text(max_size=3), st.integers(0, 5)), max_size=6)


@settings(deadline=None)
@given(JOBS, st.booleans())
def test_each_answered_call_is_taken_once(
    jobs: list[tuple[str | None, int]], parallel: bool
) -> None:
    async def main() -> None:
        calls = [FunctionCall(str(number), "f", "{}") for number in range(len(jobs))]

        async def work(call: FunctionCall) -> str | None:
            output, steps = jobs[int(call.call_id)]
            for _ in range(steps):
                await asyncio.sleep(0)
            return output

        taken: list[tuple[str, str]] = []
        bench = Bench(work)
        whole = await run_tool_calls(
            bench,
            calls,
            lambda call, output: taken.append((call.call_id, output)),
            parallel=parallel,
        )
        expected = [
            (call.call_id, output)
            for call, (output, _) in zip(calls, jobs, strict=True)
            if output is not None
        ]
        assert sorted(taken) == expected
        assert parallel or taken == expected
        assert whole is (len(expected) == len(jobs))
        assert bench.busy == 0
        assert parallel or bench.busiest <= 1

    run(main())
