"""Reads of chains as a tree: windows, a turn's siblings and children, and what it continues."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import msgspec

from antiphon.core.ids import response_id_of, response_key
from antiphon.core.retention import Expiry
from antiphon.stores.conflict_errors import refuse_unseen
from antiphon.stores.postgres.chat_reader import CHAT_SQL, find_chat, read_summaries
from antiphon.stores.postgres.reader import (
    has_expired,
    key_of,
    latest_timestamp,
    read_head,
    read_turns,
)
from antiphon.stores.postgres.rows import TurnKey
from antiphon.stores.postgres.sql_files import TURN_SQL
from antiphon.turn.chat_protocols import (
    ChainPart,
    ChainTurn,
    ChainWindow,
    ChatBranch,
    TurnBranch,
    TurnOrigin,
)
from antiphon.turn.store_protocols import Continuations, Head, StoredTurn, unknown_cursor

if TYPE_CHECKING:
    from antiphon.stores.postgres.connection import Connection


class Chain:
    """The places of a chain: each depth is in one thread."""

    def __init__(self, tree: int, ends: Sequence[tuple[int, int]]) -> None:
        """``ends`` has the last place of each part, oldest first."""
        self.tree = tree
        self._ends = ends

    def key_at(self, seq: int) -> TurnKey:
        """The turn at a depth."""
        thread = next(thread for thread, last in self._ends if seq <= last)
        return TurnKey(self.tree, thread, seq)

    def has(self, key: TurnKey) -> bool:
        return (
            bool(self._ends) and 0 <= key.seq <= self._ends[-1][1] and self.key_at(key.seq) == key
        )

    def ranges(self, first: int, last: int) -> list[tuple[int, int, int]]:
        """The threads, first and last depths of a part of it, oldest first."""
        found = []
        begin = 0
        for thread, end in self._ends:
            if max(begin, first) <= min(end, last):
                found.append((thread, max(begin, first), min(end, last)))
            begin = end + 1
        return found


async def read_ends(connection: Connection, tenant: str, key: TurnKey) -> Chain:
    """The chain that ends at a turn."""
    rows = await connection.fetch(TURN_SQL["chain_parts"], *key, tenant)
    return Chain(key.tree, [(thread, seq) for thread, seq in rows])


async def read_chain_part(
    connection: Connection,
    head: Head,
    window: ChainWindow,
    expiry: Expiry,
    *,
    with_images: bool,
) -> tuple[ChainPart, set[int]]:
    """The turns of a window.

    Raises ``InvalidRequestError`` where what it is relative to is not in the chain.
    """
    found, _ = await read_head(
        connection, head.tenant, head.response_id, expiry.cutoff(head.tenant)
    )
    if found is None:
        return ChainPart([], False, False, 0), set()
    chain = await read_ends(connection, head.tenant, key_of(head))
    before, after = await _window_keys(connection, head, window, chain)
    limits = _limits(window, len(before), len(after))
    keys = [*before[: limits[0]][::-1], *after[: limits[1]]]
    turns, dead = await read_turns(connection, head.tenant, keys, with_images=with_images)
    if expiry.cutoff(head.tenant) > -math.inf:
        turns = await _with_expiry(connection, keys, turns, head.tenant, expiry)
    neighbours = _Neighbours(connection, head.tree, expiry.cutoff(head.tenant))
    parents = [None if key.seq == 0 else chain.key_at(key.seq - 1) for key in keys]
    await neighbours.read([*parents, *keys])
    shown = [
        neighbours.chain_turn(key, parent, turn)
        for key, parent, turn in zip(keys, parents, turns, strict=True)
    ]
    part = ChainPart(
        shown,
        has_more_before=len(before) > limits[0] or window.after is not None,
        has_more_after=len(after) > limits[1] or window.before is not None,
        total=head.seq + 1,
    )
    return part, dead


async def _window_keys(
    connection: Connection, head: Head, window: ChainWindow, chain: Chain
) -> tuple[list[TurnKey], list[TurnKey]]:
    """The turns before the window's anchor, the nearest first, and from it on."""
    at = head.seq + 1
    if window.anchor is not None:
        key = response_key(window.anchor)
        row = key and await connection.fetchrow(TURN_SQL["turn_key"], head.tenant, key)
        if not row or row[0] != head.tree or not chain.has(TurnKey(*row)):
            raise unknown_cursor(window.anchor, window.anchor_name)
        at = row[2] + 1 if window.after is not None else row[2]
    elif window.position is not None:
        at = min(window.position, head.seq)
    limit = window.limit + 1
    before = [] if window.after is not None else chain.ranges(0, at - 1)[::-1]
    after = [] if window.before is not None else chain.ranges(at, head.seq)
    return (
        await _living(connection, "living_backwards", chain.tree, before, limit),
        await _living(connection, "living_forwards", chain.tree, after, limit),
    )


