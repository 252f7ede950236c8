"""``Conversation`` and ``AsyncConversation``: the same thing, and it remembers."""

from __future__ import annotations

import asyncio
import inspect
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar, get_overloads

import pytest

from antiphon import AsyncConversation, Conversation, InvalidRequest, NotFound, Reply, Settings
from antiphon.assemble import close_shared, shared_engine
from antiphon.chat.blocking import portal as _portal
from antiphon.core.items import Message
from antiphon.core.turns import NOBODY, Response
from antiphon.errors import AntiphonError, ModelError
from antiphon.portal import Portal
from antiphon.settings import ModelSettings
from antiphon.turn.service import TurnService
from turn_kit import assistant, run, user
from upstream import (
    CUT,
    HANG,
    MisbehavingUpstream,
    chunk,
    completion,
    events,
    hello,
    refuse,
    stream,
    whole,
)

T = TypeVar("T")


@pytest.fixture
def echo(tmp_path: Path) -> Iterator[Settings]:
    """A model that repeats what it heard, over a file."""
    yield settings_for(tmp_path, ModelSettings(kind="scripted"))
    _portal.run(close_shared())


@pytest.fixture
def elsewhere() -> Portal:
    """A loop for the upstream, in a thread that is not the test's."""

    async def nothing() -> None:
        pass

    return Portal(nothing)


@pytest.fixture
def upstream(elsewhere: Portal) -> Iterator[MisbehavingUpstream]:
    upstream = MisbehavingUpstream()
    elsewhere.run(upstream.__aenter__())
    yield upstream
    elsewhere.run(upstream.__aexit__(None, None, None))


@pytest.fixture
def remote(tmp_path: Path, upstream: MisbehavingUpstream) -> Iterator[Settings]:
    """The misbehaving upstream, over a file."""
    yield settings_for(tmp_path, ModelSettings(kind="chat_completions", base_url=upstream.base_url))
    _portal.run(close_shared())


def settings_for(folder: Path, model: ModelSettings) -> Settings:
    return Settings(store=f"sqlite:{folder / 'turns.db'}", model="m", models={"m": model})


def stored(settings: Settings, ask: Callable[[Any], Coroutine[Any, Any, T]]) -> T:
    """What the service behind ``Conversation`` says."""

    async def look() -> T:
        return await ask((await shared_engine(settings)).service)

    return _portal.run(look())


def response_of(settings: Settings, response_id: str | None) -> Response:
    assert response_id is not None
    response: Response = stored(settings, lambda service: service.response(NOBODY, response_id))
    return response


def sent(upstream: MisbehavingUpstream, number: int = -1) -> list[Any]:
    """The contents that the upstream was shown."""
    return [message["content"] for message in upstream.requests[number].json["messages"]]


def press_ctrl_c() -> None:
    main = threading.main_thread().ident
    assert main is not None
    signal.pthread_kill(main, signal.SIGINT)


# The twins.


def public(kind: type) -> dict[str, Any]:
    names = {name for name in vars(kind) if not name.startswith("_")} | {"__init__"}
    return {name: inspect.getattr_static(kind, name) for name in names}


def test_the_twins_have_the_same_methods_and_arguments(echo: Settings) -> None:
    ours, theirs = public(Conversation), public(AsyncConversation)
    # What one has as a property the other may have as a plain attribute.
    attributes = set(vars(AsyncConversation(settings=echo)))
    assert set(ours) - attributes == set(theirs)
    for name, method in theirs.items():
        twin = ours[name]
        if isinstance(method, property):
            assert isinstance(twin, property)
            assert returned(twin.fget) == returned(method.fget)
            continue
        assert isinstance(twin, classmethod) == isinstance(method, classmethod)
        mine, other = getattr(Conversation, name), getattr(AsyncConversation, name)
        assert parameters(mine) == parameters(other)
        assert returned(mine) == returned(other)
        assert [parameters(one) for one in get_overloads(mine)] == [
            parameters(one) for one in get_overloads(other)
        ]
        assert name == "__init__" or (twin.__doc__ or "").strip()


def parameters(method: Any) -> list[inspect.Parameter]:
    return list(inspect.signature(method).parameters.values())


def returned(method: Any) -> str:
    """What a method gives, without what is only there because it is async."""
    kind = str(inspect.signature(method).return_annotation).replace("Async", "")
    return kind.removeprefix("Awaitable[").removesuffix("]") if "Awaitable" in kind else kind


