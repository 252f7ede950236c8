"""Open calls: pairs the tool outputs of an input with the calls that wait for them. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from antiphon.core.foreign_items import function_views
from antiphon.core.items import (
    ForeignItem,
    FunctionCall,
    FunctionCallOutput,
    Item,
    McpApproval,
)
from antiphon.errors import ConflictError, InvalidRequestError
from antiphon.turn.message_rendering import RenderedTurn, are_messages

_encode = msgspec.json.Encoder().encode


def pair_tool_outputs(
    history: Sequence[RenderedTurn],
    items: Sequence[Item],
    approved_calls: Sequence[FunctionCall] = (),
) -> Sequence[Item]:
    """The items, without outputs of calls that have one already: some clients send all again.

    Every other output needs a call that still waits for one, and a completed turn's calls
    need their outputs before the conversation goes on; ``approved_calls`` get theirs in the turn
    itself. Raises ``InvalidRequestError``, and ``ConflictError`` for a second decision on a call.
    """
    if not (approved_calls or (history and history[-1].open_calls)) and are_messages(items):
        # Most turns: nothing waits for an output, and none comes.
        return items
    open_calls = _OpenCalls(history)
    repeated: set[int] = set()
    for position, (item, view) in enumerate(zip(items, function_views(items), strict=True)):
        if isinstance(view, FunctionCall):
            open_calls.add_call(view.call_id)
        elif isinstance(view, FunctionCallOutput) and not open_calls.add_output(view.call_id):
            if open_calls.is_answered(view.call_id):
                if _is_decision(item) and all(map(_is_decision, items)):
                    raise already_decided_error()
                repeated.add(position)
            elif not isinstance(item, ForeignItem):
                raise _not_waiting_error(view.call_id)
    for call in approved_calls:
        if not open_calls.add_output(call.call_id):
            is_decided = open_calls.is_answered(call.call_id)
            raise already_decided_error() if is_decided else _not_waiting_error(call.call_id)
    if open_calls.required:
        names = ", ".join(f"'{call_id}'" for call_id in open_calls.required)
        raise InvalidRequestError(
            f"No tool output found for the tool calls {names}: send one for each of them.",
            code="tool_output_missing",
            param="input",
        )
    if not repeated:
        return items
    return tuple(item for position, item in enumerate(items) if position not in repeated)


def _is_decision(item: Item) -> bool:
    """Whether an item is a person's word on a call, or the output that a refusal gives it."""
    return isinstance(item, McpApproval) or (
        isinstance(item, FunctionCallOutput) and item.approved_call is not None
    )


def already_decided_error(
    how: str = "approved or refused", what_now: str = "the conversation has gone on"
) -> ConflictError:
    """The error for a second decision on a call. Pure."""
    return ConflictError(
        f"This call was {how} already: {what_now}.", code="approval_already_decided", param="input"
    )


def _not_waiting_error(call_id: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"No tool call with id '{call_id}' is waiting for an output.",
        code="tool_call_not_found",
        param="input",
    )


class _OpenCalls:
    """Which calls wait for an output, and which must get one now."""

    def __init__(self, history: Sequence[RenderedTurn]) -> None:
        self._history = history
        parent = history[-1] if history else None
        self._open_ids = set(parent.open_calls) if parent else set()
        self.required = dict.fromkeys(parent.open_calls) if parent and parent.completed else {}
        self._new_ids: set[str] = set()
        self._answered_ids: set[str] = set()

    def add_call(self, call_id: str) -> None:
        if call_id in self._new_ids:
            raise InvalidRequestError(
                f"Two tool calls with the id '{call_id}' wait for an output at once.",
                code="tool_call_duplicate",
                param="input",
            )
        self._new_ids.add(call_id)
        self._open_ids.add(call_id)
        self.required[call_id] = None

    def add_output(self, call_id: str) -> bool:
        """Whether its call was waiting for it."""
        if call_id not in self._open_ids:
            return False
        self._open_ids.discard(call_id)
        self._new_ids.discard(call_id)
        self._answered_ids.add(call_id)
        self.required.pop(call_id, None)
        return True

    def is_answered(self, call_id: str) -> bool:
        """Whether a call with this id had its output before."""
        if call_id in self._answered_ids:
            return True
        # In a string every quote is escaped: nobody's words look like this.
        field = b'"tool_call_id":' + _encode(call_id)
        return any(call_id in turn.outputs or field in turn.messages for turn in self._history)
