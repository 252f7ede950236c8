"""What goes wrong under the interactive chat: nothing is lost, and it says what to do."""

from __future__ import annotations

import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from support.chat_terminal import chat, chat_home, leave
from support.command_line import PROGRAM, environment
from support.command_line_upstream import release
from support.pseudo_terminal import CTRL_C, CTRL_D, ESCAPE, Terminal
from support.small_disk import small_disk

PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108020000009077"
    "53de0000000c4944415408d763f8cfc0000003010100c9fe92ef0000000049454e44ae426082"
)
PAYING_TOOL = '''
from antiphon import tool

@tool
def pay(order: str) -> str:
    """Pay an order back."""
    with open("paid", "a") as file:
        file.write(order + "\\n")
    return f"paid back {order}"

@tool(needs_approval=True)
def refund(order: str) -> str:
    """Pay an order back, if that is agreed to."""
    return pay(order)
'''
CTRL_Z = "\x1a"


def test_a_question_that_fails_is_in_the_prompt_again(home: Path) -> None:
    (home / "a.png").write_bytes(PNG)
    with chat(home) as terminal:
        terminal.expect_prompt()
        terminal.type("/image a.png\n")
        terminal.expect("goes along")
        terminal.expect_prompt()
        terminal.type("refuse\n")
        terminal.expect("error: ")
        terminal.expect_prompt("refuse")
        # The image goes along with it, as before.
        terminal.type(" nothing\n")
        terminal.expect("1 messages, the last: refuse nothing")
        terminal.expect("[image]")
        terminal.expect_prompt()
        terminal.type("/edit refuse\n")
        terminal.expect("error: ")
        terminal.expect_prompt("/edit refuse")
        terminal.type(" less\n")
        terminal.expect("1 messages, the last: refuse less")
        terminal.expect("[image]")
        terminal.expect_prompt()
        terminal.type(ESCAPE + ESCAPE)
        terminal.expect("edit the question")
        terminal.expect_prompt("refuse less")
        terminal.type("\x15refuse\n")
        terminal.expect("error: ")
        terminal.expect_prompt("refuse")
        # It replaces the question yet.
        terminal.type(" it\n")
        terminal.expect("1 messages, the last: refuse it")
        terminal.expect("[image]")
        terminal.expect_prompt()
        leave(terminal)


def test_what_is_queued_behind_a_question_that_fails_waits(home: Path, url: str) -> None:
    with chat(home) as terminal:
        terminal.expect_prompt()
        terminal.type("wait\n")
        terminal.expect("begun,")
        terminal.type("refuse\nafter\n")
        terminal.expect_row("queued: after")
        release(url)
        terminal.expect("error: ")
        terminal.expect("what is queued waits until you send something")
        terminal.expect_prompt("refuse")
        terminal.type(" nothing\n")
        terminal.expect("3 messages, the last: refuse nothing")
        terminal.expect("5 messages, the last: after")
        terminal.expect_prompt()
        leave(terminal)


def test_what_is_typed_stays_where_a_question_fails(home: Path, url: str) -> None:
    with chat(home) as terminal:
        terminal.expect_prompt()
        terminal.type("wait\n")
        terminal.expect("begun,")
        terminal.type("refuse\nhalf")
        terminal.expect_typed("half")
        release(url)
        terminal.expect("↑ brings it back")
        terminal.type(" a draft")
        terminal.expect_prompt("half a draft")
        terminal.type(CTRL_C + "\x1b[A")
        terminal.expect_prompt("refuse")
        terminal.type(CTRL_C)
        leave(terminal)


def test_a_plain_terminal_offers_a_question_that_fails(home: Path) -> None:
    with chat(home, "--plain") as terminal:
        terminal.expect_prompt()
        terminal.type("refuse\n")
        terminal.expect("error: ")
        terminal.expect("Enter alone takes: refuse")
        terminal.expect_prompt()
        terminal.type("other words\n")
        terminal.expect("1 messages, the last: other words")
        terminal.expect_prompt()
        terminal.type(CTRL_D)
        assert terminal.leave() == 0


