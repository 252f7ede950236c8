"""Legacy Chat SDK: the API of xAI's first SDK over antiphon; only the import line changes.

    import antiphon.compat.chat_sdk as xai_sdk

    client = xai_sdk.Client()
    conversation = client.chat.create_conversation()
    token_stream, response = conversation.add_response("My name is Alice.")
    async for token in token_stream:
        print(token, end="", flush=True)
    print((await response).message)

What is new: every turn is stored. ``conversation.response_id`` finds it again, for
``AsyncConversation.resume``, for ``antiphon chat --from`` and for every other way in.

With ``Client(api_host="localhost:8081")`` a server takes the turns, over gRPC, as the SDK
did it: the whole conversation is sent each time, and nothing is stored.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from enum import IntEnum
from functools import partial
from typing import ClassVar, Protocol

import msgspec

from antiphon.chat.conversation import AsyncConversation
from antiphon.core.secrets import Secret
from antiphon.errors import ConfigError
from antiphon.settings import Settings, load_settings


class StatelessResponse(msgspec.Struct, frozen=True):
    """One thing said. ``query`` is kept for programs that read it, and is always empty."""

    class Sender(IntEnum):
        """Who said it."""

        HUMAN = 1
        ASSISTANT = 2

    HUMAN: ClassVar[Sender] = Sender.HUMAN
    ASSISTANT: ClassVar[Sender] = Sender.ASSISTANT

    sender: Sender
    message: str
    query: str = ""


class Client:
    """Makes conversations. ``model`` None is the default one.

    ``api_host`` None: the turns are taken in this process. Then ``settings`` None are those of file
    and environment, as on the command line, and ``fun_prompt`` is the system prompt of fun mode,
    None: that of the settings.

    Otherwise ``api_host`` is where antiphon listens for gRPC, as ``host:port``, and ``api_key`` a
    key of it, which no variable stands in for: nothing is sent that was not meant for that host.
    The host is asked by TLS unless it is this machine or ``use_insecure_channel`` says otherwise.
    Raises ``ConfigError``.
    """

    def __init__(  # noqa: PLR0913 - that SDK's names, and ours
        self,
        api_key: str | None = None,
        *,
        api_host: str | None = None,
        use_insecure_channel: bool = False,
        settings: Settings | None = None,
        model: str | None = None,
        fun_prompt: str | None = None,
    ) -> None:
        if api_host is None:
            self.chat = AsyncChat(partial(_LocalBackend.create, settings, model, fun_prompt))
            return
        if settings is not None or fun_prompt is not None:
            raise ConfigError("with api_host, settings and fun_prompt are the server's to have")
        try:
            from antiphon.compat.remote import RemoteBackend, ServerAddress  # loaded on first use
        except ModuleNotFoundError as error:
            raise ConfigError("gRPC is not installed: `pip install 'antiphon[grpc]'`") from error
        key = Secret(api_key) if api_key else None
        host = ServerAddress(api_host, key, insecure=use_insecure_channel)
        self.chat = AsyncChat(partial(RemoteBackend, host, model or ""))


class TurnBackend(Protocol):
    """How one conversation's turns are taken."""

    @property
    def response_id(self) -> str | None:
        """That of the newest turn that was stored."""
        ...

    def stream_answer(self, messages: Sequence[StatelessResponse]) -> AsyncGenerator[str, None]:
        """The answer to the last of what was told. Raises ``AntiphonError``."""
        ...


class _LocalBackend:
    """In this process."""

    def __init__(self, chat: AsyncConversation) -> None:
        self._chat = chat

    @classmethod
    def create(
        cls, settings: Settings | None, model: str | None, fun_prompt: str | None, fun_mode: bool
    ) -> _LocalBackend:
        settings = settings or load_settings()
        instructions = (fun_prompt or settings.fun_prompt) if fun_mode else None
        return cls(AsyncConversation(model, instructions=instructions, settings=settings))

    @property
    def response_id(self) -> str | None:
        return self._chat.response_id

    async def stream_answer(
        self, messages: Sequence[StatelessResponse]
    ) -> AsyncGenerator[str, None]:
        async with self._chat.stream(messages[-1].message) as stream:
            async for token in stream:
                yield token


