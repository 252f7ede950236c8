"""``Conversation`` and ``AsyncConversation``: the same methods, and a stored history."""

from __future__ import annotations

import ast
import asyncio
import inspect
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar, get_overloads

import pytest

from antiphon import (
    AsyncConversation,
    Conversation,
    InvalidRequestError,
    NotFoundError,
    Reply,
    Settings,
)
from antiphon.bootstrap import close_shared_engines, shared_engine
from antiphon.chat.blocking import portal as _portal
from antiphon.core.items import Message
from antiphon.core.turns import DEFAULT_TENANT, Response
from antiphon.errors import AntiphonError, ModelError
from antiphon.settings import ModelSettings
from support.chat_harness import set_event, upstream_portal
from support.misbehaving_upstream import (
    CUT,
    MisbehavingUpstream,
    chunk,
    completion,
    events,
    hello_answer,
    json_completion,
    refuse,
    stream,
)
from support.stored_responses import response_ids_of_service
from support.turn_service import assistant, run, user

T = TypeVar("T")


@pytest.fixture
def echo(tmp_path: Path) -> Iterator[Settings]:
    """Settings of a model that repeats its input, over a file."""
    yield settings_for(tmp_path, ModelSettings(kind="scripted"))
    _portal.run(close_shared_engines)


@pytest.fixture
def upstream() -> Iterator[MisbehavingUpstream]:
    upstream = MisbehavingUpstream()
    upstream_portal.run(upstream.__aenter__)
    yield upstream
    upstream_portal.run(lambda: upstream.__aexit__(None, None, None))


@pytest.fixture
def remote(tmp_path: Path, upstream: MisbehavingUpstream) -> Iterator[Settings]:
    """Settings of the misbehaving upstream, over a file."""
    yield settings_for(tmp_path, ModelSettings(kind="chat_completions", base_url=upstream.base_url))
    _portal.run(close_shared_engines)


def settings_for(folder: Path, model: ModelSettings) -> Settings:
    return Settings(store=f"sqlite:{folder / 'turns.db'}", model="m", models={"m": model})


def from_service(settings: Settings, ask: Callable[[Any], Coroutine[Any, Any, T]]) -> T:
    """The result of a function of the service behind ``Conversation``."""

    async def call_service() -> T:
        return await ask((await shared_engine(settings)).service)

    return _portal.run(call_service)


def response_of(settings: Settings, response_id: str | None) -> Response:
    assert response_id is not None
    response: Response = from_service(
        settings, lambda service: service.reader.response(DEFAULT_TENANT, response_id)
    )
    return response


def sent(upstream: MisbehavingUpstream, number: int = -1) -> list[Any]:
    """The message contents that the upstream was sent."""
    return [message["content"] for message in upstream.requests[number].json["messages"]]


# The blocking and the async class.


def public(kind: type) -> dict[str, Any]:
    names = {name for name in vars(kind) if not name.startswith("_")} | {"__init__"}
    return {name: inspect.getattr_static(kind, name) for name in names}


def test_blocking_and_async_classes_have_the_same_signatures() -> None:
    blocking_methods, async_methods = public(Conversation), public(AsyncConversation)
    assert set(blocking_methods) == set(async_methods)
    for name, method in async_methods.items():
        blocking_method = blocking_methods[name]
        if isinstance(method, property):
            assert isinstance(blocking_method, property)
            assert returned(blocking_method.fget) == returned(method.fget)
            continue
        assert isinstance(blocking_method, classmethod) == isinstance(method, classmethod)
        mine, other = getattr(Conversation, name), getattr(AsyncConversation, name)
        assert parameters(mine) == parameters(other)
        assert returned(mine) == returned(other)
        assert [parameters(one) for one in get_overloads(mine)] == [
            parameters(one) for one in get_overloads(other)
        ]
        assert name == "__init__" or (blocking_method.__doc__ or "").strip()


def parameters(method: Any) -> list[inspect.Parameter]:
    return list(inspect.signature(method).parameters.values())


def returned(method: Any) -> str:
    """A method's return annotation, without its async parts."""
    kind = str(inspect.signature(method).return_annotation).replace("Async", "")
    return kind.removeprefix("Awaitable[").removesuffix("]") if "Awaitable" in kind else kind


# History.


