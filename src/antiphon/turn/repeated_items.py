"""Repeated items: leaves out of an input what the chain that it continues has already.

Some clients send the items of earlier answers again, with their ids, although they also say what
the turn continues: without this a call would be made, and words said, twice. An item counts as
repeated where its id is that of an item of the chain which says the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from antiphon.core.ids import item_id, parse_item_id
from antiphon.core.items import FunctionCall, FunctionCallOutput, Item, Message, item_kind, text_of
from antiphon.core.turns import ItemReference, Response, TurnRequest
from antiphon.errors import NotFoundError
from antiphon.turn.store_protocols import Window
from antiphon.turn.turn_reader import TurnReader

#: How many turns are looked at, the newest first.
_MAX_TURNS: Final = 64


async def without_repeated_items(request: TurnRequest, reader: TurnReader) -> TurnRequest:
    """The request without the items, and references to items, that its chain has."""
    previous = request.previous_response_id
    named = (*request.item_ids, *request.references)
    if previous is None or not named:
        return request
    turns = await _turns_of_chain(request.tenant, previous, named, reader)
    if not turns:
        return request
    dropped = {
        one.position
        for one in request.item_ids
        if (known := _find_item(turns, one.id)) is not None
        and _says_the_same(known, request.input[one.position])
    }
    references = [one for one in request.references if _find_item(turns, one.id) is None]
    if not dropped and len(references) == len(request.references):
        return request
    items = [item for position, item in enumerate(request.input) if position not in dropped]
    moved = [
        msgspec.structs.replace(
            one, position=one.position - sum(position < one.position for position in dropped)
        )
        for one in references
    ]
    return msgspec.structs.replace(
        request, input=tuple(items), references=tuple(moved), item_ids=()
    )


async def _turns_of_chain(
    tenant: str, previous: str, named: Sequence[ItemReference], reader: TurnReader
) -> dict[str, Response]:
    """The turns of a response's chain that have a named item, by id."""
    found: dict[str, Response] = {}
    ids = dict.fromkeys(parsed[0] for one in reversed(named) if (parsed := parse_item_id(one.id)))
    try:
        for response_id in list(ids)[:_MAX_TURNS]:
            for turn in await reader.window(tenant, previous, Window(1, at=response_id)):
                found[turn.id] = turn
    except NotFoundError:
        # What the turn continues is not there: it is refused for that.
        return {}
    return found


def _find_item(turns: dict[str, Response], name: str) -> Item | None:
    parsed = parse_item_id(name)
    turn = turns.get(parsed[0]) if parsed else None
    if turn is None or parsed is None:
        return None
    items = (*turn.input, *turn.output)
    if parsed[1] >= len(items):
        return None
    item = items[parsed[1]]
    return item if name == item_id(turn.id, item_kind(item), parsed[1]) else None


def _says_the_same(known: Item, given: Item) -> bool:
    match known, given:
        case Message(), Message():
            return known.role == given.role and text_of(known.content) == text_of(given.content)
        case FunctionCall(), FunctionCall():
            return (known.call_id, known.name) == (given.call_id, given.name)
        case FunctionCallOutput(), FunctionCallOutput():
            return known.call_id == given.call_id
    return type(known) is type(given)
