"""Terminal output: escapes, streams, and word wrap played back on a small terminal."""

from __future__ import annotations

import re

import pytest

from antiphon.cli import terminal_output
from antiphon.cli.terminal_output import Column


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
    columns = (Column("id"), Column("text", is_cropped=True))
    rows = [("resp_" + "0" * 32, "words \x1b[31m" * 9)]
    monkeypatch.setenv("COLUMNS", "50")
    terminal_output.print_table(columns, rows)
    title, row = capsys.readouterr().out.splitlines()
    assert title.split() == ["id", "text"]
    assert re.fullmatch(r"resp_0{32}  w.*… *", row)
    # Without room for both beside each other.
    monkeypatch.setenv("COLUMNS", "40")
    terminal_output.print_table(columns, rows)
    first, second = capsys.readouterr().out.splitlines()
    assert first == "resp_" + "0" * 32
    assert re.fullmatch(r"  words .*…", second)
