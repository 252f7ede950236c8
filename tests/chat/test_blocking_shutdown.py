"""Shutdown of blocking conversations: by close, by Ctrl-C, or at interpreter exit."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from antiphon.turn.service import TurnService
from support.chat_harness import (
    ChatHarness,
    ModelAnswer,
    chat_harness,
    contents,
    png,
    upstream_portal,
)
from support.misbehaving_upstream import HANG, chunk, events, stream
from support.stored_responses import response_ids_of_service


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[ChatHarness]:
    with chat_harness("blocking", tmp_path) as harness:
        yield harness


def unfinished_answer() -> list[Any]:
    """An answer that begins and never ends."""
    return stream(*events(chunk(content="One ")), end=HANG)


def run_script(script: str, *arguments: str) -> tuple[str, str]:
    """Runs a program; returns its output and its errors."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout, done.stderr


def press_ctrl_c() -> None:
    main = threading.main_thread().ident
    assert main is not None
    signal.pthread_kill(main, signal.SIGINT)


def interrupt(work: Callable[[], object], press: Callable[[], None]) -> None:
    """Runs the work while Ctrl-C is pressed; expects a KeyboardInterrupt."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    presser = threading.Thread(target=press)
    presser.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            work()
    finally:
        presser.join()
        signal.signal(signal.SIGINT, before)


def test_closing_a_stream_early_cancels_the_turn_and_keeps_partial_text(
    harness: ChatHarness,
) -> None:
    harness.upstream.plan_answers(unfinished_answer(), ModelAnswer("Fine."))
    chat = harness.new()
    deltas = chat.stream("Count.")
    assert next(deltas) == "One "
    deltas.close()
    harness.wait_for_disconnect()
    assert harness.response(chat.response_id).status == "cancelled"
    assert contents(chat.context()) == ["Count.", "One "]
    chat.send("And?")
    assert contents(harness.sent_messages()) == ["Count.", "One ", "And?"]


def test_closing_a_stream_of_an_ended_turn_keeps_the_turn(harness: ChatHarness) -> None:
    """The model was faster than the reader: the turn ended before the stream was closed."""
    chat = harness.new()
    deltas = chat.stream("I am Alice.")
    assert next(deltas) == "Hel"
    response_id = harness.service(end_of_newest)
    deltas.close()
    assert chat.response_id == response_id
    assert contents(chat.context()) == ["I am Alice.", "Hello."]


async def end_of_newest(service: TurnService) -> str:
    """The id of the newest response, once it has ended."""
    newest = (await response_ids_of_service(service))[0]
    turn = service.registry.get(newest)
    if turn is not None:
        await turn.result()
    return newest


def test_ctrl_c_during_send_cancels_the_turn(harness: ChatHarness) -> None:
    async def press() -> None:
        await harness.upstream.request(0)
        press_ctrl_c()

    harness.upstream.plan_answers([HANG])
    chat = harness.new()
    interrupt(lambda: chat.send("Count."), lambda: upstream_portal.run(press))
    assert chat.response_id is None
    harness.wait_for_disconnect()
    (stored,) = harness.response_ids()
    assert harness.response(stored).status == "cancelled"


def test_ctrl_c_during_a_stream_cancels_the_turn(harness: ChatHarness) -> None:
    """As after close, the conversation continues from the received text."""

    async def press(service: TurnService) -> None:
        newest = (await response_ids_of_service(service))[0]
        turn = service.registry.get(newest)
        assert turn is not None
        for _ in range(1_000_000):
            if turn._event_waiters:  # the reader wants more than there is
                break
            await asyncio.sleep(0)
        press_ctrl_c()

    harness.upstream.plan_answers(unfinished_answer())
    chat = harness.new()
    deltas = chat.stream("Count.")
    assert next(deltas) == "One "
    interrupt(lambda: next(deltas), lambda: harness.service(press))
    harness.wait_for_disconnect()
    assert harness.response(chat.response_id).status == "cancelled"
    assert contents(chat.context()) == ["Count.", "One "]


STREAM_HELD_AT_EXIT = """
import sys
from antiphon import Conversation, Settings
from antiphon.settings import ModelSettings

models = {"m": ModelSettings(kind="chat_completions", base_url=sys.argv[2])}
chat = Conversation(settings=Settings(store=sys.argv[1], model="m", models=models))

class Holder:
    pass

holder = Holder()
holder.itself = holder  # only found when the interpreter tidies up
holder.deltas = chat.stream("Count.")
print(next(holder.deltas))
"""


def test_program_exit_during_a_stream_stores_the_turn_as_interrupted(harness: ChatHarness) -> None:
    harness.upstream.plan_answers(unfinished_answer())
    assert run_script(STREAM_HELD_AT_EXIT, harness.settings.store, harness.upstream.base_url) == (
        "One \n",
        "",
    )
    (stored,) = harness.response_ids()
    response = harness.response(stored)
    assert response.end is not None
    assert response.end.error is not None
    assert (response.status, response.end.error.code) == ("failed", "interrupted")
    assert contents(harness.resume(stored).context()) == ["Count.", "One "]


CALLS_AT_EXIT = """
import atexit, sys
from antiphon import Conversation, InvalidRequestError, Settings
from antiphon.settings import ModelSettings

settings = Settings(store=sys.argv[1], model="m", models={"m": ModelSettings(kind="scripted")})
chat = Conversation(settings=settings)

def late():
    for work in (lambda: chat.send("And?"), lambda: list(chat.stream("And?")), chat.items):
        try:
            work()
        except InvalidRequestError as error:
            print(error.code, error.message)

atexit.register(late)  # called last: after antiphon's own
chat.send("Hi.")
"""


def test_calls_at_interpreter_exit_are_refused(harness: ChatHarness) -> None:
    line = "process_over The interpreter is ending: no turn can begin any more.\n"
    assert run_script(CALLS_AT_EXIT, harness.settings.store) == (line * 3, "")
    assert len(harness.response_ids()) == 1


AFTER_THE_MAIN_THREAD = """
import sys, threading
from antiphon import Conversation, Settings
from antiphon.settings import ModelSettings

settings = Settings(store=sys.argv[1], model="m", models={"m": ModelSettings(kind="scripted")})

def work():
    threading.main_thread().join()
    chat = Conversation(settings=settings)
    chat.send("Hi.")
    chat = Conversation.resume(chat.response_id, settings=settings)
    print(len(list(chat.stream("What is this?", images=[sys.argv[2]]))) > 1, len(chat.messages()))
    print(Conversation.search_chats("this", settings=settings)[0].response_id == chat.response_id)

if sys.argv[3] == "begun":
    Conversation(settings=settings).send("Hi.")
threading.Thread(target=work).start()
"""


@pytest.mark.parametrize("begun", ["begun", "not begun"])
def test_threads_go_on_after_the_main_thread_has_ended(
    harness: ChatHarness, tmp_path: Path, begun: str
) -> None:
    """As bots do that only start their threads: Python's own pools take no more work by then."""
    picture = tmp_path / "red.png"
    picture.write_bytes(png())
    output = run_script(AFTER_THE_MAIN_THREAD, harness.settings.store, str(picture), begun)
    assert output == ("True 4\nTrue\n", "")