def _limits(window: ChainWindow, before: int, after: int) -> tuple[int, int]:
    """How many turns of those before and after the anchor are in the window."""
    limit = window.limit
    if window.around is None and window.position is None:
        return limit, limit
    # The one in the middle is the first of those after. What one side lacks the other has.
    right = min(after, limit - limit // 2)
    left = min(before, limit - right)
    return left, min(after, limit - left)


async def _living(
    connection: Connection,
    query: str,
    tree: int,
    ranges: Sequence[tuple[int, int, int]],
    limit: int,
) -> list[TurnKey]:
    """The first so many turns of ranges that are not erased."""
    keys: list[TurnKey] = []
    for thread, first, last in ranges:
        if len(keys) < limit:
            values = (tree, thread, first, last, limit - len(keys))
            rows = await connection.fetch(TURN_SQL[query], *values)
            keys += [TurnKey(tree, thread, row[0]) for row in rows]
    return keys


async def _with_expiry(
    connection: Connection,
    keys: Sequence[TurnKey],
    turns: Sequence[StoredTurn],
    tenant: str,
    expiry: Expiry,
) -> list[StoredTurn]:
    """The turns with the times when they expire: each descendant is looked at once."""
    latest, later = -math.inf, None
    dated: list[StoredTurn] = []
    for key, turn in zip(reversed(keys), reversed(turns), strict=True):
        if later is None or later.thread != key.thread:
            starts = [key]
        else:
            values = (key.tree, key.thread, key.seq, later.seq - 1)
            rows = await connection.fetch(CHAT_SQL["branches_off"], *values)
            starts = [TurnKey(key.tree, *row) for row in rows]
        times = [await latest_timestamp(connection, start) for start in starts]
        latest = max([latest, *(time for time in times if time is not None)])
        dated.append(msgspec.structs.replace(turn, expires_at=expiry.expires_at(tenant, latest)))
        later = key
    return dated[::-1]


class _Neighbours:
    """The turns beside and behind turns of one tree, which ``read`` reads all at once."""

    def __init__(self, connection: Connection, tree: int, cutoff: float) -> None:
        self._connection = connection
        self._tree = tree
        self._cutoff = cutoff
        self._children: dict[TurnKey | None, list[TurnKey]] = {}

    async def read(self, parents: Iterable[TurnKey | None]) -> None:
        """Read the turns that continue each of these. None: those that the tree began with."""
        wanted = set(parents)
        found: dict[TurnKey | None, list[tuple[float, TurnKey]]] = {one: [] for one in wanted}
        if None in wanted:
            rows = await self._connection.fetch(CHAT_SQL["first_turns"], self._tree)
            found[None] = [(at, TurnKey(self._tree, thread, seq)) for thread, seq, at in rows]
        places = [one for one in wanted if one is not None]
        if places:
            threads, depths = [one.thread for one in places], [one.seq for one in places]
            query = CHAT_SQL["children"]
            for row in await self._connection.fetch(query, self._tree, threads, depths):
                parent = TurnKey(self._tree, row["parent_thread"], row["parent_seq"])
                child = TurnKey(self._tree, row["thread"], row["seq"])
                found[parent].append((row["created_at"], child))
        for one, children in found.items():
            self._children[one] = [
                key
                for _, key in sorted(children)
                if not await has_expired(self._connection, key, self._cutoff)
            ]

    def children(self, key: TurnKey | None) -> list[TurnKey]:
        """The turns that continue one, oldest first."""
        return self._children[key]

    def chain_turn(self, key: TurnKey, parent: TurnKey | None, turn: StoredTurn) -> ChainTurn:
        siblings = self.children(parent)
        return ChainTurn(
            turn,
            position=key.seq,
            sibling_index=siblings.index(key),
            siblings=len(siblings),
            children=len(self.children(key)),
        )


async def read_branches(
    connection: Connection, tenant: str, response_id: str, expiry: Expiry, *, of_children: bool
) -> tuple[list[TurnBranch] | None, set[int]]:
    """The turns beside a response, or those that continue it."""
    cutoff = expiry.cutoff(tenant)
    head, dead = await read_head(connection, tenant, response_id, cutoff)
    if head is None:
        return None, set()
    key: TurnKey | None = key_of(head)
    assert key is not None
    if not of_children:
        chain = await read_ends(connection, tenant, key)
        key = chain.key_at(key.seq - 1) if key.seq else None
    neighbours = _Neighbours(connection, head.tree, cutoff)
    await neighbours.read([key])
    found = neighbours.children(key)
    turns = await read_summaries(connection, found)
    branches = []
    for one in found:
        turn = turns[one]
        leaf = await connection.fetchrow(CHAT_SQL["newest_descendant"], *one)
        branches.append(
            TurnBranch(
                response_id=turn.response_id,
                created_at=turn.created_at,
                model=turn.model,
                status=turn.status,
                opening=turn.opening,
                leaf=turn.response_id if leaf is None else response_id_of(leaf[0]),
                turns=(one.seq if leaf is None else leaf[1]) + 1,
            )
        )
    running = [one for one in found if turns[one].status == "in_progress"]
    return branches, dead | await _dead_nodes(connection, running)


async def check_continuations(connection: Connection, seen: Sequence[Continuations]) -> None:
    """Raise ``HistoryBranchedError`` where a response is continued by one that was not seen."""
    heads = [one.head for one in seen]
    threads, depths = [head.thread for head in heads], [head.seq for head in heads]
    rows = await connection.fetch(CHAT_SQL["children"], heads[0].tree, threads, depths)
    refuse_unseen(seen, (response_id_of(row["key"]) for row in rows))


async def _dead_nodes(connection: Connection, keys: Sequence[TurnKey]) -> set[int]:
    """The dead ones among the nodes that run turns."""
    if not keys:
        return set()
    rows = await connection.fetch(TURN_SQL["owners"], *zip(*keys, strict=True))
    return {node for node, living in rows if living is None}


async def read_origin(
    connection: Connection, tenant: str, response_id: str, expiry: Expiry
) -> tuple[TurnOrigin | None, set[int]]:
    """What a response continues: the nearest turn before it that is not erased."""
    head, dead = await read_head(connection, tenant, response_id, expiry.cutoff(tenant))
    if head is None:
        return None, dead
    chain = await read_ends(connection, tenant, key_of(head))
    return TurnOrigin(head, await _nearest_living(connection, chain, head.seq - 1)), dead


async def _nearest_living(connection: Connection, chain: Chain, seq: int) -> str | None:
    """The id of the last turn up to a depth that is not erased."""
    ranges = chain.ranges(0, seq)[::-1]
    for key in await _living(connection, "living_backwards", chain.tree, ranges, 1):
        return response_id_of(await connection.fetchval(CHAT_SQL["response_at"], *key))
    return None


async def read_chat_branches(
    connection: Connection, tenant: str, name: str, expiry: Expiry
) -> tuple[list[ChatBranch] | None, set[int]]:
    """The branches of a chat: one a thread that has turns."""
    found = await find_chat(connection, tenant, name, expiry)
    if found is None:
        return None, set()
    tree, cutoff = found[1], expiry.cutoff(tenant)
    threads = [
        row
        for row in await connection.fetch(CHAT_SQL["threads"], tree)
        if not await has_expired(connection, TurnKey(tree, row["id"], row["last_seq"]), cutoff)
    ]
    ends = [
        (TurnKey(tree, row["id"], row["first_seq"]), TurnKey(tree, row["id"], row["last_seq"]))
        for row in threads
    ]
    turns = await read_summaries(connection, list({key for pair in ends for key in pair}))
    branches = []
    for row, (first, last) in zip(threads, ends, strict=True):
        forks_from = None
        if row["parent_thread"] is not None:
            parent = TurnKey(tree, row["parent_thread"], row["parent_seq"])
            chain = await read_ends(connection, tenant, parent)
            forks_from = await _nearest_living(connection, chain, parent.seq)
        branches.append(
            ChatBranch(
                leaf=turns[last].response_id,
                forks_from=forks_from,
                opening=turns[first].opening,
                turns=last.seq + 1,
                created_at=turns[first].created_at,
                updated_at=turns[last].created_at,
                status=turns[last].status,
            )
        )
    running = [last for _, last in ends if turns[last].status == "in_progress"]
    return branches, await _dead_nodes(connection, running)
