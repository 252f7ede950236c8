"""Endless repetition: what is cut, and what people ask for and is not."""

from __future__ import annotations

import random

import pytest

from antiphon.models.llama.repetition import RepetitionDetector, find_endless_passage

PARAGRAPH = (
    "The sea is wide, and nobody has seen its other shore. Once there was a sailor who said that "
    "he had, but he could not say what it looked like.\n\n"
)
ENDLESS = {
    "one-token": "#" * 3000,
    "one-line-break": "Yes.\n" + "\n" * 3000,
    "a-word": "I am " + "very " * 700,
    "markup-of-another-family": "Hello.<|im_end|>\n" * 200,
    "a-line": "- Buy milk and bread.\n" * 200,
    "two-speakers": "User: Why?\nAssistant: Because.\n" * 100,
    "a-paragraph": PARAGRAPH * 30,
    "behind-a-good-answer": PARAGRAPH + "Fine. " + "ha" * 2000,
    "cut-in-its-middle": ("- Buy milk and bread.\n" * 200)[:-7],
    "characters-of-other-scripts": "好的。" * 900,
    "emojis": "🙂" * 2500,
}
MEANT = {
    "nothing": "",
    "a-ruler": "=" * 2000,
    "a-table": "".join(f"| {row} | {row * row} | yes |\n" for row in range(400)),
    "a-table-of-equal-rows": "| yes | no | yes | no |\n" * 50,
    "a-column-of-zeros": "0.0, " * 150,
    "code-of-equal-lines": "    assert is_fine(value)\n" * 40,
    "indentation": ("x = 1\n" + " " * 80) * 20,
    "a-chorus": PARAGRAPH * 12,
    "numbers": " ".join(map(str, range(2000))),
    "a-word-a-hundred-times": "I will not talk in class.\n" * 50 + "Done.",
    "repeated-and-gone-on": "ha " * 2000
    + "That was all that I wanted to say today, and it is true.",
    "a-base64": "".join(random.Random(1).choices("ABCDEFGHIJ", k=5000)),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_a_repetition_without_end_is_found(name: str) -> None:
    passage = find_endless_passage(ENDLESS[name])
    assert passage
    assert ENDLESS[name].endswith(passage * 2)


@pytest.mark.parametrize("name", MEANT)
def test_what_repeats_with_a_meaning_is_not(name: str) -> None:
    assert find_endless_passage(MEANT[name]) is None


@pytest.mark.parametrize("size", [1, 3, 50, 5000])
def test_it_is_found_in_pieces_of_any_size(size: int) -> None:
    def seen(text: str) -> int | None:
        detector = RepetitionDetector()
        for start in range(0, len(text), size):
            if detector.feed(text[start : start + size]):
                return start + size
        return None

    text = PARAGRAPH + "no " * 3000
    found = seen(text)
    assert found is not None
    # Long before a limit of some thousand tokens.
    assert found <= 3000 + size
    assert seen(MEANT["a-table"]) is None


def test_what_was_found_stays_found() -> None:
    detector = RepetitionDetector()
    assert detector.feed("#" * 3000)
    assert detector.feed("A new thought.")
    assert detector.is_endless
