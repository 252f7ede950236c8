"""Chat titler: has a model write the title of a chat, in the background.

It is an observer of turns: when the first one of a chat is answered, the model is asked. The call
is no turn: nothing of it is stored but the title, and its tokens are counted nowhere. Its words
are read after the family's epoch, and the store takes the title only while that is unchanged, so
that no word outlives its erasure in a title.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from typing import Final

from antiphon.core.chat_titles import single_line
from antiphon.core.items import Message, text_of
from antiphon.core.turns import Header, Response
from antiphon.errors import AntiphonError, ModelError, NotFoundError
from antiphon.turn.chat_protocols import ChatStore
from antiphon.turn.context_builder import ContextBuilder
from antiphon.turn.message_rendering import render_turn
from antiphon.turn.protocols import ModelProvider
from antiphon.turn.running_turns import RunningTurn
from antiphon.turn.store_protocols import is_answered
from antiphon.turn.turn_accumulator import TurnAccumulator
from antiphon.turn.turn_reader import TurnReader

log = logging.getLogger("antiphon")

_PROMPT: Final = (
    "Write a title for the conversation below: at most six words, in its language. Answer with"
    " the title alone, without quotation marks."
)
#: How much the model is shown of the question, and of the answer.
_MAX_EXCERPT: Final = 2000
_MAX_RUNNING: Final = 2
#: Chats that wait for a title; where more come at once, they keep their first words.
_MAX_WAITING: Final = 100
_TIME_LIMIT: Final = 60.0


class ChatTitler:
    """Titles chats by one model; a ``TurnObserver``."""

    def __init__(
        self, model: str, models: ModelProvider, reader: TurnReader, chats: ChatStore
    ) -> None:
        self._model = model
        self._models = models
        self._reader = reader
        self._chats = chats
        self._running = asyncio.Semaphore(_MAX_RUNNING)
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_closed = False

    def turn_started(self, turn: RunningTurn) -> None:
        """Nothing to do yet."""

    def turn_ended(self, turn: RunningTurn) -> None:
        response = turn.response
        if (
            response is None
            or not turn.is_stored
            or not is_answered(response.end)
            or not _excerpt(response)
            or self._is_closed
            or len(self._tasks) >= _MAX_WAITING
        ):
            return
        tenant = turn.request.tenant if turn.request is not None else None
        if tenant is None:
            return
        task = asyncio.get_running_loop().create_task(self._title_chat(tenant, response.id))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def wait(self) -> None:
        """Wait until no chat waits for a title."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def close(self) -> None:
        """Stop asking; chats without a title keep their first words."""
        self._is_closed = True
        for task in self._tasks:
            task.cancel()
        await self.wait()

    async def _title_chat(self, tenant: str, response_id: str) -> None:
        try:
            async with self._running, asyncio.timeout(_TIME_LIMIT):
                if await self._is_answered_before(tenant, response_id):
                    return
                head = await self._reader.head(tenant, response_id)
                if head is None:
                    return
                # Read after the head: what is erased from now on changes its epoch.
                words = _excerpt(await self._reader.response(tenant, response_id))
                title = await self._ask(words) if words else ""
                if title:
                    await self._chats.set_generated_title(head, title)
        except NotFoundError:
            pass  # erased meanwhile
        except (AntiphonError, TimeoutError) as error:
            reason = str(error) or "it took too long"
            log.warning("the model '%s' gave a chat no title: %s", self._model, reason)
        except Exception:
            # Nobody waits for this task, so that nobody else would say so.
            log.exception("a chat got no title")

    async def _is_answered_before(self, tenant: str, response_id: str) -> bool:
        before = await self._reader.previous(tenant, response_id)
        while before is not None:
            if is_answered(before.end):
                return True
            before = await self._reader.previous(tenant, before.response_id)
        return False

    async def _ask(self, words: str) -> str:
        name, model = self._models.get(self._model)
        header = Header(name)
        segment = render_turn([Message("user", f"{_PROMPT}\n\n{words}")])
        call = ContextBuilder(header, model, ()).model_call([segment], header, stream=False)
        machine = TurnAccumulator()
        async with aclosing(model.generate(call)) as batches:
            async for batch in batches:
                machine.feed(batch)
        if machine.finish_reason is None:
            raise ModelError("The model's title broke off before its end.")
        machine.close(is_complete=True)
        texts = [text_of(one.content) for one in machine.output if isinstance(one, Message)]
        return clean_title("".join(texts))


def clean_title(text: str) -> str:
    """A model's answer as a title: its first line, without quotation marks and Markdown. Pure."""
    lines = text.strip().splitlines()
    return single_line(lines[0].strip(" \t\"'“”„«»*#`") if lines else "")


def _excerpt(response: Response) -> str:
    """The beginnings of a turn's question and of its answer; "" where one of them has no words."""
    question = _words(response.input, "user")
    answer = _words(response.output, "assistant")
    return f"User: {question}\n\nAssistant: {answer}" if question and answer else ""


def _words(items: tuple[object, ...], role: str) -> str:
    found = (
        text_of(one.content).strip()
        for one in items
        if isinstance(one, Message) and one.role == role
    )
    return next(filter(None, found), "")[:_MAX_EXCERPT]