def test_conversation_sends_its_history(echo: Settings) -> None:
    chat = Conversation(instructions="Be brief.", settings=echo)
    assert chat.response_id is None
    assert chat.context() == [{"role": "system", "content": "Be brief."}]
    first = chat.send("I am Alice.")
    assert first.text == "You said: I am Alice.\n(I was shown 2 messages.)"
    assert (first.status, first.model) == ("completed", "m")
    assert first.response_id == chat.response_id
    assert first.usage is not None
    assert first.usage.input_tokens > 0
    parts = list(chat.stream("Who am I?"))
    assert len(parts) > 1
    assert "Before that you said: I am Alice." in "".join(parts)
    assert chat.response_id != first.response_id
    assert chat.context() == [
        {"role": "system", "content": "Be brief."},
        user("I am Alice."),
        assistant(first.text),
        user("Who am I?"),
        assistant("".join(parts)),
    ]
    assert Conversation(settings=echo).context() == []


def test_async_conversation_sends_its_history(tmp_path: Path) -> None:
    async def main() -> None:
        settings = settings_for(tmp_path, ModelSettings(kind="scripted"))
        chat = AsyncConversation(instructions="Be brief.", settings=settings)
        first = await chat.send("I am Alice.")
        parts = [part async for part in chat.stream("Who am I?")]
        assert "Before that you said: I am Alice." in "".join(parts)
        later = await AsyncConversation.resume(first.response_id, settings=settings)
        assert (later.model, later.instructions) == ("m", "Be brief.")
        assert later.response_id == first.response_id
        reply = await later.send("Another branch.")
        assert "(I was shown 4 messages.)" in reply.text
        assert len(await later.context()) == len(await chat.context()) == 5

    # Twice: each loop has its own engine, which is closed when the loop ends.
    run(main())
    run(main())


