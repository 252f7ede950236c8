"""Waiting calls: those in stored chats that wait for a person's decision."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from antiphon.core.items import FunctionCall
from antiphon.core.turns import DEFAULT_TENANT
from antiphon.turn.turn_reader import response_of

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
        response = response_of(turn, with_images=False)
        waiting = set(response.end.approvals if response.end else ())
        found += [
            WaitingCall(call, response.id, response.created_at, chat.title)
            for call in response.open_calls
            if call.call_id in waiting
        ]
    return found
