"""The search tokenizer: the terms of a text, and the excerpt of a hit."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.core.items import (
    Compaction,
    ErasedItem,
    FunctionCall,
    FunctionCallOutput,
    InputImage,
    InputText,
    Item,
    Message,
    OutputText,
    Refusal,
    encode_item,
)
from antiphon.stores.search_tokenizer import (
    MAX_WORD_LENGTH,
    build_excerpt,
    parse_query,
    searchable_text,
    tokenize,
)


def terms_of(text: str) -> list[str]:
    """The terms of a text, sorted."""
    return sorted(term.decode("utf-8", "surrogatepass") for term in tokenize(text))


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("", []),
        ("  \t… — ?! 💔 ", []),
        ("Hello, World! It's 3.14", ["hello", "world", "it", "s", "3", "14"]),
        ("previous_response_id", ["previous", "response", "id"]),
        ("Crème BRÛLÉE", ["creme", "brulee"]),
        ("don’t “say” so – it’s…fine", ["don", "t", "say", "so", "it", "s", "fine"]),  # noqa: RUF001
        ("Ünï×cödé °C ½", ["uni", "code", "c", "1⁄2"]),  # noqa: RUF001
        ("STRASSE straße", ["strasse", "strasse"]),
        ("Ⅷ ﬁne \uff37\uff29\uff24\uff25", ["viii", "fine", "wide"]),
        ("İstanbul", ["istanbul"]),
        ("ΣΟΦΟΣ σοφος", ["σοφοσ", "σοφοσ"]),
        ("ёлка Йод", ["елка", "иод"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("الْعَرَبِيَّة", ["الْعَرَبِيَّة"]),
        ("東京都", ["東", "京", "都", "東京", "京都"]),
        ("Python入門 3", ["python", "入", "門", "入門", "3"]),
        ("한글 말", ["한", "글", "한글", "말"]),
        ("ｶﾞｯﾂ", ["ガ", "ッ", "ツ", "ガッ", "ッツ"]),
        ("สวัสดี", ["ส", "ว", "ั", "ส", "ด", "ี", "สว", "วั", "ัส", "สด", "ดี"]),
    ],
)
def test_tokenize_returns_normalized_terms(text: str, terms: list[str]) -> None:
    # Splitting by script keeps the order only within a script, which search does not need.
    assert terms_of(unicodedata.normalize("NFC", text)) == sorted(terms)


def test_long_words_are_truncated() -> None:
    assert terms_of("a" * 500) == ["a" * MAX_WORD_LENGTH]
    assert terms_of("é" + "b" * 500) == ["e" + "b" * (MAX_WORD_LENGTH - 1)]
    assert terms_of("ж" * 500) == ["ж" * MAX_WORD_LENGTH]
    assert build_excerpt("x " + "a" * 500, parse_query("a" * 300)) is not None


def test_searchable_text_has_what_people_models_tools_and_summaries_say() -> None:
    items: list[Item] = [
        Message("system", "sys"),
        Message("developer", "dev"),
        Message("user", (InputText("one"), InputImage("blob:abc"), InputText(" two"))),
        FunctionCall("call_1", "look_up", '{"city": "Oslo"}'),
        FunctionCallOutput("call_1", "output"),
        Message("assistant", (OutputText("three"), Refusal("four"))),
        Compaction("five\n\n six"),
        ErasedItem(),
    ]
    encoded = [encode_item(item) for item in items]
    assert searchable_text([*encoded, b"", b"\xff", b"[]", b'{"type":"other"}']) == (
        'one two look_up {"city": "Oslo"} output threefour five six'
    )


def test_searchable_text_is_unicode_composed() -> None:
    assert searchable_text([encode_item(Message("user", "e\u0301"))]) == "\u00e9"


@pytest.mark.parametrize(
    ("text", "query", "excerpt"),
    [
        ("The quick brown fox", "quick", "The «quick» brown fox"),
        ("The quick brown fox", "FOX the", "«The» quick brown «fox»"),
        ("The quick brown fox", "quick slow", None),
        ("quicker", "quick", None),
        ("Une Crème brûlée.", "creme", "Une «Crème» brûlée."),
        ("a b a", "a a", "«a» b «a»"),
        ("私は東京都に住んでいます", "東京", "私は«東京»都に住んでいます"),
        ("私は東京都に住んでいます", "都", "私は東京«都»に住んでいます"),
        # The text has all its pairs, but not the word.
        ("東京と京都", "東京都", None),
        ("東京と京都", "京都 東京", "«東京»と«京都»"),
        ("ガッツだ", "ｶﾞｯﾂ", "«ガッツ»だ"),
        ("ｶﾞｯﾂだ よ", "ガッツ", "«ｶﾞｯﾂだ» よ"),
    ],
)
def test_excerpt_marks_matches(text: str, query: str, excerpt: str | None) -> None:
    assert build_excerpt(text, parse_query(query)) == excerpt


def test_excerpt_of_a_long_text_has_most_matches() -> None:
    text = "alpha " + "filler " * 100 + "now beta and alpha meet " + "filler " * 100 + "beta"
    excerpt = build_excerpt(text, parse_query("alpha beta"))
    assert excerpt is not None
    assert "now «beta» and «alpha» meet" in excerpt
    assert excerpt.startswith("…filler")
    assert excerpt.endswith("filler…")
    assert len(excerpt) < 220


def test_excerpt_of_a_long_run_without_spaces_is_cut() -> None:
    text = "あ" * 500 + "東京" + "い" * 500
    excerpt = build_excerpt(text, parse_query("東京"))
    assert excerpt is not None
    assert "あ«東京»い" in excerpt
    assert len(excerpt) < 220


def test_long_query_is_truncated() -> None:
    query = parse_query(" ".join(f"w{number}" for number in range(10_000)))
    assert len(query.terms) == 64
    assert len(query.words) < 1_000


@given(st.text(), st.text())
def test_any_query_and_text_build_a_valid_excerpt(text: str, words: str) -> None:
    text = unicodedata.normalize("NFC", " ".join(text.split()))
    query = parse_query(words)
    excerpt = build_excerpt(text, query)
    if excerpt is not None:
        assert set(query.terms) <= set(terms_of(text))
        if "«" not in text + words and "»" not in text + words:
            assert excerpt.count("«") == excerpt.count("»") > 0


@given(st.text(st.characters(categories=["L", "N", "Zs", "P"])))
def test_every_word_of_a_text_matches_it(text: str) -> None:
    text = unicodedata.normalize("NFC", " ".join(text.split()))
    for word in text.split():
        query = parse_query(word)
        if query.terms and len(query.terms) < 64:
            assert build_excerpt(text, query) is not None, word


@given(
    st.text(),
    st.text(st.characters(max_codepoint=0x530), max_size=9),
    st.sampled_from(["", "naïve ", "’", "Ёлка ", "東京 ", "ŉ x", "Ŀ·ſß", "e\u0327\u1dc4 "]),  # noqa: RUF001
)
def test_terms_of_a_text_are_its_words_and_the_parts_of_its_runs(
    text: str, plain: str, more: str
) -> None:
    text = unicodedata.normalize("NFC", " ".join((text + plain + more).split()))
    query = parse_query(text)
    parts = {run[at : at + size] for run in query.runs for at in range(len(run)) for size in (1, 2)}
    if len(text) < 60:
        assert set(terms_of(text)) == query.words | parts
        assert set(query.terms) <= query.words | parts
