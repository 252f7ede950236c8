"""Full-text search: tokenizer, query parser, excerpts and BM25 ranking, for every store. No I/O.

    spaced scripts     a word is a run of letters, digits and their marks, without case and
                       accents: ``Crème_brûlée`` holds ``creme`` and ``brulee``
    unspaced scripts   Chinese, Japanese, Korean, Thai and similar: every character and every
                       pair of neighbours (bigram) is a term. A run of a query matches a text
                       that contains it literally, also within a longer run

So two characters of Chinese can be searched for, which is the length of most of its words; an
index of trigrams would miss them, and one of runs between spaces would match sentences only.
Signs and emoji are no words.

Ranking of the turns that hold all words of a query: BM25, then the newest. The formula is
Okapi's with Lucene's weights, which are never negative: a word counts for more the fewer turns
hold it, for less each time it is repeated, and for less in a longer turn.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from itertools import filterfalse
from typing import Final

import msgspec

from antiphon.core.items import (
    Compaction,
    FunctionCall,
    FunctionCallOutput,
    Message,
    decode_item,
    message_text,
    text_of,
)
from antiphon.errors import StoreError

#: Longer words are truncated: they are keys and data, not words.
MAX_WORD_LENGTH: Final = 64
#: Limits of a query, in characters and terms. The index is searched for the first terms only;
#: whether a text holds the rest is checked in the text itself.
_MAX_QUERY_LENGTH = 2_000
_MAX_QUERY_TERMS = 64
#: What of a tool's call or output is searched: one may be a file or a page of the web.
_MAX_TOOL_LENGTH = 10_000
#: An excerpt's approximate length in characters, and how much of it precedes the first match.
_EXCERPT_LENGTH = 200
_EXCERPT_LEAD = 50

_UNSPACED = (
    "\u0e00-\u0eff"  # Thai, Lao
    "\u1000-\u109f\u1780-\u17ff"  # Myanmar, Khmer
    "\u1100-\u11ff\u3130-\u318f\ua960-\ua97f\uac00-\ud7ff"  # Hangul
    "\u3005-\u3007\u3041-\u312f\u31a0-\u31ff\uff66-\uff9f"  # kana, bopomofo
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han
)
_TOKEN_PATTERN = re.compile(f"([{_UNSPACED}]+)|[^ {_UNSPACED}]+")
_ACCENTS = re.compile("[\u0300-\u036f]+")


class _SeparatorTable(dict[int, int]):
    """For ``str.translate``: what is neither letter, digit nor mark becomes a space."""

    def __missing__(self, point: int) -> int:
        is_word_character = unicodedata.category(chr(point))[0] in "LNM"
        self[point] = point if is_word_character else 32
        return self[point]


_SEPARATORS = _SeparatorTable()


#: For ``bytes.translate``: without case, and a space for what is neither letter nor digit. Bytes of
#: other characters than those of ASCII stay.
_ASCII_FOLDING = bytes(
    [byte if byte > 127 or chr(byte).isalnum() else 32 for byte in range(256)]
).lower()
#: A word of digits and of Latin and Cyrillic letters that folding makes such letters of.
_PLAIN_WORD = re.compile(
    "[0-9A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u013e\u0141-\u0148\u014a-\u017f\u0218-\u021b"
    "\u0400-\u0481\u048a-\u052f]+"
)


class _FoldingTable(dict[int, int | str]):
    """For ``str.translate``: what is neither letter, digit nor mark becomes a space, and what a
    plain word consists of is folded. Others stay: they may change with their neighbours.
    """

    def __missing__(self, point: int) -> int | str:
        character = chr(point)
        if _SEPARATORS[point] == ord(" "):
            folded: int | str = " "
        elif _PLAIN_WORD.fullmatch(character):
            folded = _fold(character)
        else:
            folded = point
        self[point] = folded
        return folded


_FOLDING = _FoldingTable()


class SearchQuery(msgspec.Struct, frozen=True):
    """A parsed query: ``words`` and ``runs`` of unspaced script, all of which must match.

    ``terms`` are the index terms to look up; none: nothing can match.
    """

    words: frozenset[str]
    runs: tuple[str, ...]
    terms: tuple[str, ...]


def parse_query(text: str) -> SearchQuery:
    """Parse a query. Any text is one."""
    words: dict[str, None] = {}
    runs: dict[str, None] = {}
    for _, _, term, unspaced in _tokens(unicodedata.normalize("NFC", text[:_MAX_QUERY_LENGTH])):
        (runs if unspaced else words)[term] = None
    terms = dict.fromkeys(words)
    for run in runs:
        # A text with its bigrams has its characters, too.
        terms.update(dict.fromkeys(_bigrams(run) if len(run) > 1 else (run,)))
    return SearchQuery(frozenset(words), tuple(runs), tuple(terms)[:_MAX_QUERY_TERMS])


def searchable_text(items: Iterable[bytes]) -> str:
    """The text of users and models in encoded items, on one line, in Unicode's composed form.

    With summaries, and the names, arguments and outputs of tools; without instructions and items
    that cannot be decoded.
    """
    return " ".join(text_to_index(items).split())


def text_to_index(items: Iterable[bytes]) -> str:
    """The same on as many lines as it has: its terms are the same."""
    text = " ".join(map(_item_text, items))
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def tokenize(text: str) -> list[bytes]:
    """The terms of a searchable text in UTF-8, repeated as often as they occur."""
    words = text.encode("utf-8", "surrogatepass").translate(_ASCII_FOLDING).split()
    if not text.isascii():
        foreign = list(filterfalse(bytes.isascii, words))
        words = list(filter(bytes.isascii, words))
        words += _foreign_terms(b" ".join(foreign).decode("utf-8", "surrogatepass"))
    if max(map(len, words), default=0) > MAX_WORD_LENGTH:
        # Others than ASCII words have more bytes than characters, and are truncated already.
        return [word[:MAX_WORD_LENGTH] if word.isascii() else word for word in words]
    return words


def _foreign_terms(text: str) -> list[bytes]:
    """The terms of words that are not all ASCII, truncated where they are not."""
    folded = text.translate(_FOLDING)
    if folded.isascii():
        return folded.encode().split()
    terms: list[str] = []
    others: list[str] = []
    for word in folded.split():
        if _PLAIN_WORD.fullmatch(word):
            terms.append(word[:MAX_WORD_LENGTH])
        else:
            others.append(word)
    for _, _, term, unspaced in _tokens(" ".join(others)):
        if unspaced:
            terms += term
            terms += _bigrams(term)
        else:
            terms.append(term)
    return [term.encode("utf-8", "surrogatepass") for term in terms]


def build_excerpt(text: str, query: SearchQuery) -> str | None:
    """The part of ``text`` that matches most of the query, with « and » around each match.

    None: the text does not match the whole query.
    """
    marks, found = _find_matches(text, query)
    if len(found) < len(query.words) + len(query.runs) or not marks:
        return None
    first = _best_start(marks)
    left = max(0, first - _EXCERPT_LEAD)
    if left:
        # Start at a word boundary if there is one.
        left = text.find(" ", left, first) + 1 or left
    right = left + _EXCERPT_LENGTH
    if right < len(text):
        right = max(text.rfind(" ", first, right + 1), first) if " " in text[first:right] else right
    return _highlight(text, left, right, [mark[:2] for mark in marks])


def _item_text(data: bytes) -> str:
    try:
        item = decode_item(data)
    except StoreError:
        return ""
    match item:
        case Message(role="user" | "assistant"):
            return message_text(item)
        case Compaction(summary=summary):
            return summary
        case FunctionCall(name=name, arguments=arguments):
            return f"{name} {arguments[:_MAX_TOOL_LENGTH]}"
        case FunctionCallOutput(output=output):
            return text_of(output)[:_MAX_TOOL_LENGTH]
    return ""


def _tokens(text: str) -> Iterator[tuple[int, int, str, bool]]:
    """The tokens of a text: start, end, folded text, and whether it is a run of unspaced script."""
    for match in _TOKEN_PATTERN.finditer(text.translate(_SEPARATORS)):
        unspaced = match[1] is not None
        term = _fold(match[0])
        if term:
            yield match.start(), match.end(), term if unspaced else term[:MAX_WORD_LENGTH], unspaced


def _fold(word: str) -> str:
    """Without case, accents and the difference between wide, narrow and other forms."""
    if word.isascii():
        return word.lower()
    bare = _ACCENTS.sub("", unicodedata.normalize("NFKD", word))
    return unicodedata.normalize("NFKC", bare.casefold())


def _bigrams(run: str) -> list[str]:
    return [run[at : at + 2] for at in range(len(run) - 1)]


def _find_matches(text: str, query: SearchQuery) -> tuple[list[tuple[int, int, str]], set[str]]:
    """The matches of a query in a text (start, end, term) in order, and the terms that match."""
    marks: list[tuple[int, int, str]] = []
    for start, end, term, unspaced in _tokens(text):
        if not unspaced:
            if term in query.words:
                marks.append((start, min(end, start + MAX_WORD_LENGTH), term))
            continue
        for run in query.runs:
            at = term.find(run)
            while at >= 0:
                # If folding changed the length, the whole run is marked.
                same = len(term) == end - start
                span = (start + at, start + at + len(run)) if same else (start, end)
                marks.append((*span, run))
                at = term.find(run, at + len(run)) if same else -1
    marks.sort()
    return marks, {term for _, _, term in marks}


def _best_start(marks: list[tuple[int, int, str]]) -> int:
    """Where the first passage with the most different terms begins."""
    best = start = last = 0
    inside: dict[str, int] = {}
    for first, (begin, _, leaving) in enumerate(marks):
        while last < len(marks) and marks[last][1] - begin <= _EXCERPT_LENGTH - _EXCERPT_LEAD:
            term = marks[last][2]
            inside[term] = inside.get(term, 0) + 1
            last += 1
        if len(inside) > best or first == 0:
            best, start = len(inside), begin
        if inside.get(leaving):
            inside[leaving] -= 1
            if not inside[leaving]:
                del inside[leaving]
    return start


def _highlight(text: str, left: int, right: int, spans: list[tuple[int, int]]) -> str:
    parts: list[str] = []
    at = left
    for start, end in spans:
        if start >= at and end <= right:
            parts += text[at:start], "«", text[start:end], "»"
            at = end
    parts.append(text[at:right])
    before = "…" if left else ""
    after = "…" if right < len(text) else ""
    return before + "".join(parts).strip() + after


#: BM25 parameters: saturation of a repeated term, and normalization by length.
_BM25_K1: Final = 1.2
_BM25_B: Final = 0.75
#: Cap of a term's count in a turn.
MAX_TERM_COUNT: Final = 255


class Bm25Weights(msgspec.Struct, frozen=True):
    """BM25 weights of a query: each term's weight, and the normalization by length."""

    term_weights: tuple[float, ...]
    norm: float
    norm_per_word: float


def bm25_weights(turns: int, words: int, document_counts: Sequence[int]) -> Bm25Weights:
    """The weights for ``turns`` with ``words`` in all; ``document_counts`` of them hold each
    term.
    """
    mean = words / turns if words else 1.0
    weights = [math.log1p((turns - count + 0.5) / (count + 0.5)) for count in document_counts]
    return Bm25Weights(
        term_weights=tuple([(_BM25_K1 + 1) * weight for weight in weights]),
        norm=_BM25_K1 * (1 - _BM25_B),
        norm_per_word=_BM25_K1 * _BM25_B / mean,
    )


def bm25_score(weights: Bm25Weights, counts: Sequence[int], length: int) -> float:
    """BM25 score of a turn of ``length`` words that holds the terms ``counts`` times."""
    length_norm = weights.norm + weights.norm_per_word * length
    score = 0.0
    # Called up to a hundred thousand times in a search.
    for weight, count in zip(weights.term_weights, counts):  # noqa: B905
        score += weight * count / (count + length_norm)
    return score