def test_a_tool_that_has_run_does_not_run_again_where_the_model_fails(home: Path, url: str) -> None:
    (home / "tools.py").write_text(PAYING_TOOL)
    with chat(home, "--tools", "tools.py") as terminal:
        terminal.expect_prompt()
        terminal.type('call refund {"order":"1 in doubt"}\n')
        terminal.expect_asked("[y/n/e/a] ")
        terminal.type("y\n")
        terminal.expect("I will not.")
        terminal.expect("/retry goes on with it")
        terminal.expect_prompt()
        # It fails again, and nothing is asked again.
        terminal.type("/retry\n")
        terminal.expect("I will not.")
        terminal.expect_prompt()
        leave(terminal)
    release(url)
    with chat(home, "--tools", "tools.py", "--continue") as terminal:
        terminal.expect("/retry goes on with it")
        terminal.expect_prompt()
        terminal.type("/retry\n")
        terminal.expect("the tool says paid back 1 in doubt")
        terminal.expect_prompt()
        leave(terminal)
    assert (home / "paid").read_text() == "1 in doubt\n"


def test_a_question_whose_tool_has_run_is_not_asked_again_by_itself(home: Path, url: str) -> None:
    (home / "tools.py").write_text(PAYING_TOOL)
    with chat(home, "--tools", "tools.py") as terminal:
        terminal.expect_prompt()
        terminal.type('call pay {"order":"2 in part"}\n')
        terminal.expect("one two three")
        terminal.expect("error: ")
        terminal.expect("/retry goes on with it")
        terminal.expect_prompt()
        release(url)
        # What was said is kept, too.
        terminal.type("/retry\n")
        terminal.expect("5 messages, the last: Go on from where you stopped.")
        terminal.expect_prompt()
        terminal.type("what then?\n")
        terminal.expect("7 messages, the last: what then?")
        terminal.expect_prompt()
        leave(terminal)
    assert (home / "paid").read_text() == "2 in part\n"


def test_an_upstream_goes_in_the_middle_of_an_answer(home: Path) -> None:
    with chat(home) as terminal:
        terminal.expect_prompt()
        terminal.type("break off\n")
        terminal.expect("one two three")
        terminal.expect("error: ")
        terminal.expect_prompt("break off")
        terminal.type(" no more\n")
        terminal.expect("1 messages, the last: break off no more")
        terminal.expect_prompt()
        leave(terminal)
        assert terminal.rows.count("one two three") == 1


