"""Terminal output: escapes, streams, and word wrap played back on a small terminal."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.cli import terminal_output
from antiphon.cli.terminal_output import Column, WordWrapper

_STEP = re.compile(r"\x1b\[(\d+)D|\x1b\[K|(.|\n)")


def test_stripping_control_characters_keeps_lines_and_letters() -> None:
    assert (
        terminal_output.strip_control_chars("a\tb\nçé 日本 👋\x1b[31m\x07\x9b\r")
        == "a\tb\nçé 日本 👋[31m"
    )


def test_answer_to_a_pipe_is_unchanged(capsys: pytest.CaptureFixture[str]) -> None:
    terminal_output.print_output("\x1b[31m\r\x00")
    assert capsys.readouterr().out == "\x1b[31m\r\x00"


def test_an_error_is_one_line_without_colour(capsys: pytest.CaptureFixture[str]) -> None:
    terminal_output.print_error("one\n two [bold]three[/] " + "long " * 50)
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "error: one two [bold]three[/] " + ("long " * 50).strip() + "\n"


def test_a_spinner_is_not_written_to_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    with terminal_output.show_spinner("loading"):
        pass
    assert capsys.readouterr() == ("", "")


def test_a_table_on_a_narrow_terminal_shows_whole_ids_and_crops_the_rest(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    columns = (Column("id"), Column("text", is_cropped=True))
    terminal_output.print_table(columns, [("resp_" + "0" * 32, "words \x1b[31m" * 9)])
    title, row = capsys.readouterr().out.splitlines()
    assert title.split() == ["id", "text"]
    assert re.fullmatch(r"resp_0{32}  w\S*… *", row)


def screen_of(written: str) -> list[str]:
    """The lines that a terminal shows; fails if the cursor is moved before its line."""
    lines: list[list[str]] = [[]]
    column = 0
    for step in _STEP.finditer(written):
        if step[1]:
            column -= int(step[1])
            assert column >= 0
        elif step[2] == "\n":
            lines.append([])
            column = 0
        elif step[2]:
            lines[-1][column:] = [step[2]]
            column += 1
        else:
            del lines[-1][column:]
    return ["".join(line) for line in lines]


def wrapped(chunks: list[str], columns: int) -> list[str]:
    wrap = WordWrapper(columns)
    return screen_of("".join(wrap.feed(piece) for piece in chunks))


def test_a_word_that_does_not_fit_moves_to_the_next_line() -> None:
    chunks = ["the kee", "per of ", "the light", "house"]
    assert wrapped(chunks, 12) == ["the keeper ", "of the ", "lighthouse"]


def test_a_word_longer_than_a_line_is_broken() -> None:
    assert wrapped(["ab ", "abcdefghijkl"], 6) == ["ab ", "abcde", "fghij", "kl"]


def test_wide_characters_take_two_columns() -> None:
    assert WordWrapper(6).feed("日本語") == "日本\n語"


@given(st.lists(st.text(alphabet="ab", min_size=1, max_size=7), max_size=15), st.data())
def test_words_stay_whole_and_lines_fit(words: list[str], data: st.DataObject) -> None:
    columns = data.draw(st.integers(min_value=8, max_value=20))
    text = "".join(word + data.draw(st.sampled_from([" ", "\n", "\n\n"])) for word in words)
    lines = wrapped([text], columns)
    assert [word for line in lines for word in line.split()] == words
    assert all(len(line) < columns for line in lines)


@given(st.text(alphabet="ab \n", max_size=60), st.integers(min_value=2, max_value=15))
def test_wrapping_does_not_depend_on_chunks(text: str, columns: int) -> None:
    assert wrapped(list(text), columns) == wrapped([text], columns)
