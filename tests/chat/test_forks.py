"""Forked processes: what a child cannot use raises an error, and nothing hangs or is lost."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.chat_harness import ChatHarness, chat_harness, contents

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no process is forked there")

PRELUDE = r"""
import asyncio, os, sys, warnings
from antiphon import AntiphonError, AsyncConversation, Conversation, Settings
from antiphon.settings import ModelSettings

# Python 3.12 and newer warn of what these programs do on purpose.
multi_threaded = r"This process \(pid=\d+\) is multi-threaded, use of fork\(\)"
warnings.filterwarnings("ignore", multi_threaded, DeprecationWarning)

models = {"m": ModelSettings(kind="chat_completions", base_url=sys.argv[2])}
settings = Settings(store=sys.argv[1], model="m", models=models)

def attempt(name, work):
    try:
        print(name, work(), flush=True)
    except AntiphonError as error:
        print(name, type(error).__name__, error.code, "forked" in str(error), flush=True)

def in_child(*works, end=sys.exit):
    child = os.fork()
    if child == 0:
        for name, work in works:
            attempt(name, work)
        end(0)
    assert os.waitpid(child, 0)[1] == 0

async def say(chat, text):
    return (await chat.send(text)).text
"""


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[ChatHarness]:
    with chat_harness("blocking", tmp_path) as harness:
        yield harness


def run_script(harness: ChatHarness, script: str) -> list[str]:
    """Runs a program with the harness's store; returns the lines it prints."""
    ended = subprocess.run(
        [sys.executable, "-c", PRELUDE + script, harness.settings.store, harness.upstream.base_url],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.stderr, ended.returncode) == ("", 0)
    return ended.stdout.splitlines()


# Two ways to end a forked process: with its atexit handlers, and without.
@pytest.mark.parametrize("end", ["sys.exit", "os._exit"])
def test_forked_child_cannot_use_its_parents_conversations(harness: ChatHarness, end: str) -> None:
    script = f"""
chat = Conversation(settings=settings)
attempt("parent", lambda: chat.send("Hi.").text)
half_read = chat.stream("Count.")
next(half_read)
in_child(
    ("send", lambda: chat.send("From the child.")),
    ("stream", lambda: list(chat.stream("From the child."))),
    ("history", lambda: chat.messages()),
    ("new", lambda: Conversation(settings=settings).send("From the child.")),
    ("read on", lambda: next(half_read)),
    ("close", half_read.close),
    ("async", lambda: asyncio.run(say(AsyncConversation(settings=settings), "From the child."))),
    end={end},
)
print("".join(half_read))
attempt("parent", lambda: chat.send("Still there?").text)
"""
    error = "InvalidRequestError process_over True"
    assert run_script(harness, script) == [
        "parent Hello.",
        *(f"{name} {error}" for name in ("send", "stream", "history", "new", "read on")),
        "close None",
        "async ConfigError configuration_error True",
        "lo.",
        "parent Hello.",
    ]
    assert contents(harness.sent_messages()) == [
        "Hi.",
        "Hello.",
        "Count.",
        "Hello.",
        "Still there?",
    ]


@pytest.mark.slow
def test_forked_child_cannot_use_its_parents_event_loop(harness: ChatHarness) -> None:
    script = """
loop = asyncio.new_event_loop()
chat = AsyncConversation(settings=settings)
attempt("parent", lambda: loop.run_until_complete(say(chat, "Hi.")))
in_child(("child", lambda: loop.run_until_complete(say(chat, "From the child."))), end=os._exit)
attempt("parent", lambda: loop.run_until_complete(say(chat, "Still there?")))
loop.run_until_complete(loop.shutdown_asyncgens())
loop.close()
"""
    assert run_script(harness, script) == [
        *("parent Hello.", "child ConfigError configuration_error True", "parent Hello.")
    ]
    assert contents(harness.sent_messages()) == ["Hi.", "Hello.", "Still there?"]


def test_forked_child_can_start_conversations_if_the_parent_has_no_engine(
    harness: ChatHarness,
) -> None:
    script = """
early = Conversation(settings=settings)
in_child(("before", lambda: early.send("One.").text))
later = AsyncConversation(settings=settings)
attempt("parent", lambda: asyncio.run(say(later, "Two.")))
in_child(("after", lambda: asyncio.run(say(later, "Three."))))
in_child(("blocking", lambda: early.send("Four.").text))
attempt("parent", lambda: early.send("Five.").text)
"""
    assert run_script(harness, script) == [
        *("before Hello.", "parent Hello.", "after Hello.", "blocking Hello.", "parent Hello.")
    ]
    assert [
        contents(harness.sent_messages(number))[-1] for number in range(harness.request_count)
    ] == [*("One.", "Two.", "Three.", "Four.", "Five.")]
    assert len(harness.response_ids()) == 5, "each is stored"
