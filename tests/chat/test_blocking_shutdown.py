"""How blocking conversations end: closed, interrupted by Ctrl-C, or with their program."""

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

from antiphon.core.turns import DEFAULT_TENANT
from antiphon.turn.service import TurnService
from support.chat_harness import ChatHarness, ModelAnswer, chat_harness, contents, upstream_portal
from support.misbehaving_upstream import HANG, chunk, events, stream


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[ChatHarness]:
    with chat_harness("blocking", tmp_path) as stage:
        yield stage


def counting() -> list[Any]:
    """An answer that begins and never ends."""
    return stream(*events(chunk(content="One ")), end=HANG)


def ended(script: str, *arguments: str) -> tuple[str, str]:
    """What a program prints, and what it complains of."""
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


def interrupt(work: Callable[[], object], pressing: Callable[[], None]) -> None:
    """Do the work while someone presses Ctrl-C, which is heard."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    finger = threading.Thread(target=pressing)
    finger.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            work()
    finally:
        finger.join()
        signal.signal(signal.SIGINT, before)


def test_closing_a_stream_early_stops_the_answer_and_keeps_what_arrived(stage: ChatHarness) -> None:
    stage.upstream.plan_answers(counting(), ModelAnswer("Fine."))
    chat = stage.new()
    deltas = chat.stream("Count.")
    assert next(deltas) == "One "
    deltas.close()
    stage.wait_for_disconnect()
    assert stage.response(chat.response_id).status == "cancelled"
    assert contents(chat.context()) == ["Count.", "One "]
    chat.send("And?")
    assert contents(stage.sent_messages()) == ["Count.", "One ", "And?"]


def test_closing_a_stream_that_is_over_keeps_the_turn(stage: ChatHarness) -> None:
    """The model was faster than the reader: the turn ended before it was closed."""
    chat = stage.new()
    deltas = chat.stream("I am Alice.")
    assert next(deltas) == "Hel"
    over = stage.service(end_of_newest)
    deltas.close()
    assert chat.response_id == over
    assert contents(chat.context()) == ["I am Alice.", "Hello."]


async def end_of_newest(service: TurnService) -> str:
    """The id of the newest response, once it has ended."""
    (newest,) = await service.reader.recent_threads(DEFAULT_TENANT, 1)
    turn = service.registry.get(newest.response_id)
    if turn is not None:
        await turn.result()
    return newest.response_id


def test_ctrl_c_stops_an_answer_that_is_waited_for(stage: ChatHarness) -> None:
    async def press() -> None:
        await stage.upstream.request(0)
        press_ctrl_c()

    stage.upstream.plan_answers([HANG])
    chat = stage.new()
    interrupt(lambda: chat.send("Count."), lambda: upstream_portal.run(press))
    assert chat.response_id is None
    stage.wait_for_disconnect()
    (kept,) = stage.recent()
    assert stage.response(kept.response_id).status == "cancelled"


def test_ctrl_c_stops_an_answer_that_is_read(stage: ChatHarness) -> None:
    """As when the stream is closed: the conversation goes on from what was heard."""

    async def press(service: TurnService) -> None:
        (newest,) = await service.reader.recent_threads(DEFAULT_TENANT, 1)
        turn = service.registry.get(newest.response_id)
        assert turn is not None
        for _ in range(1_000_000):
            if turn._event_waiters:  # the reader wants more than there is
                break
            await asyncio.sleep(0)
        press_ctrl_c()

    stage.upstream.plan_answers(counting())
    chat = stage.new()
    deltas = chat.stream("Count.")
    assert next(deltas) == "One "
    interrupt(lambda: next(deltas), lambda: stage.service(press))
    stage.wait_for_disconnect()
    assert stage.response(chat.response_id).status == "cancelled"
    assert contents(chat.context()) == ["Count.", "One "]


HELD = """
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


def test_a_program_that_ends_amid_an_answer_ends_and_keeps_what_arrived(stage: ChatHarness) -> None:
    stage.upstream.plan_answers(counting())
    assert ended(HELD, stage.settings.store, stage.upstream.base_url) == ("One \n", "")
    (kept,) = stage.recent()
    response = stage.response(kept.response_id)
    assert response.end is not None
    assert response.end.error is not None
    assert (response.status, response.end.error.code) == ("failed", "interrupted")
    assert contents(stage.resume(kept.response_id).context()) == ["Count.", "One "]


LATE = """
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


def test_after_the_programs_end_nothing_begins_any_more(stage: ChatHarness) -> None:
    line = "process_over The interpreter is ending: no turn can begin any more.\n"
    assert ended(LATE, stage.settings.store) == (line * 3, "")
    assert len(stage.recent()) == 1