def test_conversation_is_resumed_in_another_process(echo: Settings) -> None:
    chat = Conversation(instructions="Be brief.", settings=echo)
    chat.send("I am Alice.")
    script = (
        "import sys\n"
        "from antiphon import Conversation, Settings\n"
        "from antiphon.settings import ModelSettings\n"
        "models = {'m': ModelSettings(kind='scripted')}\n"
        "settings = Settings(store=sys.argv[1], model='m', models=models)\n"
        "chat = Conversation.resume(sys.argv[2], settings=settings)\n"
        "print(chat.instructions, chat.send('Who am I?').response_id)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, echo.store, str(chat.response_id)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert ended.stderr == ""
    *instructions, response_id = ended.stdout.split()
    assert instructions == ["Be", "brief."]
    later = Conversation.resume(response_id, settings=echo)
    said = [message["content"] for message in later.context()]
    assert said[1] == "I am Alice."
    assert "Before that you said: I am Alice." in said[-1]


def test_resuming_an_unknown_response_is_an_error(echo: Settings) -> None:
    for wrong in ("resp_" + "0" * 32, "nonsense", ""):
        with pytest.raises(NotFoundError):
            Conversation.resume(wrong, settings=echo)


def test_resumed_conversation_keeps_options_and_can_change_model(
    echo: Settings,
) -> None:
    chat = Conversation(temperature=0.25, top_p=0.5, max_output_tokens=99, settings=echo)
    chat.send("Hello.")
    later = Conversation.resume(str(chat.response_id), settings=echo)
    later.send("And?")
    options = response_of(echo, later.response_id).header.options
    assert (options.temperature, options.top_p, options.max_output_tokens) == (0.25, 0.5, 99)
    other = Conversation.resume(str(chat.response_id), model="other", settings=echo)
    assert other.model == "other"
    with pytest.raises(NotFoundError):
        other.send("And?")


# Threads and event loops.


def test_conversations_in_many_threads_do_not_mix(echo: Settings) -> None:
    def send_messages(name: int) -> list[str]:
        chat = Conversation(settings=echo)
        for number in range(5):
            chat.send(f"{name} says {number}")
        return [message["content"] for message in chat.context()[::2]]

    with ThreadPoolExecutor(6) as pool:
        for name, said in enumerate(pool.map(send_messages, range(6))):
            assert said == [f"{name} says {number}" for number in range(5)]


def test_blocking_conversation_works_inside_a_running_loop(echo: Settings) -> None:
    async def main() -> None:
        chat = Conversation(settings=echo)
        chat.send("Hello.")
        assert "Before that you said: Hello." in "".join(chat.stream("And?"))

    run(main())


CELLS = [
    """
from antiphon import AsyncConversation, Conversation
chat = Conversation(settings=settings)
said = [chat.send("One.").text]
""",
    """
talk = chat.stream("Two.")
said.append(next(talk))
""",
    """
said.append("".join(talk))
other = AsyncConversation(settings=settings)
said.append((await other.send("Three.")).text)
""",
    """
async for part in other.stream("Four."):
    said.append(part)
back = Conversation.resume(other.response_id, settings=settings)
said.append(back.send("Five.").text)
""",
]


def test_conversations_work_in_notebook_cells(echo: Settings) -> None:
    """Cells run in sequence in one loop, which runs on between them; some await."""
    names: dict[str, Any] = {"settings": echo}

    async def run_cell(cell: str) -> None:
        code = compile(cell, "<cell>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        if (waiting := eval(code, names)) is not None:
            await waiting

    async def notebook() -> None:
        for cell in CELLS:
            await asyncio.create_task(run_cell(cell))
        await close_shared_engines()

    run(notebook())
    whole = "".join(names["said"])
    assert [
        word for word in ("One.", "Two.", "Three.", "Four.", "Five.") if word not in whole
    ] == []
    assert "Before that you said: Four." in names["said"][-1]
    assert len(names["back"].context()) == 6


# Failures.


def test_failed_turn_does_not_move_the_conversation(
    remote: Settings, upstream: MisbehavingUpstream
) -> None:
    upstream.then(completion("Hi."), refuse(400), refuse(400), completion("Fine."))
    chat = Conversation(settings=remote)
    head = chat.send("Hello.").response_id
    with pytest.raises(AntiphonError) as caught:
        chat.send("And?")
    assert chat.response_id == head
    failed = response_of(remote, caught.value.response_id)
    assert (failed.status, failed.previous_response_id) == ("failed", head)
    with pytest.raises(AntiphonError):
        list(chat.stream("And?"))
    assert chat.response_id == head
    assert chat.send("And?").text == "Fine."
    assert sent(upstream) == ["Hello.", "Hi.", "And?"]
    assert len(chat.context()) == 4


def test_truncated_stream_raises_after_the_received_text(
    remote: Settings, upstream: MisbehavingUpstream
) -> None:
    received = asyncio.Event()
    upstream.then(stream(*events(chunk(content="Half")), received, end=CUT), hello_answer())
    chat = Conversation(settings=remote)
    deltas = chat.stream("Hello.")
    assert next(deltas) == "Half"
    set_event(received)
    with pytest.raises(ModelError) as caught:
        next(deltas)
    assert chat.response_id is None
    failed = response_of(remote, caught.value.response_id)
    assert failed.output == (Message("assistant", "Half", status="incomplete"),)
    assert "".join(chat.stream("Hello.")) == "Hello."
    assert sent(upstream) == ["Hello."]


def test_empty_and_invalid_input_is_refused(echo: Settings) -> None:
    chat = Conversation(settings=echo)
    nonsense: Any = 42
    for text, code in (("", "empty_input"), ("caf\udce9", "invalid_unicode"), (nonsense, None)):
        for say in (chat.send, lambda one: list(chat.stream(one))):
            with pytest.raises(InvalidRequestError) as caught:
                say(text)
            assert code is None or caught.value.code == code
    assert chat.response_id is None
    assert from_service(echo, response_ids_of_service) == []


def test_conversation_without_turns_cannot_be_resumed(echo: Settings) -> None:
    with pytest.raises(InvalidRequestError, match="no response_id") as caught:
        Conversation.resume(Conversation(settings=echo).response_id, settings=echo)
    assert caught.value.param == "response_id"


def test_answer_cut_at_the_token_limit_is_incomplete(
    remote: Settings, upstream: MisbehavingUpstream
) -> None:
    choice = {"index": 0, "message": {"role": "assistant", "content": "So"}}
    upstream.then(json_completion({"choices": [{**choice, "finish_reason": "length"}]}))
    chat = Conversation(max_output_tokens=1, settings=remote)
    reply = chat.send("Tell me all.")
    assert isinstance(reply, Reply)
    assert (reply.text, reply.status) == ("So", "incomplete")
    assert chat.response_id == reply.response_id, "it can be continued"
