"""Search protocol: what was said, in all chats of a tenant or in one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec


class SearchHit(msgspec.Struct, frozen=True):
    """A turn in which something was found. ``excerpt`` marks the words by « and »."""

    response_id: str
    created_at: float
    excerpt: str
    conversation: str | None = None


class SearchIndex(Protocol):
    """Full text of what users, models and tools said. Words that were erased are not in it."""

    async def search(
        self,
        tenant: str,
        query: str,
        limit: int,
        *,
        after: str | None = None,
        chat_id: str | None = None,
    ) -> Sequence[SearchHit]:
        """Turns that hold all words of ``query``, the best first; any text is a query.

        ``chat_id``: of that chat, by any of its ids, with as much work as it holds; where it is not
        there, none.

        From the one behind the response ``after`` on, as all stand now: what came since and
        is better is passed by. How much a word counts for changes a little with every turn,
        so that two that are about as good may change places between two pages.
        ``InvalidRequestError``: the query does not find ``after``.
        """
        ...

    async def search_chats(
        self, tenant: str, query: str, limit: int, *, after: str | None = None
    ) -> Sequence[SearchHit]:
        """The same, only the best turn of each chat."""
        ...

    async def count_unsearched(self, tenant: str) -> int:
        """How many ended turns a search would not find yet: after a crash or a large import."""
        ...
