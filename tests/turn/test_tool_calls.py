"""Running the tool calls of one answer: in parallel or in sequence, and none is left running."""

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


class ToolRecorder:
    """A tool source: runs each call by ``work``, and records what happens to it."""

    def __init__(self, work: Callable[[FunctionCall], Awaitable[str | None]]) -> None:
        self._work = work
        self.events: list[tuple[str, str]] = []
        self.approved: list[bool] = []
        self.running_count = 0
        self.most_running = 0

    async def call_tool(self, call: FunctionCall, *, approved: bool = False) -> str | None:
        self.events.append(("begin", call.name))
        self.approved.append(approved)
        self.running_count += 1
        self.most_running = max(self.running_count, self.most_running)
        try:
            return await self._work(call)
        except asyncio.CancelledError:
            # A cancelled call gets time to clean up.
            await asyncio.sleep(0)
            self.events.append(("cancelled", call.name))
            raise
        finally:
            self.running_count -= 1

    def record_output(self, call: FunctionCall, output: str) -> None:
        self.events.append((output, call.name))

    async def run(self, calls: Sequence[FunctionCall], *, parallel: bool) -> bool:
        return await run_tool_calls(self, calls, self.record_output, parallel=parallel)


async def test_parallel_calls_record_outputs_as_they_complete() -> None:
    gates = {call.name: asyncio.Event() for call in (A, B, C)}

    async def work(call: FunctionCall) -> str:
        await gates[call.name].wait()
        return "done"

    recorder = ToolRecorder(work)
    running = asyncio.ensure_future(recorder.run([A, B, C], parallel=True))
    await run_ready_tasks()
    assert recorder.events == [("begin", "a"), ("begin", "b"), ("begin", "c")]
    for name in "cab":
        gates[name].set()
        await run_ready_tasks()
    assert recorder.events[3:] == [("done", "c"), ("done", "a"), ("done", "b")]
    assert await running is True


def test_non_parallel_calls_run_in_sequence() -> None:
    async def work(call: FunctionCall) -> str:
        await run_ready_tasks()
        return "done"

    recorder = ToolRecorder(work)
    assert run(recorder.run([B, A], parallel=False)) is True
    assert recorder.events == [("begin", "b"), ("done", "b"), ("begin", "a"), ("done", "a")]


@pytest.mark.parametrize("parallel", [True, False])
def test_call_without_an_output_is_left_open(parallel: bool) -> None:
    async def work(call: FunctionCall) -> str | None:
        return None if call is A else "done"

    recorder = ToolRecorder(work)
    assert run(recorder.run([A, B], parallel=parallel)) is False
    assert [what for what in recorder.events if what[0] != "begin"] == [("done", "b")]


def test_empty_output_is_recorded() -> None:
    async def work(call: FunctionCall) -> str:
        return ""

    recorder = ToolRecorder(work)
    assert run(recorder.run([A], parallel=True)) is True
    assert recorder.events == [("begin", "a"), ("", "a")]


@pytest.mark.parametrize("parallel", [True, False])
def test_no_calls_leave_none_open(parallel: bool) -> None:
    async def work(call: FunctionCall) -> str:
        return "done"

    assert run(ToolRecorder(work).run([], parallel=parallel)) is True


@pytest.mark.parametrize("approved", [True, False])
def test_approved_flag_is_passed_to_the_tool_source(approved: bool) -> None:
    async def work(call: FunctionCall) -> str:
        return "done"

    recorder = ToolRecorder(work)
    run(run_tool_calls(recorder, [A, B], recorder.record_output, parallel=True, approved=approved))
    assert recorder.approved == [approved, approved]


async def test_exception_in_a_call_cancels_the_other_calls() -> None:
    async def work(call: FunctionCall) -> str:
        if call is B:
            raise RuntimeError("A tool source must not raise.")
        if call is C:
            return "done"
        return await asyncio.Event().wait() and ""

    recorder = ToolRecorder(work)
    with pytest.raises(ExceptionGroup) as caught:
        await recorder.run([C, A, B], parallel=True)
    assert isinstance(caught.value.exceptions[0], RuntimeError)
    assert [one for one in recorder.events if one[0] != "begin"] == [
        ("done", "c"),
        ("cancelled", "a"),
    ]
    assert recorder.running_count == 0


@pytest.mark.parametrize("parallel", [True, False])
async def test_cancellation_waits_until_running_calls_have_stopped(parallel: bool) -> None:
    async def work(call: FunctionCall) -> str:
        if call is A:
            return "done"
        await asyncio.Event().wait()
        return "never"

    recorder = ToolRecorder(work)
    running = asyncio.ensure_future(recorder.run([A, B, C], parallel=parallel))
    await run_ready_tasks()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    begun = ["a", "b", "c"] if parallel else ["a", "b"]
    assert [name for what, name in recorder.events if what == "begin"] == begun
    assert sorted(name for what, name in recorder.events if what == "cancelled") == begun[1:]
    assert ("done", "a") in recorder.events, "a completed call stays completed"
    assert recorder.running_count == 0


#: The output of each call, and after how many event loop steps it comes.
JOBS = st.lists(st.tuples(st.none() | st.text(max_size=3), st.integers(0, 5)), max_size=6)


@settings(deadline=None)
@given(JOBS, st.booleans())
def test_each_answered_call_is_recorded_once(
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
        recorder = ToolRecorder(work)
        all_answered = await run_tool_calls(
            recorder,
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
        assert all_answered is (len(expected) == len(jobs))
        assert recorder.running_count == 0
        assert parallel or recorder.most_running <= 1

    run(main())
