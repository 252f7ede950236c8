"""Chat session: a chain of turns that the next one continues, with its model and its tools.

Starts turns and moves the head; prints nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from antiphon.core.items import (
    FunctionCall,
    FunctionCallOutput,
    InputImage,
    InputText,
    Item,
    Message,
    text_of,
)
from antiphon.core.mcp_servers import McpServerRequest
from antiphon.core.turns import DEFAULT_TENANT, McpTool, Options, Response, TurnRequest
from antiphon.errors import AntiphonError, InvalidRequestError, ModelNotFoundError
from antiphon.turn.running_turns import RunningTurn
from antiphon.turn.service import TurnService
from antiphon.turn.store_protocols import Window

if TYPE_CHECKING:
    from antiphon.tools.toolbox import Toolbox

#: How long words gather before they are shown, in seconds: as smooth as a screen needs.
_GATHER_SECONDS = 0.045
_GO_ON = "Go on from where you stopped."
_DECLINED = "The user declined this call, so it was not run."


class ChatSession:
    """A chain of turns at a terminal.

    ``head`` is the id of the response that the next turn continues, None at first; a failed turn
    leaves it where it was, unless tools have run in it. ``model`` and ``instructions`` are those
    that were given here, or those of a chat that is gone on with, which go with it. ``images`` and
    ``attachments``, which are texts, go along with the next question. ``mcp_labels`` are servers of
    the configuration whose tools the model may call.
    """

    def __init__(
        self,
        service: TurnService,
        *,
        model: str,
        instructions: str | None = None,
        options: Options | None = None,
        head: str | None = None,
        toolbox: Toolbox | None = None,
        mcp_labels: Sequence[str] = (),
    ) -> None:
        self.service = service
        self.model = self._own_model = model
        self.instructions = self._own_instructions = instructions
        self.head = head
        self.images: list[InputImage] = []
        self.attachments: list[str] = []
        #: What went along with a question that has no answer yet.
        self._sent: tuple[list[InputImage], list[str]] = [], []
        #: Names of tools that run without asking, as long as this chat is open.
        self.approved_tools: set[str] = set()
        self.toolbox = toolbox
        self.mcp_labels = tuple(mcp_labels)
        self.options = options or Options()

    async def start(self, text: str) -> RunningTurn:
        """Start a turn that asks ``text``. Raises ``AntiphonError``."""
        check_encodable(text, self.instructions or "")
        text = "\n\n".join([text, *self.attachments])
        message = Message("user", (InputText(text), *self.images) if self.images else text)
        turn = await self._start((message,), self.head)
        self._sent = self.images, self.attachments
        self.images, self.attachments = [], []
        return turn

    async def start_edited(self, turn: Response, text: str) -> RunningTurn:
        """Start a turn beside ``turn``, with other words of the user; its images stay."""
        check_encodable(text)
        return await self._start(_with_user_text(turn.input, text), sibling=turn.id)

    async def start_again(self, turn: Response, model: str | None = None) -> RunningTurn:
        """Start a turn beside ``turn`` with the same input, for another answer."""
        name = self.service.models.get(model or self.model)[0]
        return await self._start(turn.input, sibling=turn.id, model=name)

    async def start_behind(self, turn: Response, model: str | None = None) -> RunningTurn:
        """Start a turn that goes on with what the tools of a failed one returned."""
        name = self.service.models.get(model or self.model)[0]
        # Not every model takes a context that ends with words of its own.
        has_words = not isinstance(turn.output[-1], FunctionCallOutput)
        items = (Message("user", _GO_ON),) if has_words else ()
        return await self._start(items, turn.id, model=name)

    def can_run(self, call: FunctionCall) -> bool:
        """Whether the tool of a call is here, and not only where the call was made."""
        if call.server is not None:
            return call.server in self.mcp_labels
        specs = self.toolbox.specs if self.toolbox else ()
        return any(spec.name == call.name for spec in specs)

    async def start_decided(self, decisions: Mapping[str, FunctionCall | str]) -> RunningTurn:
        """Start a turn that runs the calls that were agreed to, and says why others were not.

        Each open call by its id: the call to run, or the reason for the no.
        """
        approved = tuple(one for one in decisions.values() if isinstance(one, FunctionCall))
        declined = tuple(
            FunctionCallOutput(call_id, f"{_DECLINED} {one}".strip())
            for call_id, one in decisions.items()
            if isinstance(one, str)
        )
        request = msgspec.structs.replace(
            self.request(declined, self.head), approved_calls=approved, on_decided="refuse"
        )
        return await self.service.start(request, self.toolbox)

    def choose_model(self, name: str) -> None:
        """Have it answer from now on, in other chats too. Raises ``ModelNotFoundError``."""
        self.model = self._own_model = self.service.models.get(name)[0]

    def give_instructions(self, text: str) -> None:
        """Have them apply from now on, in other chats too."""
        self.instructions = self._own_instructions = text

    def leave_chat(self) -> None:
        """Begin another chat with the next question; each tool asks again."""
        self.head = None
        self.model, self.instructions = self._own_model, self._own_instructions
        self.approved_tools.clear()

    def enter_chat(
        self, turn: Response, *, keeps_model: bool = False, keeps_instructions: bool = False
    ) -> None:
        """Go on from a turn of another chat, by its model and its instructions.

        ``keeps_model``, ``keeps_instructions``: by those that were given here.
        """
        self.leave_chat()
        self.head = turn.id
        if not keeps_instructions:
            self.instructions = turn.header.instructions
        with suppress(ModelNotFoundError):  # It was taken out of the configuration since.
            if not keeps_model:
                self.model = self.service.models.get(turn.header.model)[0]

    def move_to(self, turn: RunningTurn) -> None:
        """Go on from a turn that has ended, unless it failed."""
        if turn.error is None:
            self.head = turn.response_id
            self._sent = [], []

    async def keep_results(self, turn: RunningTurn) -> bool:
        """Go on from a turn that failed, where tools have run in it: they do not run twice.

        Whether it is so.
        """
        try:
            stored = await self.service.reader.response(DEFAULT_TENANT, turn.response_id)
        except AntiphonError:
            return False  # nothing of it is stored
        if not has_results(stored):
            return False
        self.head = stored.id
        self._sent = [], []
        return True

    def take_back(self) -> None:
        """A turn failed: what went along with its question goes along with the next one."""
        images, attachments = self._sent
        self._sent = [], []
        self.images, self.attachments = [*images, *self.images], [*attachments, *self.attachments]

    async def turn(self, response_id: str | None = None) -> Response | None:
        """A turn, the newest by default; None: nothing was asked yet."""
        wanted = response_id or self.head
        if wanted is None:
            return None
        return await self.service.reader.response(DEFAULT_TENANT, wanted)

    async def last_turn(self) -> Response:
        """The newest turn. Raises ``InvalidRequestError`` before the first."""
        turn = await self.turn()
        if turn is None:
            raise InvalidRequestError("nothing has been asked yet")
        return turn

    async def skip_queued(self) -> Response | None:
        """The last turn, without those that another program has queued: they go on by themselves.

        None: nothing has begun.
        """
        last = await self.last_turn()
        while last.is_queued:
            before = await self.service.reader.previous(DEFAULT_TENANT, last.id)
            self.head = before.response_id if before else None
            if before is None:
                return None
            last = await self.last_turn()
        return last

    async def turns_since_question(self, turn: Response) -> list[Response]:
        """A turn, and those before it up to the one that asked: between are decisions on calls."""
        turns, reader = [turn], self.service.reader
        while not asks(turns[0]):
            before = await reader.previous(DEFAULT_TENANT, turns[0].id)
            if before is None:
                break
            turns.insert(0, await reader.response(DEFAULT_TENANT, before.response_id))
        return turns

    async def turn_with_results(self) -> Response | None:
        """The failed turn whose tools have run, and that has not been gone on with; or None."""
        turn = await self.last_turn()
        while turn.status == "failed" and not turn.input and not has_results(turn):
            # It was to go on with the one before, and failed as well.
            before = await self.service.reader.previous(DEFAULT_TENANT, turn.id)
            if before is None:
                return None
            turn = await self.service.reader.response(DEFAULT_TENANT, before.response_id)
        return turn if has_results(turn) else None

    async def newest_turns(self, limit: int) -> list[Response]:
        """At most so many turns, newest first: reading them costs the same in any chat."""
        if self.head is None:
            return []
        return await self.service.reader.window(DEFAULT_TENANT, self.head, Window(limit))

    async def open_calls(self) -> tuple[FunctionCall, ...]:
        """The calls of the newest turn that wait for a decision."""
        turn = await self.turn()
        return turn.open_calls if turn is not None else ()

    def request(self, items: Sequence[Item], parent: str | None) -> TurnRequest:
        """The request for a turn."""
        specs = self.toolbox.specs if self.toolbox else ()
        return TurnRequest(
            input=tuple(items),
            model=self.model,
            previous_response_id=parent,
            instructions=self.instructions,
            options=msgspec.structs.replace(
                self.options,
                tools=specs,
                mcp_servers=tuple(McpTool(label) for label in self.mcp_labels),
            ),
            mcp=tuple(McpServerRequest(label=label) for label in self.mcp_labels),
            stream=True,
            gather_seconds=_GATHER_SECONDS,
        )

    async def _start(
        self,
        items: Sequence[Item],
        parent: str | None = None,
        *,
        sibling: str | None = None,
        model: str | None = None,
    ) -> RunningTurn:
        request = msgspec.structs.replace(
            self.request(items, parent),
            model=model or self.model,
            sibling_of=sibling,
        )
        return await self.service.start(request, self.toolbox)


def has_results(turn: Response) -> bool:
    """Whether a turn failed after tools had run in it."""
    return turn.status == "failed" and any(
        isinstance(item, FunctionCallOutput) for item in turn.output
    )


def asks(turn: Response) -> bool:
    """Whether a turn has a question, and not only decisions on calls."""
    return any(isinstance(one, Message) and one.role == "user" for one in turn.input)


def user_text(items: Sequence[Item]) -> str:
    """What the user says in a turn."""
    messages = [one for one in items if isinstance(one, Message) and one.role == "user"]
    texts = [text_of(one.content) for one in messages]
    return "\n".join(text for text in texts if text).strip()


def answer_text(turn: Response) -> str:
    """What the model says in a turn."""
    messages = [one for one in turn.output if isinstance(one, Message)]
    return "\n\n".join(text_of(one.content) for one in messages if one.role == "assistant")


def check_encodable(*texts: str) -> None:
    """Bytes that are no text arrive as lone surrogates from a shell: no model can be sent those."""
    try:
        "".join(texts).encode()
    except UnicodeEncodeError as error:
        raise InvalidRequestError("what is asked is not valid text") from error


def _with_user_text(items: tuple[Item, ...], text: str) -> tuple[Item, ...]:
    for index in range(len(items) - 1, -1, -1):
        item = items[index]
        if isinstance(item, Message) and item.role == "user":
            parts = () if isinstance(item.content, str) else item.content
            images = tuple(part for part in parts if isinstance(part, InputImage))
            content = (InputText(text), *images) if images else text
            changed = msgspec.structs.replace(item, content=content)
            return (*items[:index], changed, *items[index + 1 :])
    return (*items, Message("user", text))
