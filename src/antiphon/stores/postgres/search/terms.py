"""Search terms: the words of a turn as a ``tsvector`` of hashes, and of a query. No I/O.

A lexeme is a hash of the word, under a key and the tenant. Where the turn has the word more than
once it has as many positions, so that ``ts_rank`` of one lexeme says how many (search.sql). A
``tsvector`` has a megabyte at most: one that would be larger has each word once, and if need be not
all of them.
"""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Iterable
from typing import Final

import msgspec

from antiphon.stores.search_tokenizer import MAX_TERM_COUNT, text_to_index, tokenize

_MAX_BYTES: Final = 1_000_000
#: So few that two words may have one: what is found is looked at (``build_excerpt``).
_HASH_BYTES: Final = 6
#: What a lexeme takes, and each of its positions with their number.
_LEXEME_BYTES: Final = 8
_POSITION_BYTES: Final = 2
_POSITIONS: Final = [
    "" if count < 2 else ":" + ",".join(str(position) for position in range(1, count + 1))
    for count in range(MAX_TERM_COUNT + 1)
]


class TurnTerms(msgspec.Struct, frozen=True):
    """What is indexed of a turn. ``terms`` is a ``tsvector``; ``words`` is how many it has."""

    terms: str
    words: int


def hash_term(secret: bytes, tenant: str, term: bytes) -> str:
    """The lexeme of a term: 8 characters."""
    name = tenant.encode("utf-8", "surrogatepass")
    digest = hashlib.blake2b(term, digest_size=_HASH_BYTES, key=_key(secret, name)).digest()
    return base64.urlsafe_b64encode(digest).decode()


def index_turn(secret: bytes, tenant: str, items: Iterable[bytes]) -> TurnTerms:
    """The terms of a turn's items."""
    tokens = tokenize(text_to_index(items))
    counts = Counter(tokens)
    positions = sum(1 + min(count, MAX_TERM_COUNT) for count in counts.values() if count > 1)
    if len(counts) * _LEXEME_BYTES + positions * _POSITION_BYTES > _MAX_BYTES:
        counts = Counter(dict.fromkeys(list(counts)[: _MAX_BYTES // _LEXEME_BYTES], 1))
    lexemes = [
        f"'{hash_term(secret, tenant, term)}'{_POSITIONS[min(count, MAX_TERM_COUNT)]}"
        for term, count in counts.items()
    ]
    return TurnTerms(" ".join(lexemes), len(tokens))


def query_lexemes(secret: bytes, tenant: str, terms: Iterable[str]) -> list[str]:
    """The lexemes of a query's terms, each as a ``tsquery``."""
    encoded = [term.encode("utf-8", "surrogatepass") for term in terms]
    return [f"'{hash_term(secret, tenant, term)}'" for term in encoded]


def _key(secret: bytes, tenant: bytes) -> bytes:
    """A key of one tenant's: the same words of two tenants have different lexemes."""
    return hashlib.blake2b(tenant, digest_size=32, key=secret).digest()