# Remembering.


def test_a_conversation_goes_on(echo: Settings) -> None:
    chat = Conversation(instructions="Be brief.", settings=echo)
    assert chat.response_id is None
    assert chat.messages() == [{"role": "system", "content": "Be brief."}]
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
    assert chat.messages() == [
        {"role": "system", "content": "Be brief."},
        user("I am Alice."),
        assistant(first.text),
        user("Who am I?"),
        assistant("".join(parts)),
    ]
    assert Conversation(settings=echo).messages() == []


def test_the_async_twin_does_the_same(tmp_path: Path) -> None:
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
        assert len(await later.messages()) == len(await chat.messages()) == 5

    # Twice: each loop has an engine of its own, closed when the loop ends.
    run(main())
    run(main())


def test_a_conversation_is_resumed_in_another_process(echo: Settings) -> None:
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
    said = [message["content"] for message in later.messages()]
    assert said[1] == "I am Alice."
    assert "Before that you said: I am Alice." in said[-1]


def test_resuming_what_is_not_there_is_an_error(echo: Settings) -> None:
    for wrong in ("resp_" + "0" * 32, "nonsense", ""):
        with pytest.raises(NotFound):
            Conversation.resume(wrong, settings=echo)


def test_a_resumed_conversation_keeps_its_settings_but_may_change_its_model(
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
    with pytest.raises(NotFound):
        other.send("And?")


# Wherever it is called from.


def test_conversations_in_many_threads_do_not_mix(echo: Settings) -> None:
    def talk(name: int) -> list[str]:
        chat = Conversation(settings=echo)
        for number in range(5):
            chat.send(f"{name} says {number}")
        return [message["content"] for message in chat.messages()[::2]]

    with ThreadPoolExecutor(6) as pool:
        for name, said in enumerate(pool.map(talk, range(6))):
            assert said == [f"{name} says {number}" for number in range(5)]


def test_the_blocking_twin_works_inside_a_running_loop(echo: Settings) -> None:
    async def main() -> None:
        chat = Conversation(settings=echo)
        chat.send("Hello.")
        assert "Before that you said: Hello." in "".join(chat.stream("And?"))

    run(main())


# When it goes wrong.


def test_a_failed_turn_leaves_the_conversation_where_it_was(
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
    assert len(chat.messages()) == 4


def test_an_answer_that_breaks_off_is_an_error_after_what_arrived(
    remote: Settings, upstream: MisbehavingUpstream
) -> None:
    upstream.then(stream(*events(chunk(content="Half")), end=CUT), hello())
    chat = Conversation(settings=remote)
    deltas = chat.stream("Hello.")
    assert next(deltas) == "Half"
    with pytest.raises(ModelError) as caught:
        next(deltas)
    assert chat.response_id is None
    failed = response_of(remote, caught.value.response_id)
    assert failed.output == (Message("assistant", "Half", status="incomplete"),)
    assert "".join(chat.stream("Hello.")) == "Hello."
    assert sent(upstream) == ["Hello."]


def test_nothing_and_nonsense_are_refused(echo: Settings) -> None:
    chat = Conversation(settings=echo)
    nonsense: Any = 42
    for text, code in (("", "empty_input"), ("caf\udce9", "invalid_unicode"), (nonsense, None)):
        for say in (chat.send, lambda one: list(chat.stream(one))):
            with pytest.raises(InvalidRequest) as caught:
                say(text)
            assert code is None or caught.value.code == code
    assert chat.response_id is None
    assert stored(echo, lambda service: service.recent(NOBODY, 9)) == []


def test_an_answer_cut_at_its_limit_says_so(
    remote: Settings, upstream: MisbehavingUpstream
) -> None:
    choice = {"index": 0, "message": {"role": "assistant", "content": "So"}}
    upstream.then(whole({"choices": [{**choice, "finish_reason": "length"}]}))
    chat = Conversation(max_output_tokens=1, settings=remote)
    reply = chat.send("Tell me all.")
    assert isinstance(reply, Reply)
    assert (reply.text, reply.status) == ("So", "incomplete")
    assert chat.response_id == reply.response_id, "it can be continued"


# Stopping.


def test_closing_a_stream_early_stops_the_answer_and_keeps_what_arrived(
    remote: Settings, upstream: MisbehavingUpstream, elsewhere: Portal
) -> None:
    upstream.then(stream(*events(chunk(content="One ")), end=HANG))
    chat = Conversation(settings=remote)
    deltas = chat.stream("Count.")
    assert next(deltas) == "One "
    deltas.close()
    elsewhere.run(upstream.requests[0].gone.wait())
    response = response_of(remote, chat.response_id)
    assert response.status == "cancelled"
    assert [message["content"] for message in chat.messages()] == ["Count.", "One "]
    upstream.then(completion("Fine."))
    chat.send("And?")
    assert sent(upstream) == ["Count.", "One ", "And?"]


def test_closing_a_stream_that_is_over_keeps_the_turn(echo: Settings) -> None:
    """The model was faster than the reader: the turn ended before it was closed."""
    chat = Conversation(settings=echo)
    deltas = chat.stream("I am Alice.")
    assert next(deltas)
    ended = stored(echo, _ended)
    deltas.close()
    assert chat.response_id == ended
    assert "Before that you said: I am Alice." in chat.send("Who am I?").text


async def _ended(service: Any) -> str:
    """The id of the newest response, once it has ended."""
    (newest,) = await service.recent(NOBODY, 1)
    response_id: str = newest.response_id
    turn = service.running(response_id)
    if turn is not None:
        await turn.result()
    return response_id


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


def test_ctrl_c_stops_an_answer_that_is_waited_for(
    remote: Settings, upstream: MisbehavingUpstream, elsewhere: Portal
) -> None:
    async def press() -> None:
        await upstream.request(0)
        press_ctrl_c()

    upstream.then([HANG])
    chat = Conversation(settings=remote)
    interrupt(lambda: chat.send("Count."), lambda: elsewhere.run(press()))
    assert chat.response_id is None
    elsewhere.run(upstream.requests[0].gone.wait())
    (kept,) = stored(remote, lambda service: service.recent(NOBODY, 9))
    assert response_of(remote, kept.response_id).status == "cancelled"


def test_ctrl_c_stops_an_answer_that_is_read(
    remote: Settings, upstream: MisbehavingUpstream, elsewhere: Portal
) -> None:
    """As when the stream is closed: the conversation goes on from what was heard."""

    async def press(service: TurnService) -> None:
        (newest,) = await service.recent(NOBODY, 1)
        turn = service.running(newest.response_id)
        assert turn is not None
        for _ in range(1_000_000):
            if turn._waiting:  # the reader wants more than there is
                break
            await asyncio.sleep(0)
        press_ctrl_c()

    upstream.then(stream(*events(chunk(content="One ")), end=HANG))
    chat = Conversation(settings=remote)
    deltas = chat.stream("Count.")
    assert next(deltas) == "One "
    interrupt(lambda: next(deltas), lambda: stored(remote, press))
    elsewhere.run(upstream.requests[0].gone.wait())
    assert response_of(remote, chat.response_id).status == "cancelled"
    assert [message["content"] for message in chat.messages()] == ["Count.", "One "]


def test_a_task_that_is_cancelled_while_it_waits_cancels_the_turn(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        async with MisbehavingUpstream() as upstream:
            settings = settings_for(
                tmp_path, ModelSettings(kind="chat_completions", base_url=upstream.base_url)
            )
            upstream.then([HANG], completion("Fine."))
            chat = AsyncConversation(settings=settings)
            sending = asyncio.ensure_future(chat.send("Hello."))
            request = await upstream.request(0)
            sending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sending
            await request.gone.wait()
            assert chat.response_id is None
            assert (await chat.send("Hello.")).text == "Fine."
            assert sent(upstream) == ["Hello."]
            await close_shared()

    run(main())


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


def test_a_program_that_ends_amid_an_answer_ends_and_keeps_what_arrived(
    remote: Settings, upstream: MisbehavingUpstream
) -> None:
    upstream.then(stream(*events(chunk(content="One ")), end=HANG))
    ended = subprocess.run(
        [sys.executable, "-c", HELD, remote.store, upstream.base_url],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert (ended.stdout, ended.stderr) == ("One \n", "")
    (kept,) = stored(remote, lambda service: service.recent(NOBODY, 9))
    response = response_of(remote, kept.response_id)
    assert response.end is not None
    assert response.end.error is not None
    assert (response.status, response.end.error.code) == ("failed", "interrupted")
    later = Conversation.resume(kept.response_id, settings=remote)
    assert [message["content"] for message in later.messages()] == ["Count.", "One "]