class AsyncChat:
    """What ``client.chat`` is."""

    def __init__(self, create_backend: Callable[[bool], TurnBackend]) -> None:
        self._create_backend = create_backend

    def create_conversation(self, fun_mode: bool = False) -> Conversation:
        """A new, empty conversation."""
        return Conversation(self._create_backend(fun_mode), fun_mode)


class Conversation:
    """A conversation, kept turn by turn. It takes one turn at a time; others wait for theirs."""

    def __init__(self, backend: TurnBackend, fun_mode: bool) -> None:
        self._backend = backend
        self._fun_mode = fun_mode
        self._turn_lock = asyncio.Lock()
        #: In the order in which the model was told.
        self._history: list[StatelessResponse] = []
        self._pending: list[StatelessResponse] = []

    @property
    def response_id(self) -> str | None:
        """The id of the newest stored turn, to go on from anywhere; None: nothing is stored."""
        return self._backend.response_id

    @property
    def history(self) -> Sequence[StatelessResponse]:
        """All messages, oldest first; at the end those whose stream has not been read yet."""
        return [*self._history, *self._pending]

    @property
    def fun_mode(self) -> bool:
        """Whether the conversation happens in fun mode."""
        return self._fun_mode

    def add_response(
        self, user_message: str
    ) -> tuple[AsyncGenerator[str, None], asyncio.Future[StatelessResponse]]:
        """Say something: the answer as a stream of text, and as a future.

        Nothing is sent before the stream is used. If the turn fails, the stream just ends,
        the future has the ``AntiphonError``, and the message leaves the history, so that
        adding it again doubles nothing. A stream that is closed half-way stops the answer:
        what arrived is the answer then. Needs a running event loop.
        """
        message = StatelessResponse(StatelessResponse.Sender.HUMAN, user_message)
        self._pending.append(message)
        future: asyncio.Future[StatelessResponse] = asyncio.get_running_loop().create_future()
        return self._stream_tokens(message, future), future

    async def add_response_no_stream(self, user_message: str) -> StatelessResponse:
        """Say something and wait for the whole answer. Raises ``AntiphonError``."""
        stream, future = self.add_response(user_message)
        async for _ in stream:
            pass
        return await future

    async def _stream_tokens(
        self, message: StatelessResponse, future: asyncio.Future[StatelessResponse]
    ) -> AsyncGenerator[str, None]:
        # The turn is read by a task of its own: whoever reads two streams in turns would
        # else wait for the first one's end, and be the one who has to read it.
        arrived: asyncio.Queue[str | None] = asyncio.Queue()
        task = asyncio.create_task(self._run_turn(message, arrived, future))
        try:
            while (token := await arrived.get()) is not None:
                yield token
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def _run_turn(
        self,
        message: StatelessResponse,
        arrived: asyncio.Queue[str | None],
        future: asyncio.Future[StatelessResponse],
    ) -> None:
        try:
            async with self._turn_lock:
                answer = await self._answer_message(message, arrived)
        except Exception as error:  # noqa: BLE001 - it is for whoever awaits the future
            if not future.done():
                future.set_exception(error)
        except asyncio.CancelledError:
            future.cancel()
            raise
        else:
            if not future.done():
                future.set_result(answer)
        finally:
            _remove(message, self._pending)
            arrived.put_nowait(None)

    async def _answer_message(
        self, message: StatelessResponse, arrived: asyncio.Queue[str | None]
    ) -> StatelessResponse:
        """One turn. Raises what made it fail, or that it was stopped before it began."""
        _remove(message, self._pending)
        self._history.append(message)
        before, text = self.response_id, ""
        try:
            async with aclosing(self._backend.stream_answer(self._history)) as stream:
                async for token in stream:
                    text += token
                    arrived.put_nowait(token)
        except asyncio.CancelledError:
            # Stopped while it was answered: the conversation may have moved on all the same.
            if not text and self.response_id == before:
                self._history.pop()
                raise
        except Exception:
            self._history.pop()
            raise
        answer = StatelessResponse(StatelessResponse.Sender.ASSISTANT, text)
        self._history.append(answer)
        return answer


def _remove(message: StatelessResponse, waiting: list[StatelessResponse]) -> None:
    """Take out this very message, not one with the same words."""
    waiting[:] = [one for one in waiting if one is not message]
