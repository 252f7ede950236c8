"""The old Chat SDK's API: its programs run, and their conversations are stored."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from signal import SIGINT
from typing import Any

import pytest

from antiphon import AsyncConversation, InvalidRequestError, ModelError, Settings
from antiphon.compat.chat_sdk import Client, Conversation, StatelessResponse
from antiphon.settings import FUN_PROMPT, ModelSettings
from support.example_programs import (
    SEEDS,
    ProgramResult,
    ReplayUpstream,
    environment,
    error_reply,
    hanging_reply,
    replay_upstream,
    run_program,
    user_turns,
)
from support.misbehaving_upstream import (
    CUT,
    HANG,
    MisbehavingUpstream,
    chunk,
    events,
    hello_answer,
    refuse,
    stream,
)
from support.pseudo_terminal import CTRL_C, Terminal

HUMAN, ASSISTANT = StatelessResponse.Sender.HUMAN, StatelessResponse.Sender.ASSISTANT

LEAVING = """
import asyncio

import antiphon.compat.chat_sdk as xai_sdk


async def main():
    conversation = xai_sdk.Client().chat.create_conversation()
    token_stream, _ = conversation.add_response("Hi")
    async for token in token_stream:
        print(token)
        break


asyncio.run(main())
"""

Work = Callable[[MisbehavingUpstream, Client], Awaitable[None]]


def settings_for(folder: Path, base_url: str) -> Settings:
    model = ModelSettings(kind="chat_completions", base_url=base_url)
    return Settings(store=f"sqlite:{folder / 'turns.db'}", model="m", models={"m": model})


def run(folder: Path, work: Work, **options: Any) -> None:
    async def main() -> None:
        async with MisbehavingUpstream() as upstream:
            await work(
                upstream, Client(settings=settings_for(folder, upstream.base_url), **options)
            )

    asyncio.run(asyncio.wait_for(main(), 20))


def stored_texts(conversation: Conversation) -> list[tuple[StatelessResponse.Sender, str]]:
    return [(one.sender, one.message) for one in conversation.history]


def sent_texts(upstream: MisbehavingUpstream, number: int = -1) -> list[tuple[str, str]]:
    messages = upstream.requests[number].json["messages"]
    return [(message["role"], message["content"]) for message in messages]


async def read(tokens: Any) -> str:
    return "".join([token async for token in tokens])


# The programs.


def ported_program(name: str, home: Path) -> Path:
    """A program as it was written, but for the import line."""
    written = (SEEDS / f"{name}.py.txt").read_text("utf-8")
    assert "\nimport xai_sdk\n" in written
    path = home / f"{name}.py"
    path.write_text(
        written.replace("\nimport xai_sdk\n", "\nimport antiphon.compat.chat_sdk as xai_sdk\n")
    )
    return path


def program(name: str, home: Path, upstream: ReplayUpstream, stdin: str) -> ProgramResult:
    return run_program([str(ported_program(name, home))], home, upstream, stdin)


@pytest.mark.parametrize("name", ["simple_chat", "simple_chat_no_stream"])
def test_old_program_runs_unchanged(name: str, tmp_path: Path) -> None:
    with replay_upstream("Hello Alice!", "Your name is Alice.") as upstream:
        ran = program(name, tmp_path, upstream, "My name is Alice.\nWhat's my name?\n\n")
        assert upstream.sent_messages() == [
            {"role": "user", "content": "My name is Alice."},
            {"role": "assistant", "content": "Hello Alice!"},
            {"role": "user", "content": "What's my name?"},
        ]
    answers = "Human: \nGrok: Hello Alice!\n\nHuman: \nGrok: Your name is Alice.\n\nHuman: \n"
    assert ran == ProgramResult(0, f"Enter an empty message to quit.\n\n{answers}", "")


def test_program_that_ignores_its_future_continues_after_a_failure(tmp_path: Path) -> None:
    with replay_upstream("Hello!", error_reply("Out of order."), "Here I am.") as upstream:
        ran = program("simple_chat", tmp_path, upstream, "Hi\nAnyone?\nAnyone?\n\n")
        assert [one["content"] for one in upstream.sent_messages()] == ["Hi", "Hello!", "Anyone?"]
    assert ran.code == 0
    assert ran.out.endswith("Grok: \n\nHuman: \nGrok: Here I am.\n\nHuman: \n")
    # The event loop's own way of telling that nobody asked what went wrong.
    assert "Out of order." in ran.err


# The API.


def test_answer_as_a_stream_and_as_a_future(tmp_path: Path) -> None:
    async def work(upstream: MisbehavingUpstream, client: Client) -> None:
        conversation = client.chat.create_conversation()
        tokens, future = conversation.add_response("Hi")
        assert stored_texts(conversation) == [(HUMAN, "Hi")]
        assert await anext(tokens) == "Hel"
        assert not future.done()
        assert await read(tokens) == "lo."
        answer = await future
        assert answer == StatelessResponse(ASSISTANT, "Hello.", "")
        assert answer is conversation.history[-1]
        assert (await conversation.add_response_no_stream("More")).message == "Hello."
        hi, more = [(HUMAN, "Hi"), (ASSISTANT, "Hello.")], [(HUMAN, "More"), (ASSISTANT, "Hello.")]
        assert stored_texts(conversation) == hi + more
        assert sent_texts(upstream) == [("user", "Hi"), ("assistant", "Hello."), ("user", "More")]
        assert not conversation.fun_mode

    run(tmp_path, work)


def test_no_request_before_the_stream_is_used(tmp_path: Path) -> None:
    async def work(upstream: MisbehavingUpstream, client: Client) -> None:
        conversation = client.chat.create_conversation()
        unused, future = conversation.add_response("Later")
        await conversation.add_response_no_stream("Now")
        assert sent_texts(upstream) == [("user", "Now")]
        assert not future.done()
        assert stored_texts(conversation) == [
            (HUMAN, "Now"),
            (ASSISTANT, "Hello."),
            (HUMAN, "Later"),
        ]
        await read(unused)
        assert sent_texts(upstream)[-1] == ("user", "Later")
        assert stored_texts(conversation)[-2:] == [(HUMAN, "Later"), (ASSISTANT, "Hello.")]

    run(tmp_path, work)


@pytest.mark.parametrize(
    ("behaviour", "kind"),
    [
        (refuse(400, {"error": {"message": "I will not."}}), InvalidRequestError),
        (stream(*events(chunk(content="Hel")), end=CUT), ModelError),
    ],
    ids=["refused", "cut"],
)
def test_failed_turn_does_not_move_the_conversation(
    behaviour: Any, kind: type[Exception], tmp_path: Path
) -> None:
    async def work(upstream: MisbehavingUpstream, client: Client) -> None:
        conversation = client.chat.create_conversation()
        await conversation.add_response_no_stream("Hi")
        before = conversation.response_id
        upstream.then(behaviour)
        tokens, future = conversation.add_response("More")
        # The stream just ends.
        await read(tokens)
        with pytest.raises((InvalidRequestError, ModelError)):
            await future
        assert conversation.response_id == before
        assert stored_texts(conversation) == [(HUMAN, "Hi"), (ASSISTANT, "Hello.")]
        upstream.then(behaviour)
        with pytest.raises((InvalidRequestError, ModelError)):
            await conversation.add_response_no_stream("More")
        await conversation.add_response_no_stream("More")
        assert sent_texts(upstream) == [("user", "Hi"), ("assistant", "Hello."), ("user", "More")]
        assert len(conversation.history) == 4

    run(tmp_path, work)


@pytest.mark.parametrize("given", [None, "Tell jokes."])
def test_fun_mode_prompt(given: str | None, tmp_path: Path) -> None:
    async def work(upstream: MisbehavingUpstream, client: Client) -> None:
        conversation = client.chat.create_conversation(fun_mode=True)
        assert conversation.fun_mode
        await conversation.add_response_no_stream("Hi")
        await conversation.add_response_no_stream("More")
        assert sent_texts(upstream)[:2] == [("system", given or FUN_PROMPT), ("user", "Hi")]
        assert len(conversation.history) == 4

    run(tmp_path, work, **({"fun_prompt": given} if given else {}))


def test_model_can_be_chosen(tmp_path: Path) -> None:
    async def work(upstream: MisbehavingUpstream, client: Client) -> None:
        await client.chat.create_conversation().add_response_no_stream("Hi")
        assert upstream.requests[-1].json["model"] == "m"

    run(tmp_path, work, model="m")


def test_conversation_is_resumed_by_id(tmp_path: Path) -> None:
    async def work(upstream: MisbehavingUpstream, client: Client) -> None:
        conversation = client.chat.create_conversation()
        assert conversation.response_id is None
        await conversation.add_response_no_stream("Hi")
        assert conversation.response_id is not None
        later = await AsyncConversation.resume(
            conversation.response_id, settings=settings_for(tmp_path, upstream.base_url)
        )
        assert await later.messages() == [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Hello."},
        ]

    run(tmp_path, work)


# Streams that are not read to their end.


def test_closing_a_stream_cancels_the_turn(tmp_path: Path) -> None:
    async def work(upstream: MisbehavingUpstream, client: Client) -> None:
        conversation = client.chat.create_conversation()
        upstream.then(stream(*events(chunk(content="Hel")), end=HANG))
        tokens, future = conversation.add_response("Hi")
        async for _ in tokens:
            break
        await tokens.aclose()
        await upstream.requests[0].disconnected.wait()
        assert (await future).message == "Hel"
        assert stored_texts(conversation) == [(HUMAN, "Hi"), (ASSISTANT, "Hel")]
        await conversation.add_response_no_stream("More")
        assert sent_texts(upstream) == [("user", "Hi"), ("assistant", "Hel"), ("user", "More")]

    run(tmp_path, work)


def test_garbage_collected_stream_cancels_the_turn(tmp_path: Path) -> None:
    async def work(upstream: MisbehavingUpstream, client: Client) -> None:
        conversation = client.chat.create_conversation()
        upstream.then(stream(*events(chunk(content="Hel")), end=HANG))
        tokens, future = conversation.add_response("Hi")
        async for _ in tokens:
            break
        # As a program's next round does it.
        tokens, _ = conversation.add_response("More")
        assert await read(tokens) == "Hello."
        assert (await future).message == "Hel"
        assert sent_texts(upstream) == [("user", "Hi"), ("assistant", "Hel"), ("user", "More")]

    run(tmp_path, work)


def test_event_loop_end_during_an_answer(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def begin(conversation: Conversation) -> AsyncGenerator[str, None]:
        tokens, _ = conversation.add_response("Hi")
        assert await anext(tokens) == "Hel"
        return tokens

    with replay_upstream(hanging_reply("Hel"), "Hello.") as upstream:
        client = Client(settings=settings_for(tmp_path, upstream.base_url))
        conversation = client.chat.create_conversation()
        # Held, so that it is the loop that closes it.
        tokens = asyncio.run(begin(conversation))
        assert stored_texts(conversation) == [(HUMAN, "Hi"), (ASSISTANT, "Hel")]
        asyncio.run(conversation.add_response_no_stream("More"))
        assert user_turns(upstream.sent_messages()) == ["Hi", "More"]
    assert caplog.records == []
    del tokens


def test_program_exit_during_an_answer(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(LEAVING)
    with replay_upstream(hanging_reply("Hello, I")) as upstream:
        assert run_program(["program.py"], tmp_path, upstream) == ProgramResult(0, "Hello,\n", "")


def test_ctrl_c_during_an_answer(tmp_path: Path) -> None:
    path = ported_program("simple_chat", tmp_path)
    with (
        replay_upstream(hanging_reply("Hello, I")) as upstream,
        Terminal([str(path)], environment(tmp_path, upstream), tmp_path, is_script=True) as shell,
    ):
        shell.expect("Human: ")
        shell.type("Hi\n")
        shell.expect("Grok: Hello, I")
        shell.type(CTRL_C)
        assert shell.leave() == -SIGINT
        # As without us, and not a word about tasks, futures or sessions.
        assert shell.shown.endswith("\nKeyboardInterrupt\n")
        for noise in ("destroyed", "never", "nclosed", "generator"):
            assert noise not in shell.shown


def test_cancelled_reader(tmp_path: Path) -> None:
    async def work(upstream: MisbehavingUpstream, client: Client) -> None:
        conversation = client.chat.create_conversation()
        upstream.then(stream(*events(chunk(content="Hel")), end=HANG))
        reader = asyncio.create_task(conversation.add_response_no_stream("Hi"))
        await upstream.request(0)
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        # Whatever had arrived is said; the conversation goes on.
        assert stored_texts(conversation)[0] == (HUMAN, "Hi")
        await conversation.add_response_no_stream("More")
        assert sent_texts(upstream)[0] == ("user", "Hi")
        assert sent_texts(upstream)[-1] == ("user", "More")

    run(tmp_path, work)


def test_unawaited_future(tmp_path: Path) -> None:
    async def work(upstream: MisbehavingUpstream, client: Client) -> None:
        conversation = client.chat.create_conversation()
        for behaviour in (hello_answer(), refuse(400)):
            upstream.then(behaviour)
            tokens, future = conversation.add_response("Hi")
            future.cancel()
            await read(tokens)
        assert stored_texts(conversation) == [(HUMAN, "Hi"), (ASSISTANT, "Hello.")]

    run(tmp_path, work)


def test_concurrent_streams_run_in_sequence(tmp_path: Path) -> None:
    async def work(upstream: MisbehavingUpstream, client: Client) -> None:
        conversation = client.chat.create_conversation()
        one, _ = conversation.add_response("One")
        two, _ = conversation.add_response("Two")
        assert list(await asyncio.gather(read(one), read(two))) == ["Hello.", "Hello."]
        expected = [("user", "One"), ("assistant", "Hello."), ("user", "Two")]
        assert sent_texts(upstream) == expected
        spoken = [(HUMAN, "One"), (ASSISTANT, "Hello."), (HUMAN, "Two"), (ASSISTANT, "Hello.")]
        assert stored_texts(conversation) == spoken

    run(tmp_path, work)


def test_two_streams_read_alternately(tmp_path: Path) -> None:
    async def work(upstream: MisbehavingUpstream, client: Client) -> None:
        conversation = client.chat.create_conversation()
        one, _ = conversation.add_response("One")
        two, _ = conversation.add_response("Two")
        # One reader for both: waiting for the second must not keep the first from its end.
        assert [await anext(one), await anext(two), await anext(one)] == ["Hel", "Hel", "lo."]
        assert await read(two) == "lo."
        assert await read(one) == ""

    run(tmp_path, work)


def test_stream_closed_before_its_turn(tmp_path: Path) -> None:
    async def work(upstream: MisbehavingUpstream, client: Client) -> None:
        conversation = client.chat.create_conversation()
        upstream.then(stream(*events(chunk(content="Hel")), end=HANG))
        one, _ = conversation.add_response("One")
        two, future = conversation.add_response("Two")
        assert await anext(one) == "Hel"
        reader = asyncio.create_task(read(two))
        await asyncio.sleep(0)
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        assert future.cancelled()
        await one.aclose()
        assert stored_texts(conversation) == [(HUMAN, "One"), (ASSISTANT, "Hel")]
        assert len(upstream.requests) == 1

    run(tmp_path, work)


def test_conversation_used_in_two_event_loops(tmp_path: Path) -> None:
    made: list[Conversation] = []
    with replay_upstream("One.", "Two.") as upstream:
        settings = settings_for(tmp_path, upstream.base_url)
        # Made where no loop runs.
        made.append(Client(settings=settings).chat.create_conversation())
        for text, answer in (("Hi", "One."), ("More", "Two.")):
            got = asyncio.run(made[0].add_response_no_stream(text))
            assert got.message == answer
        assert [one["content"] for one in upstream.sent_messages()] == ["Hi", "One.", "More"]
