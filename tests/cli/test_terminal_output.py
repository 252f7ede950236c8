"""What is printed, and how."""

from __future__ import annotations

import pytest

from antiphon.cli import terminal_output


def test_harmless_text_keeps_its_lines_and_letters() -> None:
    assert (
        terminal_output.strip_control_chars("a\tb\nçé 日本 👋\x1b[31m\x07\x9b\r")
        == "a\tb\nçé 日本 👋[31m"
    )


def test_an_answer_to_a_pipe_is_exact(capsys: pytest.CaptureFixture[str]) -> None:
    terminal_output.print_output("\x1b[31m\r\x00")
    assert capsys.readouterr().out == "\x1b[31m\r\x00"


def test_an_error_is_one_line_without_colour(capsys: pytest.CaptureFixture[str]) -> None:
    terminal_output.print_error("one\n two [bold]three[/] " + "long " * 50)
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "error: one two [bold]three[/] " + ("long " * 50).strip() + "\n"


def test_nobody_sees_a_spinner_in_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    with terminal_output.show_spinner("loading"):
        pass
    assert capsys.readouterr() == ("", "")