@pytest.mark.parametrize("typed", ["", "half a question"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_chat_and_keeps_what_arrived(
    home: Path, number: signal.Signals, typed: str
) -> None:
    with chat(home) as terminal:
        terminal.expect_prompt()
        terminal.type("hang\n")
        terminal.expect("one two three")
        if typed:
            terminal.type(typed)
            terminal.expect_typed(typed)
        terminal.process.send_signal(number)
        assert terminal.leave() == 128 + number
        assert terminal.is_restored
        assert "Traceback" not in terminal.shown
    with chat(home, "--continue") as terminal:
        terminal.expect("> hang")
        terminal.expect("one two three")
        terminal.expect("failed: The program was stopped before the turn was over.")
        terminal.expect_prompt()
        leave(terminal)


@pytest.mark.parametrize("options", [[], ["--plain"]])
def test_a_signal_ends_a_chat_at_its_prompt(home: Path, options: list[str]) -> None:
    with chat(home, *options) as terminal:
        terminal.expect_prompt()
        terminal.type("hello\n")
        terminal.expect("the last: hello")
        terminal.expect_prompt()
        terminal.process.send_signal(signal.SIGTERM)
        assert terminal.leave() == 128 + signal.SIGTERM
        assert terminal.is_restored
        assert "Traceback" not in terminal.shown


@pytest.mark.parametrize("typed", ["", "half a question", CTRL_C])
def test_a_terminal_that_is_closed_ends_the_chat(home: Path, typed: str) -> None:
    with chat(home) as terminal:
        terminal.expect_prompt()
        terminal.type("hang\n")
        terminal.expect("one two three")
        terminal.type(typed)
        if typed == CTRL_C:
            terminal.expect("stopped")
        elif typed:
            terminal.expect_typed(typed)
        assert terminal.hang_up() == 128 + signal.SIGHUP
    with chat(home, "--continue") as terminal:
        terminal.expect("> hang")
        terminal.expect("one two three")
        terminal.expect_prompt()
        leave(terminal)


def test_a_signal_ends_a_question_of_a_script_and_keeps_what_arrived(home: Path) -> None:
    with chat(home, "-p", "hang") as terminal:
        terminal.expect("one two three")
        terminal.process.send_signal(signal.SIGTERM)
        assert terminal.leave() == 128 + signal.SIGTERM
    with chat(home, "--continue") as terminal:
        terminal.expect("one two three")
        terminal.expect_prompt()
        leave(terminal)


@contextmanager
def log_kept(database: Path) -> Iterator[None]:
    """Within this the log only grows: written again from its beginning, it needs no room."""
    with closing(sqlite3.connect(database, isolation_level=None)) as reader:
        while reader.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
            pass  # others were writing
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        yield


def test_a_disk_is_full_when_an_answer_ends(tmp_path: Path, url: str) -> None:
    with small_disk(tmp_path / "disk", 8) as disk:
        home = chat_home(disk.folder, url)
        with chat(home) as terminal:
            terminal.expect_prompt()
            terminal.type("first\n")
            terminal.expect("the last: first")
            terminal.expect_prompt()
            with log_kept(home / "turns.db"):
                terminal.type("wait\n")
                terminal.expect("begun,")
                disk.fill()
                release(url)
                terminal.expect("is full: make room")
            terminal.expect_prompt("wait")
            disk.make_room()
            terminal.type(" and again\n")
            terminal.expect("begun,")
            terminal.expect("and again")
            terminal.expect_prompt()
            leave(terminal)


def test_a_store_that_may_only_be_read(tmp_path: Path, url: str) -> None:
    with small_disk(tmp_path / "disk", 8) as disk:
        home = chat_home(disk.folder, url)
        with chat(home, "-p", "first") as terminal:
            assert terminal.leave() == 0
        disk.protect()
        with chat(home) as terminal:
            assert terminal.leave() == 1
            assert "read-only file system: give another path" in " ".join(terminal.rows)
        with chat(home, "-p", "second") as terminal:
            assert terminal.leave() == 1


@pytest.mark.slow
def test_a_store_that_another_program_has_locked(home: Path) -> None:
    with chat(home) as terminal:
        terminal.expect_prompt()
        terminal.type("first\n")
        terminal.expect("the last: first")
        terminal.expect_prompt()
        with closing(sqlite3.connect(home / "turns.db", isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            terminal.type("second\n")
            terminal.expect("error: Another process kept the database locked for too long")
            terminal.expect_prompt("second")
            other.execute("ROLLBACK")
        terminal.type(" time\n")
        terminal.expect("the last: second time")
        terminal.expect_prompt()
        leave(terminal)
        # What is logged is a line of its own.
        logged = "the store refused a write: Another process kept the database locked for too long."
        assert logged in terminal.rows


@pytest.mark.slow
def test_ctrl_z_suspends_a_chat_that_make_has_started(home: Path, url: str) -> None:
    (home / "Makefile").write_text(f"chat:\n\t@{PROGRAM} chat --config c.toml\n")
    shell = "import os; os.execv('/bin/sh', ['sh', '-i'])"
    with Terminal(["-c", shell], environment(home), home, is_script=True) as terminal:
        terminal.type("make chat\n")
        terminal.expect("/help lists")
        terminal.expect_prompt()
        terminal.type("wait\n")
        terminal.expect("begun,")
        terminal.type(CTRL_Z)
        terminal.expect("Stopped")
        terminal.type("echo back in the shell $((1+1))\n")
        terminal.expect("back in the shell 2")
        terminal.type("fg\n")
        terminal.expect_typed("")
        release(url)
        terminal.expect("and done")
        terminal.expect_prompt()
        terminal.type(CTRL_C)
        terminal.expect("Ctrl-C again")
        terminal.type("exit\n")
        terminal.expect("go on with: ")
        terminal.expect("# ")
        terminal.type("echo left with $?\n")
        terminal.expect("left with 0")


def test_a_call_that_another_terminal_has_decided_on_is_not_run_again(home: Path) -> None:
    with chat(home, "-p", 'call refund {"order":"1"}', "--tools", "tools.py") as terminal:
        assert terminal.leave() == 0
    with (
        chat(home, "--tools", "tools.py") as first,
        chat(home, "--tools", "tools.py") as second,
    ):
        for terminal in (first, second):
            terminal.expect("> ")
            terminal.type("/approve 1\n")
            terminal.expect("[y/n/e/a] ")
        first.type("n\n")
        first.expect("the tool says The user declined this call")
        first.expect("> ")
        second.type("y\n")
        second.expect("This call was decided on already")
        # What came of it is shown, and goes on.
        second.expect("the tool says The user declined this call")
        second.expect("> ")
        leave(second)
        leave(first)
