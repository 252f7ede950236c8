"""Waiting calls: those in stored chats that wait for a person's decision, or for an output."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from antiphon.core.items import FunctionCall, FunctionCallOutput
from antiphon.core.turns import DEFAULT_TENANT, Response

if TYPE_CHECKING:
    from antiphon.bootstrap import Engine


class WaitingCall(msgspec.Struct, frozen=True):
    """A call that is open at the end of a chat; ``title`` is the chat's."""

    call: FunctionCall
    response_id: str
    created_at: float
    title: str | None


async def find_waiting_calls(engine: Engine) -> list[WaitingCall]:
    """The calls of all chats that wait for a person, the newest chat first."""
    found: list[WaitingCall] = []
    for chat, turn in await engine.stores.chats.waiting_turns(DEFAULT_TENANT):
        response = await engine.service.reader.response(DEFAULT_TENANT, turn.response_id)
        waiting = set(response.end.approvals if response.end else ())
        found += [
            WaitingCall(call, response.id, response.created_at, chat.title)
            for call in open_calls(response)
            if call.call_id in waiting
        ]
    return found


def open_calls(turn: Response) -> tuple[FunctionCall, ...]:
    """The calls of a turn that ended well and have no output."""
    waiting: dict[str, FunctionCall] = {}
    for item in (*turn.input, *turn.output) if turn.status == "completed" else ():
        if isinstance(item, FunctionCall):
            waiting[item.call_id] = item
        elif isinstance(item, FunctionCallOutput):
            waiting.pop(item.call_id, None)
    return tuple(waiting.values())
