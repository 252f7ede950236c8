"""The search of a store in memory: reads every turn, each time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from antiphon.stores.search_ranking import MAX_COUNT, scale_of, score
from antiphon.stores.search_tokenizer import Query, excerpt_of, query_of, terms_of, text_of_items
from antiphon.turn.protocols import StoredTurn
from antiphon.turn.store_protocols import Hit, unknown_cursor


class MemorySearch:
    """A ``SearchIndex`` without an index. ``turns_of`` gives all turns of a tenant."""

    def __init__(self, turns_of: Callable[[str], Iterable[StoredTurn]]) -> None:
        self._turns_of = turns_of

    async def search(
        self, tenant: str, query: str, limit: int, *, after: str | None = None
    ) -> Sequence[Hit]:
        wanted = query_of(query)
        if not wanted.terms or limit < 1:
            return []
        ended = [turn for turn in self._turns_of(tenant) if turn.end is not None]
        ranked = _ranked(ended, wanted)
        if after is not None:
            ids = [turn.response_id for turn, _ in ranked]
            if after not in ids:
                raise unknown_cursor(after)
            ranked = ranked[ids.index(after) + 1 :]
        hits = (_hit(turn, text, wanted) for turn, text in ranked)
        return [hit for hit in hits if hit is not None][:limit]


def _ranked(turns: list[StoredTurn], query: Query) -> list[tuple[StoredTurn, str]]:
    """Those that hold all terms, with their texts, the best first."""
    texts = [text_of_items((*turn.input, *turn.output)) for turn in turns]
    counts = [Counter(terms_of(text)) for text in texts]
    lengths = [held.total() for held in counts]
    holding = [sum(term in held for held in counts) for term in query.terms]
    scale = scale_of(sum(map(bool, counts)), sum(lengths), holding)
    found = []
    for turn, text, held, length in zip(turns, texts, counts, lengths, strict=True):
        if all(term in held for term in query.terms):
            often = [min(held[term], MAX_COUNT) for term in query.terms]
            found.append((-score(scale, often, length), -turn.created_at, turn, text))
    found.sort(key=lambda one: one[:2])
    return [(turn, text) for _, _, turn, text in found]


def _hit(turn: StoredTurn, text: str, query: Query) -> Hit | None:
    excerpt = excerpt_of(text, query)
    if excerpt is None:
        return None
    return Hit(turn.response_id, turn.created_at, excerpt, turn.header.conversation)
