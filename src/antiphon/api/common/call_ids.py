"""Call ids: tells the calls of an input apart, and finds those that outputs are for. Pure.

Some servers give all calls of an answer the same id, or none, and clients send that back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

import msgspec

from antiphon.core.items import FunctionCall, FunctionCallOutput, Item, open_calls


def find_open_call(items: Iterable[Item], name: str | None) -> str | None:
    """The call that an output without an id is for: the first that waits, of that name if any is.

    None: no call waits.
    """
    waiting = open_calls(items)
    call = next((one for one in waiting if one.name == name), next(iter(waiting), None))
    return call.call_id if call is not None else None


def distinguish_calls(items: Sequence[Item]) -> Sequence[Item]:
    """The items, where no two calls of one id wait for outputs at once: these come in order.

    The first call keeps its id, so what is decoded of a longer history begins the same.
    """
    renamed: list[Item] | None = None
    #: Where the calls are that wait, by their id, and whether another one waited before.
    waiting: dict[str, deque[tuple[int, bool]]] = {}
    for position, item in enumerate(items):
        if isinstance(item, FunctionCall):
            calls = waiting.setdefault(item.call_id, deque())
            calls.append((position, bool(calls)))
        elif isinstance(item, FunctionCallOutput) and waiting.get(item.call_id):
            called_at, is_second = waiting[item.call_id].popleft()
            if is_second:
                renamed = renamed if renamed is not None else list(items)
                call_id = f"{item.call_id}_{called_at}"
                for index in (called_at, position):
                    renamed[index] = msgspec.structs.replace(renamed[index], call_id=call_id)
    return items if renamed is None else renamed
