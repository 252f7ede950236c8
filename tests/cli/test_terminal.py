"""The chat at a terminal, through a real one."""

from __future__ import annotations

from pathlib import Path

from support.chat_terminal import chat
from support.pseudo_terminal import CTRL_C, CTRL_D, Terminal


def echo_chat(home: Path, *args: str) -> Terminal:
    return chat(home, "--model", "echo", *args)


def test_conversation_continues_after_kill_9(home: Path) -> None:
    with echo_chat(home) as terminal:
        terminal.expect_prompt()
        terminal.type("My name is Alice.\n")
        terminal.expect("You said: My name is Alice.\n")
        terminal.expect("(I was shown 1 messages.)\n")
        terminal.expect_prompt()
        terminal.type("Second.\n")
        terminal.expect("You said: Second.\nBefore that you said: My name is Alice.\n")
        terminal.expect_prompt()
        terminal.type("half a thou")
        terminal.expect_prompt("half a thou")
        terminal.kill()
    with echo_chat(home, "--continue") as terminal:
        terminal.expect("continuing after 2 turns")
        terminal.expect("Second.")
        terminal.expect_prompt()
        terminal.type("Third.\n")
        terminal.expect("Before that you said: Second.\n")
        terminal.expect("(I was shown 5 messages.)")
        terminal.expect_prompt()
        terminal.type("exit\n")
        terminal.expect("chat --continue")
        assert terminal.leave() == 0


def test_ctrl_c_stops_the_answer_and_stores_the_partial_text(home: Path) -> None:
    with chat(home, "--model", "far") as terminal:
        terminal.expect_prompt()
        terminal.type("hang\n")
        terminal.expect("one two three")
        terminal.type(CTRL_C)
        terminal.expect("stopped; what arrived is kept")
        terminal.expect_prompt()
        terminal.type("go on\n")
        terminal.expect("3 messages, the last: go on")
        terminal.expect_prompt()
        terminal.type(CTRL_D)
        assert terminal.leave() == 0
        assert "Traceback" not in terminal.shown


def test_failed_turn_does_not_end_the_chat(home: Path) -> None:
    with chat(home, "--model", "far") as terminal:
        terminal.expect_prompt()
        terminal.type("first\n")
        terminal.expect("1 messages, the last: first")
        terminal.expect_prompt()
        terminal.type("refuse\n")
        terminal.expect("error: ")
        terminal.expect_prompt("refuse")
        terminal.type("\x15last\n")
        terminal.expect("> last")
        assert "refuse" not in terminal.expect("first")
        terminal.expect_prompt()
        terminal.type("quit\n")
        assert terminal.leave() == 0


def test_ctrl_c_at_the_prompt_clears_it_and_twice_exits(home: Path) -> None:
    with echo_chat(home) as terminal:
        terminal.expect_prompt()
        terminal.type("never sent")
        terminal.expect_prompt("never sent")
        terminal.type(CTRL_C + "sent\n")
        terminal.expect("You said: sent\n")
        terminal.expect_prompt()
        terminal.type(CTRL_C)
        terminal.expect("Ctrl-C again or Ctrl-D leaves")
        terminal.expect_prompt()
        terminal.type(CTRL_C)
        assert terminal.leave() == 0


def test_a_pasted_text_is_one_message(home: Path) -> None:
    with echo_chat(home) as terminal:
        terminal.expect_prompt()
        terminal.type("\x1b[200~line one\nline two\x1b[201~\n")
        terminal.expect("You said: line one\nline two\n")
        terminal.expect("(I was shown 1 messages.)")
        terminal.expect_prompt()
        terminal.type("\n  \n" + CTRL_D)
        assert terminal.leave() == 0


def test_the_arrow_keys_show_the_prompt_history(home: Path) -> None:
    with echo_chat(home) as terminal:
        terminal.expect_prompt()
        terminal.type("remember me\n")
        terminal.expect("shown 1 messages.)")
        terminal.expect_prompt()
        terminal.type(CTRL_D)
        terminal.leave()
    with echo_chat(home) as terminal:
        terminal.expect_prompt()
        terminal.type("another\n")
        terminal.expect("shown 1 messages.)")
        terminal.expect_prompt()
        terminal.type("\x1b[A")
        terminal.expect_prompt("another")
        terminal.type("\x1b[A")
        terminal.expect_prompt("remember me")
        terminal.type("\n")
        terminal.expect("You said: remember me\n")
        terminal.type(CTRL_D)
        assert terminal.leave() == 0


def test_unstored_chat_prints_no_resume_hint(home: Path) -> None:
    with echo_chat(home, "--store", "memory:") as terminal:
        terminal.expect_prompt()
        terminal.type("hello\n")
        terminal.expect("You said: hello\n")
        terminal.expect_prompt()
        terminal.type(CTRL_D)
        assert terminal.leave() == 0
        assert "--continue" not in terminal.shown
    assert not (home / "turns.db").exists()


def test_control_characters_of_the_model_are_stripped(home: Path) -> None:
    with echo_chat(home, "-p", "\x1b]0;owned\x07 \x1b[2J \x9b31m red") as terminal:
        assert terminal.leave() == 0
        assert "]0;owned" in terminal.shown
        assert "[2J" in terminal.shown


def test_an_unknown_model_is_an_error_in_place_of_the_prompt(home: Path) -> None:
    with chat(home, "--model", "nobody") as terminal:
        assert terminal.leave() == 1
        greeting, *error = terminal.rows
        assert greeting.startswith("antiphon")
        assert "".join(error).startswith("error: The model 'nobody' does not exist here: there is")


def test_kill_during_an_answer_keeps_the_printed_text(home: Path) -> None:
    with chat(home, "--model", "far") as terminal:
        terminal.expect_prompt()
        terminal.type("first\n")
        terminal.expect("1 messages, the last: first")
        terminal.expect_prompt()
        terminal.type("hang\n")
        terminal.expect("one two three")
        terminal.kill()
    with echo_chat(home, "--continue") as terminal:
        terminal.expect("continuing after 2 turns")
        terminal.expect("> hang")
        terminal.expect_prompt()
        terminal.type("last\n")
        terminal.expect("hang\n")
        terminal.expect_prompt()
        terminal.type(CTRL_D)
        assert terminal.leave() == 0
