"""The interactive chat: typing while it answers, commands, branches, tools, plain terminals."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from antiphon.cli.interactive.slash_commands import COMMANDS
from support.chat_terminal import chat, leave
from support.chat_transcript import record
from support.command_line import PROGRAM, environment
from support.command_line_upstream import release
from support.mcp_toolsets import stdio_command
from support.pseudo_terminal import CTRL_C, CTRL_D, ESCAPE, Terminal

CTRL_Z = "\x1a"


def test_a_word_that_is_no_command_is_not_sent(home: Path) -> None:
    with chat(home) as terminal:
        terminal.expect_prompt()
        terminal.type("/modle echo\n")
        terminal.expect("/modle is no command: did you mean /model?")
        terminal.expect_prompt("/modle echo")
        terminal.type("\x15/usr/bin/env what?\n")
        terminal.expect("/usr/bin/env is no command; to ask about a path, begin with //")
        # What was typed is there again, ready to be sent.
        terminal.expect_prompt("//usr/bin/env what?")
        terminal.type("\n")
        terminal.expect("1 messages, the last: /usr/bin/env what?")
        terminal.expect_prompt()
        leave(terminal)


def test_editing_and_retrying_make_branches(home: Path) -> None:
    with chat(home) as terminal:
        terminal.expect_prompt()
        terminal.type("first\n")
        terminal.expect("the last: first")
        terminal.expect_prompt()
        terminal.type(ESCAPE + ESCAPE)
        terminal.expect("edit the question")
        terminal.expect_prompt("first")
        terminal.type(" again\n")
        terminal.expect("1 messages, the last: first again")
        terminal.expect_prompt()
        terminal.type("/retry echo\n")
        terminal.expect("You said: first again")
        terminal.expect_prompt()
        terminal.type("/siblings\n")
        terminal.expect("1  far  first: 1 messages")
        terminal.expect("→ 3  echo  first again")
        terminal.expect_prompt()
        terminal.type("/siblings 1\n")
        terminal.expect("the last: first\n")
        terminal.expect_prompt()
        terminal.type("/edit other words\n")
        terminal.expect("1 messages, the last: other words")
        terminal.expect_prompt()
        terminal.type("/cost\n")
        terminal.expect("1 turn: ")
        terminal.expect_prompt()
        leave(terminal)


def test_tools_run_and_ask(home: Path) -> None:
    with chat(home, "--tools", "tools.py") as terminal:
        terminal.expect_prompt()
        terminal.type('call weather {"city":"Oslo"}\n')
        terminal.expect('● weather({"city":"Oslo"})')
        terminal.expect("└ sunny in Oslo")
        terminal.expect("the tool says sunny in Oslo")
        terminal.expect_prompt()
        terminal.type('call refund {"order":"1"}\n')
        terminal.expect_asked("[y/n/e/a] ")
        terminal.type("n too much\n")
        terminal.expect("the tool says The user declined this call, so it was not run. too much")
        terminal.expect_prompt()
        terminal.type('call refund {"order":"2"}\n')
        terminal.expect_asked("[y/n/e/a] ")
        terminal.type("e\n")
        terminal.expect_asked('arguments: {"order":"2"}')
        terminal.type("\x15{order: 3}\n")
        terminal.expect("the arguments are no JSON object: ")
        terminal.expect_asked("arguments: {order: 3}")
        terminal.type("\x15" + '{"order":"3"}\n')
        terminal.expect('refund({"order":"3"}): approved')
        terminal.expect("the tool says paid back 3")
        terminal.expect_prompt()
        # The question is asked again, not the decision taken again.
        terminal.type("/retry\n")
        terminal.expect('refund({"order":"2"})')
        terminal.expect_asked("[y/n/e/a] ")
        terminal.type("n\n")
        terminal.expect("the tool says The user declined this call")
        terminal.expect_prompt()
        terminal.type(ESCAPE + ESCAPE)
        terminal.expect("edit the question")
        terminal.expect_prompt('call refund {"order":"2"}')
        terminal.type("\x15second thoughts\n")
        terminal.expect("9 messages, the last: second thoughts")
        terminal.expect_prompt()
        terminal.type('call refund {"order":"4"}\n')
        terminal.expect_asked("[y/n/e/a] ")
        terminal.type("a\n")
        terminal.expect("the tool says paid back 4")
        terminal.expect_prompt()
        terminal.type('call refund {"order":"5"}\n')
        terminal.expect("the tool says paid back 5")
        terminal.expect_prompt()
        leave(terminal)


def test_a_call_that_is_left_open_waits(home: Path) -> None:
    with chat(home, "--tools", "tools.py") as terminal:
        terminal.expect_prompt()
        terminal.type('call refund {"order":"1"}\n')
        terminal.expect_asked("[y/n/e/a] ")
        terminal.type(CTRL_D)
        terminal.expect("it waits")
        terminal.expect_prompt()
        terminal.kill()
    with chat(home, "--continue", "-p", "meanwhile") as terminal:
        terminal.expect("a call waits for a decision first: antiphon chat --from resp_")
        assert terminal.leave() == 1
    with chat(home) as terminal:
        terminal.expect_prompt()
        terminal.type("/approve 1\n")
        terminal.expect_asked("[y/n/e/a] ")
        terminal.type("y\n")
        terminal.expect("there is no tool refund here to run it")
        terminal.expect_asked("[y/n/e/a] ")
        terminal.type(CTRL_D)
        terminal.expect("it waits")
        terminal.expect_prompt()
        leave(terminal)
    with chat(home, "--tools", "tools.py") as terminal:
        terminal.expect_prompt()
        terminal.type("/approve\n")
        terminal.expect('refund({"order":"1"})')
        terminal.expect_asked("later): ")
        terminal.type("1\n")
        terminal.expect_asked("[y/n/e/a] ")
        terminal.type("y\n")
        terminal.expect("the tool says paid back 1")
        terminal.expect_prompt()
        leave(terminal)
    # Gone on with, the decision is shown with the question that it was about.
    with chat(home, "--continue") as terminal:
        terminal.expect("> call refund")
        terminal.expect("the tool says paid back 1")
        terminal.expect_prompt()
        leave(terminal)
        rows = [row for row in terminal.rows if row]
        assert rows[2:6] == [
            '> call refund {"order":"1"}',
            '● refund({"order":"1"})',
            "  └ paid back 1",
            "the tool says paid back 1",
        ]


def test_functions_and_mcp_servers_work_side_by_side(home: Path) -> None:
    with (home / "c.toml").open("a") as file:
        command = json.dumps(stdio_command())
        file.write(f'[mcp.files]\ncommand = {command}\nrequire_approval = "never"\n')
    with chat(home, "--tools", "tools.py") as terminal:
        terminal.expect_prompt()
        terminal.type('call weather {"city":"Oslo"}\n')
        terminal.expect("the tool says sunny in Oslo")
        terminal.expect_prompt()
        terminal.type('call files__say {"text":"hello"}\n')
        terminal.expect("└ hello")
        terminal.expect_prompt()
        terminal.type('call refund {"order":"1"}\n')
        terminal.expect_asked("[y/n/e/a] ")
        terminal.type(CTRL_D)
        terminal.expect("it waits")
        terminal.expect_prompt()
        terminal.type("/approve\n")
        terminal.expect(' refund({"order":"1"})')
        terminal.type("1\ny\n")
        terminal.expect("the tool says paid back 1")
        terminal.expect_prompt()
        leave(terminal)


def test_another_chat_goes_on_in_its_own_way(home: Path) -> None:
    call = 'call refund {"order":"1"}'
    with chat(home, "-p", call, "--system", "Be a pirate.", "--tools", "tools.py") as terminal:
        assert terminal.leave() == 0
    with chat(home, "--model", "echo", "--tools", "tools.py") as terminal:
        terminal.expect_prompt()
        terminal.type("/model far\n")
        terminal.expect("far answers from now on")
        terminal.type('call refund {"order":"2"}\n')
        terminal.expect_asked("[y/n/e/a] ")
        terminal.type("a\n")
        terminal.expect("the tool says paid back 2")
        terminal.expect_prompt()
        terminal.type("/model echo\n")
        terminal.expect("echo answers from now on")
        terminal.expect_prompt()
        terminal.type("/approve 1\n")
        terminal.expect("continuing after 1 turn, far")
        terminal.expect("> " + call)
        # What runs without asking does so in the chat that it was said in.
        terminal.expect_asked("[y/n/e/a] ")
        terminal.type("n\n")
        terminal.expect("the tool says The user declined this call")
        terminal.expect_prompt()
        terminal.type("/system\n")
        terminal.expect("Be a pirate.")
        terminal.expect_prompt()
        # What it went on by ends with it; what was given here stays.
        terminal.type("/new\n")
        terminal.expect("a new chat, echo; the old one stays stored")
        terminal.type("/system\n")
        terminal.expect("no instructions")
        terminal.type("/system Be brief.\n/new\n")
        terminal.expect("a new chat, echo by your instructions; the old one stays stored")
        terminal.expect_prompt()
        leave(terminal)


def test_an_edit_ends_with_the_chat_that_it_is_in(home: Path) -> None:
    with chat(home, PROMPT_TOOLKIT_NO_CPR="") as terminal:
        terminal.expect_prompt()
        terminal.type("first\n")
        terminal.expect("1 messages, the last: first")
        terminal.expect("30 tokens")
        terminal.type(ESCAPE + ESCAPE)
        terminal.expect("edit the question")
        terminal.type("\x15/new\n")
        terminal.expect("a new chat")
        terminal.type("another\n")
        terminal.expect("1 messages, the last: another")
        terminal.expect("30 tokens")
        assert "2/2" not in terminal.shown, "it is no branch of the first"
        leave(terminal)


def test_what_is_erased_is_no_longer_offered(home: Path) -> None:
    with chat(home) as terminal:
        terminal.expect_prompt()
        terminal.type("a secret\n")
        terminal.expect("the last: a secret")
        terminal.expect_prompt()
        terminal.type("/erase\n")
        terminal.expect_asked("[y/N] ")
        terminal.type("y\n")
        terminal.expect("erased")
        terminal.expect_prompt()
        terminal.type("\x1b[A")
        terminal.type("kept words\n")
        terminal.expect("1 messages, the last: ")
        assert terminal.expect("kept words") == ""
        terminal.expect_prompt()
        leave(terminal)
    assert b"a secret" not in (home / "turns.db").read_bytes()


@pytest.mark.parametrize("env", [{"ACCESSIBLE": "1"}, {"TERM": "dumb"}, {"args": "--plain"}])
def test_a_plain_terminal_gets_no_cursor_movement(home: Path, env: dict[str, str]) -> None:
    args = [env["args"]] if "args" in env else []
    with chat(home, "--tools", "tools.py", *args, **env) as terminal:
        terminal.expect_prompt()
        terminal.type("**bold** words and `code`\n")
        terminal.expect("the last: bold words and `code`")
        terminal.expect_prompt()
        terminal.type('call refund {"order":"1"}\n')
        terminal.expect_asked("[y/n/e/a] ")
        terminal.type("y\n")
        terminal.expect("the tool says paid back 1")
        terminal.expect_prompt()
        terminal.type("/nope\n")
        terminal.expect("/nope is no command")
        terminal.expect_prompt()
        terminal.type("/search bold\n")
        terminal.expect("1  now")
        terminal.expect_asked("stay here): ")
        terminal.type("\n")
        terminal.expect_prompt()
        terminal.type("/tree\n")
        terminal.expect_asked("number (Enter: none): ")
        terminal.type("\n")
        terminal.expect_prompt()
        terminal.type("/erase\n")
        terminal.expect_asked("[y/N] ")
        terminal.type(CTRL_C)
        terminal.expect("stopped")
        terminal.expect_prompt()
        terminal.type("exit\n")
        assert terminal.leave() == 0
    assert re.sub(r"\x1b\[[0-9;]*m", "", terminal.written).count("\x1b") == 0
    assert terminal.rows.count("> **bold** words and `code`") == 1, "it is echoed once"


@pytest.mark.parametrize("options", [[], ["--plain"]])
def test_a_running_turn_of_another_process_is_shown_as_it_grows(
    home: Path, url: str, options: list[str]
) -> None:
    with chat(home, "--tools", "tools.py") as first:
        first.expect_prompt()
        first.type('call weather {"city":"wait"}\n')
        first.expect("begun,")
        with chat(home, "--continue", *options) as second:
            second.expect("> call weather")
            second.expect("another process answers this")
            second.expect('● weather({"city":"wait"})')
            second.expect("└ sunny in wait")
            if not options:
                second.type("next")
                second.expect_typed("next")
                second.type("\n")
                second.expect_row("queued: next")
                second.type(ESCAPE)
                second.expect("runs in another process")
            release(url)
            second.expect_row("begun, and done")
            if not options:
                second.expect_row("the last: next")
            second.expect_prompt()
            leave(second)
            assert second.rows.count("begun, and done") == 1
            assert second.rows.count('● weather({"city":"wait"})') == 1
        first.expect("and done")
        first.expect_prompt()
        leave(first)


@pytest.mark.slow
def test_the_transcript_of_the_readme_is_what_the_chat_shows() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    assert "\n".join(record()).rstrip() in readme


def test_the_help_breaks_its_lines_between_words(home: Path) -> None:
    with chat(home) as terminal:
        terminal.expect_prompt()
        terminal.resize(40)
        terminal.type("/help\n")
        terminal.expect("sends a")
        terminal.expect_prompt()
        rows = terminal.rows
        leave(terminal)
    shown = " ".join(" ".join(rows).split())
    for one in COMMANDS:
        assert f" {' '.join(f'/{one.name} {one.arguments} {one.help}'.split())} " in shown


def test_an_answer_fills_the_width_that_the_terminal_has_now(home: Path, url: str) -> None:
    words = [f"word{number:02}" for number in range(60)]
    with chat(home) as terminal:
        terminal.expect_prompt()
        terminal.type(f"wait {' '.join(words)}\n")
        terminal.expect("begun,")
        terminal.resize(50)
        release(url)
        terminal.expect("word59")
        terminal.expect_prompt()
        leave(terminal)
        answer = terminal.shown.rpartition("begun,")[2].split("\n")
    # The line that had begun is as wide as the terminal was.
    for line in answer[1:6]:
        assert 40 < len(line.rstrip()) < 50


def test_a_status_line_says_what_answers_and_what_it_costs(home: Path, url: str) -> None:
    with chat(home, "--tools", "tools.py", PROMPT_TOOLKIT_NO_CPR="") as terminal:
        terminal.expect_prompt()
        terminal.type('call weather {"city":"Oslo"}\n')
        terminal.expect("└ sunny in Oslo")
        terminal.expect_row(" % · 60 tokens · 60.0000")
        assert "context 6 %" not in terminal.shown, "the first call is in the second one's context"
        terminal.type("/new\n")
        terminal.expect("a new chat")
        terminal.type("first\n")
        terminal.expect("the last: first")
        terminal.expect_row("far · context 3 % · 30 tokens · 30.0000")
        terminal.type("/retry echo\n")
        terminal.expect("You said: first")
        terminal.expect_row("2/2")
        terminal.type("/siblings 1\n")
        terminal.expect_row("1/2")
        terminal.type("/model echo\nsecond\n")
        terminal.expect("You said: second")
        terminal.expect_row("echo ·")
        terminal.type("/branch\n")
        terminal.expect("going on after: first")
        terminal.expect_row("1/2")
        terminal.type("/model far\n")
        terminal.type("wait\n")
        terminal.expect("begun,")
        terminal.type("typed")
        terminal.expect_typed("typed")
        terminal.expect_row("Esc stops the answer · Enter queues the next question")
        release(url)
        terminal.expect_row("begun, and done")
        terminal.type(CTRL_C)
        leave(terminal)
        assert not any("·" in row for row in terminal.rows), "it is not in what is scrolled back to"


def test_a_chat_goes_on_whose_model_is_gone(home: Path) -> None:
    with chat(home) as terminal:
        terminal.expect_prompt()
        terminal.type("first\n")
        terminal.expect("the last: first")
        terminal.expect_prompt()
        leave(terminal)
    settings = home / "c.toml"
    settings.write_text(settings.read_text().replace("far", "other"))
    with chat(home, "--continue") as terminal:
        terminal.expect("the model far is not there now")
        terminal.expect("continuing after 1 turn, other")
        terminal.expect("the last: first")
        terminal.expect_prompt()
        terminal.type("second\n")
        terminal.expect("3 messages, the last: second")
        terminal.expect_prompt()
        leave(terminal)


_LONG_ANSWER = (
    "import sys; from antiphon.cli.interactive import chat_loop;"
    " from antiphon.cli.main import main; chat_loop._LONG_ANSWER_SECONDS = 0.0;"
    " sys.argv[1:] = ['chat', '--config', 'c.toml']; main()"
)


@pytest.mark.slow
def test_the_end_of_a_long_answer_is_signalled(home: Path) -> None:
    with Terminal(["-c", _LONG_ANSWER], environment(home), home, is_script=True) as terminal:
        terminal.expect_prompt()
        terminal.type("hello\n")
        terminal.expect("the last: hello")
        terminal.expect_prompt()
        leave(terminal)
        assert terminal.written.count("\x1b]9;the answer is complete\x1b\\\a") == 1


@pytest.mark.slow
def test_ctrl_z_suspends_the_chat_also_while_it_answers(home: Path, url: str) -> None:
    shell = "import os; os.execv('/bin/sh', ['sh', '-i'])"
    with Terminal(["-c", shell], environment(home), home, is_script=True) as terminal:
        terminal.type(f"{PROGRAM} chat --config c.toml\n")
        terminal.expect("/help lists")
        terminal.expect_prompt()
        terminal.type("wait\n")
        terminal.expect("begun,")
        for _ in range(2):
            terminal.type(CTRL_Z)
            terminal.expect("Stopped")
            terminal.type("echo back in the shell $((1+1))\n")
            terminal.expect("back in the shell 2")
            terminal.type("fg\n")
            terminal.expect_typed("")
        release(url)
        terminal.expect("and done")
        terminal.expect_prompt()
        terminal.type(CTRL_D)
        terminal.expect("go on with: ")
        terminal.expect("# ")
        terminal.type("echo left with $?\n")
        terminal.expect("left with 0")
