"""Typing into the interactive chat: before its prompt is there, and while an answer streams."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from antiphon.cli.markdown.markdown_stream import MarkdownStream
from support.chat_terminal import chat, leave
from support.command_line_upstream import release
from support.pseudo_terminal import CTRL_C, CTRL_D, ESCAPE
from support.terminal_screen import rows_of

CTRL_X_CTRL_E = "\x18\x05"


def test_one_types_and_queues_while_it_answers(home: Path, url: str) -> None:
    with chat(home) as terminal:
        terminal.expect_prompt()
        terminal.type("wait\n")
        terminal.expect("begun,")
        terminal.type("next question\n")
        terminal.expect_row("queued: next question")
        terminal.type("half a")
        terminal.expect_typed("half a")
        release(url)
        # Below a prompt that is typed into, a row grows by pieces.
        terminal.expect_row("3 messages, the last: next question")
        terminal.type(" draft\n")
        terminal.expect_row("5 messages, the last: half a draft")
        terminal.expect_prompt()
        leave(terminal)
        rows = [row for row in terminal.rows if row]
        assert rows[1:7] == [
            "> wait",
            "begun, and done",
            "> next question",
            "3 messages, the last: next question",
            "> half a draft",
            "5 messages, the last: half a draft",
        ]


@pytest.mark.parametrize("pause", [0, 1, 7])
def test_what_is_typed_into_a_stream_is_neither_lost_nor_mixed_into_it(
    home: Path, pause: int
) -> None:
    typed = "typed while others come"
    with chat(home) as terminal:
        terminal.expect_prompt()
        terminal.type("count 400\n")
        terminal.expect("> count 400")
        for char in typed:
            for _ in range(pause):
                terminal.expect("word")
            terminal.type(char)
        terminal.type("\n")
        terminal.expect_row(f"the last: {typed}")
        terminal.expect_prompt()
        leave(terminal)
        rows = terminal.rows
    end = rows.index(f"> {typed}")
    answer = " ".join(rows[rows.index("> count 400") + 1 : end]).split()
    assert answer == [f"word{number}" for number in range(400)]


def test_the_prompt_is_not_drawn_again_for_what_is_printed_above_it(home: Path) -> None:
    """Words are written into its first row; the terminal is not asked where its cursor is."""
    with chat(home, PROMPT_TOOLKIT_NO_CPR="") as terminal:
        terminal.expect_prompt()
        terminal.type("count 400\n")
        terminal.expect("> count 400")
        terminal.type("half a question")
        terminal.expect("word399")
        terminal.expect_row("30.0000")
        rows = terminal.rows
        written = terminal.written
        terminal.type(CTRL_C + CTRL_D)
        assert terminal.leave() == 0
    start, end = rows.index("> count 400") + 1, rows.index("> half a question")
    lines = [row for row in rows[start:end] if row]
    assert " ".join(lines).split() == [f"word{number}" for number in range(400)]
    assert written.count("Enter queues") <= 3
    assert "\x1b[6n" not in written


_MARKDOWN = """\
Beginning with **lighthouses** 🗼 and `lenses`, of which the *oldest* is in [A Coruña](https://x.y/z):

## What a keeper does

- He trims the wick, winds the clockwork and wipes the lens, every four hours, day and night.
- 灯台守は芯を整え、時計仕掛けを巻き、レンズを拭く。四時間ごとに、昼も夜も。

```python
def next_watch(hour: int) -> int:
    return (hour + 4) % 24  # six watches a day, LONG

```

| watch | hour |
|---|--:|
| first | 20 |

""".replace("LONG", "longer than a terminal is wide " * 3)


@pytest.mark.parametrize("columns", [100, 40])
def test_markdown_above_a_prompt_is_what_it_is_without_one(home: Path, columns: int) -> None:
    text = _MARKDOWN * 4 + "so it ends."
    with chat(home) as terminal:
        terminal.resize(columns)
        terminal.expect_prompt()
        terminal.type(f"\x1b[200~say {text}\x1b[201~\n")
        terminal.expect("  so it ends.\n")
        terminal.type("half a question")
        terminal.expect_row("30.0000")
        terminal.type(CTRL_C)
        leave(terminal)
        rows, written = terminal.rows, terminal.written
    stream = MarkdownStream(columns)
    stream.feed(text)
    stream.finish()
    expected = rows_of(stream.take_lines(), columns)
    start = rows.index(expected[0], rows.index("  so it ends."))
    assert rows[start : start + len(expected)] == expected
    assert "\x1b[L" in written
    assert "\x1b[35mdef\x1b[0m" in written, "it has its colours"


@pytest.mark.parametrize("typed", ["", "draft"])
def test_escape_stops_the_answer_and_keeps_it(home: Path, typed: str) -> None:
    with chat(home) as terminal:
        terminal.expect_prompt()
        terminal.type("hang\n")
        terminal.expect("one two three")
        if typed:
            terminal.type(typed)
            terminal.expect_typed(typed)
        terminal.type(ESCAPE)
        terminal.expect("stopped; what arrived is kept")
        terminal.expect_prompt(typed)
        assert terminal.rows.count("one two three") == 1
        terminal.kill()


def test_a_long_paste_is_one_question_and_leaves_nothing_behind(home: Path, url: str) -> None:
    pasted = [f"pasted line {number:03}" for number in range(70)]
    with chat(home) as terminal:
        terminal.expect_prompt()
        terminal.type("wait " + "many words " * 90 + "\n")
        terminal.expect("begun,")
        text = "\n".join(pasted)
        terminal.type(f"\x1b[200~{text}\x1b[201~")
        terminal.expect("pasted line 069")
        # Half of the screen's 40 rows.
        assert terminal.shown.count("pasted line 049") == 0
        release(url)
        terminal.type("\n")
        terminal.expect("the last: pasted line 000")
        terminal.expect_prompt()
        leave(terminal)
        rows = terminal.rows
    assert rows.count("> pasted line 000") == 1
    for line in pasted[1:]:
        assert [row.strip() for row in rows].count(line) == 2, "in the question and in the answer"
    assert sum(row.count("many") for row in rows[rows.index("> pasted line 000") - 12 :]) == 90


def test_what_a_terminal_is_too_slow_for_waits_and_is_not_lost(home: Path) -> None:
    # More than a terminal takes at once.
    words = "many words in a long line " * 3000
    with chat(home, "--model", "echo") as terminal:
        terminal.expect_prompt()
        terminal.type(f"\x1b[200~{words}\x1b[201~\n")
        terminal.expect("(I was shown 1 messages.)")
        terminal.expect_prompt()
        leave(terminal)
        said = " ".join(terminal.shown.rpartition("> many words")[2].split())
    # The first of the question stands before that.
    assert said.count("many words") == 2 * 3000 - 1


@pytest.mark.parametrize(
    ("typed", "word"), [("exit\n", "exit"), ("/exit\n", "/exit"), (CTRL_D, "exit")]
)
def test_one_leaves_by_a_word_that_is_queued(home: Path, url: str, typed: str, word: str) -> None:
    with chat(home) as terminal:
        terminal.expect_prompt()
        terminal.type("wait\n")
        terminal.expect("begun,")
        terminal.type(typed)
        terminal.expect_row(f"queued: {word}")
        release(url)
        terminal.expect("go on with: ")
        assert terminal.leave() == 0


def test_what_was_queued_and_not_sent_is_left_on_the_screen(home: Path, url: str) -> None:
    with chat(home) as terminal:
        terminal.expect_prompt()
        terminal.type("wait\n")
        terminal.expect("begun,")
        terminal.type("exit\nleft over\n")
        terminal.expect_row("queued: left over")
        release(url)
        terminal.expect("go on with: ")
        assert terminal.leave() == 0
        assert "not sent: left over" in terminal.rows


def test_keys_after_an_answer_are_taken_in_their_order(home: Path, url: str) -> None:
    with chat(home, PROMPT_TOOLKIT_NO_CPR="") as terminal:
        terminal.expect_prompt()
        terminal.type("wait\n")
        terminal.expect("begun,")
        terminal.type("typed")
        terminal.expect_typed("typed")
        release(url)
        terminal.expect_row("30.0000")
        # It clears the line, so that Ctrl-D leaves: as a signal it would come after it.
        terminal.type(CTRL_C + CTRL_D)
        assert terminal.leave() == 0


def test_what_is_typed_before_the_prompt_is_there_is_shown_once(home: Path) -> None:
    with chat(home) as terminal:
        terminal.type("early words")
        terminal.expect("antiphon")
        terminal.expect_prompt("early words")
        terminal.type("\n")
        terminal.expect("the last: early words")
        terminal.expect_prompt()
        leave(terminal)
        assert sum("early words" in row for row in terminal.rows) == 2


def test_what_is_asked_before_anything_can_answer_is_shown_until_then(home: Path, url: str) -> None:
    (home / "d.toml").write_text(f'base_url = "{url}/held"\nstore = "sqlite:turns.db"\n')
    with chat(home, "--config", "d.toml") as terminal:
        terminal.expect_prompt()
        terminal.type("early words\n")
        terminal.expect_row("queued: early words")
        terminal.type(CTRL_C)
        terminal.expect_prompt("early words")
        terminal.type(" again\n")
        terminal.expect_row("queued: early words again")
        release(url)
        terminal.expect_row("1 messages, the last: early words again")
        terminal.expect_prompt()
        leave(terminal)
        assert terminal.rows.count("> early words again") == 1


def test_a_draft_is_no_answer_to_what_the_program_asks(home: Path, url: str) -> None:
    with chat(home, "--tools", "tools.py") as terminal:
        terminal.expect_prompt()
        terminal.type("wait\n")
        terminal.expect("begun,")
        terminal.type('call refund {"order":"1"}\nyes, but')
        terminal.expect_typed("yes, but")
        release(url)
        for typed in ("", "\n", "\n"):
            terminal.type(typed)
            terminal.expect("y runs it")
            terminal.expect_asked("run refund? [y/n/e/a] ")
        terminal.type("n\n")
        terminal.expect("refund: declined")
        terminal.expect("the tool says The user declined this call")
        terminal.expect_prompt("yes, but")
        terminal.type(" not today\n")
        terminal.expect("the last: yes, but not today")
        terminal.expect_prompt()
        leave(terminal)


def test_a_draft_is_not_in_a_list_that_opens_meanwhile(home: Path) -> None:
    with chat(home) as terminal:
        terminal.expect_prompt()
        terminal.type("count 40\n/tree\nhalf a question")
        terminal.expect("turns:")
        terminal.expect("1 of 1")
        terminal.type(ESCAPE)
        terminal.expect_prompt("half a question")
        assert "turns: half" not in terminal.shown
        terminal.type("\n")
        terminal.expect("the last: half a question")
        terminal.expect_prompt()
        leave(terminal)


def test_what_comes_while_the_editor_has_the_screen_waits_for_it(home: Path, url: str) -> None:
    editor, closing = home / "editor", home / "closing"
    os.mkfifo(closing)
    editor.write_text(f'#!/bin/sh\necho editing; read line < {closing}; printf edited > "$1"\n')
    editor.chmod(0o700)
    with chat(home, EDITOR=str(editor)) as terminal:
        terminal.expect_prompt()
        terminal.type("wait\n")
        terminal.expect("begun,")
        # Neither the rest of the answer nor the list may be drawn over the editor.
        terminal.type("/tree\nhalf")
        terminal.expect_typed("half")
        terminal.type(CTRL_X_CTRL_E)
        terminal.expect("editing")
        release(url)
        closing.write_text("close\n")
        shown = terminal.expect("turns:")
        # In however many pieces.
        assert "done" in shown
        terminal.type(ESCAPE)
        terminal.expect_prompt("edited")
        terminal.type("\n")
        terminal.expect("3 messages, the last: edited")
        terminal.expect_prompt()
        leave(terminal)
        assert terminal.rows.count("begun, and done") == 1


def test_what_cannot_be_sent_is_not_put_over_a_draft(home: Path, url: str) -> None:
    with chat(home) as terminal:
        terminal.expect_prompt()
        terminal.type("wait\n")
        terminal.expect("begun,")
        terminal.type("/modle echo\nhalf a question")
        terminal.expect_typed("half a question")
        release(url)
        terminal.expect("/modle is no command")
        terminal.expect("what you typed before is in the history")
        terminal.expect_prompt("half a question")
        terminal.type(CTRL_C)
        terminal.type("\x1b[A")
        terminal.expect_prompt("/modle echo")
        terminal.kill()


def test_an_arrow_key_that_is_typed_at_once_waits_for_the_history(home: Path) -> None:
    with chat(home, "--model", "echo") as terminal:
        terminal.expect_prompt()
        terminal.type("remember me\n")
        terminal.expect("shown 1 messages.)")
        terminal.expect_prompt()
        leave(terminal)
    with chat(home, "--model", "echo") as terminal:
        terminal.expect_prompt()
        terminal.type("\x1b[A")
        terminal.expect_prompt("remember me")
        terminal.kill()


def test_what_is_typed_behind_an_arrow_key_is_about_what_it_brings(home: Path) -> None:
    for words in ("first words", "last words"):
        with chat(home, "-p", words, "--model", "echo") as terminal:
            assert terminal.leave() == 0
    with chat(home, "--model", "echo") as terminal:
        # Before anything of the store is there.
        terminal.type("\x1b[A\x1b[A and more\n")
        terminal.expect("You said: first words and more")
        terminal.expect_prompt()
        leave(terminal)
