"""The old Chat SDK's surface, over antiphon: change the import line and nothing else.

    import antiphon.compat.chat_sdk as xai_sdk

    client = xai_sdk.Client()
    conversation = client.chat.create_conversation()
    token_stream, response = conversation.add_response("My name is Alice.")
    async for token in token_stream:
        print(token, end="", flush=True)
    print((await response).message)

What is new: every turn is stored. ``conversation.response_id`` finds it again, for
``AsyncConversation.resume``, for ``antiphon chat --from`` and for every other way in.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from enum import IntEnum
from typing import ClassVar

import msgspec

from antiphon.chat.conversation import AsyncConversation
from antiphon.settings import Settings

#: The system prompt of fun mode, where nobody gives another.
FUN_PROMPT = (
    "You are a witty companion. Be playful, tease a little, and never pass up a good joke, "
    "but answer what you are asked, and truthfully."
)


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
    """Makes conversations. ``model`` None is the settings' default.

    ``settings`` None: from file and environment, as on the command line. ``fun_prompt`` is
    the system prompt of fun mode. Raises ``ConfigError``.
    """

    def __init__(
        self,
        *,
        settings: Settings | None = None,
        model: str | None = None,
        fun_prompt: str = FUN_PROMPT,
    ) -> None:
        self.chat = AsyncChat(settings, model, fun_prompt)


class AsyncChat:
    """What ``client.chat`` is."""

    def __init__(self, settings: Settings | None, model: str | None, fun_prompt: str) -> None:
        self._settings = settings
        self._model = model
        self._fun_prompt = fun_prompt

    def create_conversation(self, fun_mode: bool = False) -> Conversation:
        """A new, empty conversation."""
        instructions = self._fun_prompt if fun_mode else None
        chat = AsyncConversation(self._model, instructions=instructions, settings=self._settings)
        return Conversation(chat, fun_mode)


class Conversation:
    """A conversation, kept turn by turn. It takes one turn at a time; others wait for theirs."""

    def __init__(self, chat: AsyncConversation, fun_mode: bool) -> None:
        self._chat = chat
        self._fun_mode = fun_mode
        self._turn = asyncio.Lock()
        #: In the order in which the model was told.
        self._told: list[StatelessResponse] = []
        self._waiting: list[StatelessResponse] = []

    @property
    def response_id(self) -> str | None:
        """The id of the newest stored turn, to go on from anywhere; None before the first."""
        return self._chat.response_id

    @property
    def history(self) -> Sequence[StatelessResponse]:
        """Everything said, oldest first; last of all what no stream has been used for yet."""
        return [*self._told, *self._waiting]

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
        said = StatelessResponse(StatelessResponse.Sender.HUMAN, user_message)
        self._waiting.append(said)
        future: asyncio.Future[StatelessResponse] = asyncio.get_running_loop().create_future()
        return self._tokens(said, future), future

    async def add_response_no_stream(self, user_message: str) -> StatelessResponse:
        """Say something and wait for the whole answer. Raises ``AntiphonError``."""
        stream, future = self.add_response(user_message)
        async for _ in stream:
            pass
        return await future

    async def _tokens(
        self, said: StatelessResponse, future: asyncio.Future[StatelessResponse]
    ) -> AsyncGenerator[str, None]:
        # The turn is read by a task of its own: whoever reads two streams in turns would
        # else wait for the first one's end, and be the one who has to read it.
        arrived: asyncio.Queue[str | None] = asyncio.Queue()
        task = asyncio.create_task(self._take_turn(said, arrived, future))
        try:
            while (token := await arrived.get()) is not None:
                yield token
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def _take_turn(
        self,
        said: StatelessResponse,
        arrived: asyncio.Queue[str | None],
        future: asyncio.Future[StatelessResponse],
    ) -> None:
        try:
            async with self._turn:
                answer = await self._answer(said, arrived)
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
            _remove(said, self._waiting)
            arrived.put_nowait(None)

    async def _answer(
        self, said: StatelessResponse, arrived: asyncio.Queue[str | None]
    ) -> StatelessResponse:
        """One turn. Raises what made it fail, or that it was stopped before it began."""
        _remove(said, self._waiting)
        self._told.append(said)
        before, text = self._chat.response_id, ""
        try:
            async with self._chat.stream(said.message) as stream:
                async for token in stream:
                    text += token
                    arrived.put_nowait(token)
        except asyncio.CancelledError:
            # Stopped while it was answered: the conversation has moved on all the same.
            if self._chat.response_id == before:
                self._told.pop()
                raise
        except Exception:
            self._told.pop()
            raise
        answer = StatelessResponse(StatelessResponse.Sender.ASSISTANT, text)
        self._told.append(answer)
        return answer


def _remove(said: StatelessResponse, waiting: list[StatelessResponse]) -> None:
    """Take out this very message, not one with the same words."""
    waiting[:] = [one for one in waiting if one is not said]
