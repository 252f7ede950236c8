"""Reads of conversations in PostgreSQL: each as it stands, with its head moved on."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import msgspec

from antiphon.core.ids import conversation_id_of, conversation_key, response_id_of
from antiphon.core.turns import ConversationRecord
from antiphon.stores.conflict_errors import conversation_moved, conversation_not_found
from antiphon.stores.postgres.reader import NO_CUTOFF, PageRequest, has_expired
from antiphon.stores.postgres.rows import TurnKey
from antiphon.stores.postgres.sql_files import read_queries
from antiphon.turn.store_protocols import unknown_cursor

if TYPE_CHECKING:
    from antiphon.stores.postgres.connection import Connection

CONVERSATION_SQL: Final = read_queries("conversations.sql")
_LIST_STEP: Final = 50
_decode_metadata = msgspec.json.Decoder(dict[str, str]).decode
#: Statuses of a turn that becomes its conversation's head.
_SUCCESS_STATUSES: Final = {"completed", "incomplete"}


class _Status(msgspec.Struct, frozen=True):
    """The one field of an end that is needed here."""

    status: str


_decode_status = msgspec.json.Decoder(_Status).decode


async def resolve_conversation(
    connection: Connection, tenant: str, conversation_id: str, cutoff: float = NO_CUTOFF
) -> tuple[ConversationRecord | None, set[int]]:
    """The conversation as it stands, and the dead node that runs its active turn.

    None: there is none, or it has expired.
    """
    key = conversation_key(conversation_id)
    row = await connection.fetchrow(CONVERSATION_SQL["get"], tenant, key)
    return await _resolve_row(connection, row, tenant, cutoff) if row else (None, set())


async def check_head_unchanged(
    connection: Connection, tenant: str, seen: ConversationRecord, cutoff: float
) -> None:
    """Hold a conversation, and raise where its head or active turn has changed since."""
    key = conversation_key(seen.id)
    await connection.fetch(CONVERSATION_SQL["hold"], tenant, key)
    now, _ = await resolve_conversation(connection, tenant, seen.id, cutoff)
    if now is None:
        raise conversation_not_found(seen.id, "conversation")
    if now.active_response_id is not None or now.head != seen.head:
        raise conversation_moved(seen.id)


async def list_conversations(
    connection: Connection,
    tenant: str,
    page: PageRequest,
    cutoff: float,
) -> tuple[list[ConversationRecord], set[int]]:
    """Conversations by creation time. Raises ``InvalidRequestError`` for an unknown ``after``."""
    limit, after, newest_first = page.limit, page.after, page.newest_first
    start: tuple[float, bytes] = (math.inf, b"") if newest_first else (-math.inf, b"")
    if after is not None:
        key = conversation_key(after)
        created_at = await connection.fetchval(CONVERSATION_SQL["created_at"], tenant, key)
        if key is None or created_at is None:
            raise unknown_cursor(after)
        start = (created_at, key)
    query = CONVERSATION_SQL["backwards" if newest_first else "forwards"]
    found: list[ConversationRecord] = []
    dead: set[int] = set()
    more = True
    while more and len(found) < limit:
        rows = await connection.fetch(query, tenant, *start, _LIST_STEP)
        for row in rows:
            start = (row["created_at"], row["id"])
            conversation, nodes = await _resolve_row(connection, row, tenant, cutoff)
            if conversation is not None and len(found) < limit:
                found.append(conversation)
                dead |= nodes
        more = len(rows) == _LIST_STEP
    return found, dead


async def _resolve_row(
    connection: Connection, row: Any, tenant: str, cutoff: float
) -> tuple[ConversationRecord | None, set[int]]:
    head, active, dead = row["head"], row["active"], set[int]()
    is_alive = False
    if active is not None:
        if await _is_gone(connection, row, "active", cutoff):
            active = None
        else:
            is_alive = True
            if row["node"] is not None:
                if row["living"] is None:
                    dead.add(row["node"])
            elif _decode_status(row["ending"]).status in _SUCCESS_STATUSES:
                head, active = active, None
            else:
                active = None
    if head is not None and head == row["active"]:
        is_gone = False
    elif head is not None and row["head_timestamp"] is None:
        head, is_gone = await _nearest_living(connection, row, tenant, cutoff)
    else:
        is_gone = head is None or await _is_gone(connection, row, "head", cutoff)
    if is_gone:
        head = None
    if row["created_at"] <= cutoff and not is_alive and head is None:
        return None, set()
    conversation = ConversationRecord(
        conversation_id_of(row["id"]),
        row["created_at"],
        _decode_metadata(row["metadata"]),
        response_id_of(head) if head else None,
        response_id_of(active) if active else None,
    )
    return conversation, dead


async def _is_gone(connection: Connection, row: Any, which: str, cutoff: float) -> bool:
    """Whether a turn was erased or has expired.

    Its descendants are only looked at where its own timestamp does not keep it.
    """
    timestamp = row[f"{which}_timestamp"]
    if timestamp is None:
        return True
    if timestamp > cutoff:
        return False
    key = TurnKey(row[f"{which}_tree"], row[f"{which}_thread"], row[f"{which}_seq"])
    return await has_expired(connection, key, cutoff)


async def _nearest_living(
    connection: Connection, row: Any, tenant: str, cutoff: float
) -> tuple[bytes | None, bool]:
    """The nearest ancestor of an erased head that is not erased, and whether it has expired."""
    if row["head_tree"] is None:
        return None, True
    turn_key = (row["head_tree"], row["head_thread"], row["head_seq"])
    found = await connection.fetchrow(CONVERSATION_SQL["nearest_living"], *turn_key, tenant)
    if found is None:
        return None, True
    key = TurnKey(row["head_tree"], found["thread"], found["seq"])
    return found["key"], found["timestamp"] <= cutoff and await has_expired(connection, key, cutoff)
