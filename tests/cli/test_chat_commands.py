"""The interactive chat's commands and keys, in one chat."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path

from antiphon.cli.interactive.slash_commands import COMMANDS
from support.chat_terminal import chat, leave
from support.command_line import PROGRAM, environment
from support.pseudo_terminal import CTRL_C

CTRL_R, CTRL_X_CTRL_E, ALT_ENTER, UP = "\x12", "\x18\x05", "\x1b\r", "\x1b[A"
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108020000009077"
    "53de0000000c4944415408d763f8cfc0000003010100c9fe92ef0000000049454e44ae426082"
)
#: What is typed, and what has to come, in this order, before the next prompt. Where that is not
#: empty, what is in it is the third; None: there is none.
COMMAND_TABLE: tuple[tuple[str, list[str], *tuple[str | None, ...]], ...] = (
    ("first ```x```\n", ["the last: first x"]),
    ("/help\n", [*(f"/{one.name}" for one in COMMANDS), "Ctrl-X Ctrl-E opens the editor"]),
    ("/model\n", ["→ far  1000 tokens", "echo"]),
    ("/model nobody\n", ["error: ", "nobody"]),
    ("/system Be kind.\n", ["instructions from the next question on"]),
    ("/system\n", ["Be kind."]),
    ("/context\n", ["system: Be kind.", "user: first", "assistant: 1 messages", "3 messages"]),
    ("second\n", ["4 messages, the last: second"]),
    ("/cost\n", ["2 turns: "]),
    ("/queue\n", ["nothing waits"]),
    ("/tools\n", ["weather  The weather of a city.", "refund"]),
    ("/approve\n", ["nothing waits for a decision"]),
    ("/pin\n", ["pinned"]),
    ("/pin\n", ["no longer pinned"]),
    ("/keep\n", ["this chat does not expire any more"]),
    ("/keep\n", ["this chat expires on 20"]),
    ("/image\n", ["which file?"]),
    ("/image 'dot.png'\n", ["with the next question"]),
    ("/attach my\\ notes.txt\n", ["my notes.txt goes along"]),
    ("/attach nowhere\n", ["error: nowhere cannot be read: No such file or directory"]),
    ("what is it?\n", ["the last: what is it?"]),
    ("/export chat.json\n", ["saved as chat.json"]),
    ("/export chat.json\n", ["cannot be written: File exists"]),
    ("/import nowhere.json\n", ["cannot be read"]),
    ("/share\n", ["http://127.0.0.1:8080/s/", "whoever has the link"]),
    ("/web\n", ["http://127.0.0.1:8080/r/resp_"]),
    ("/open\n", ["what is it?"]),
    ("/copy\n", ["copied ", "(OSC 52)"]),
    ("/copy 3\n", ["the answer has 1 code block"]),
    ("/schema form.json\n", ["answers are JSON by the schema form"]),
    ("json\n", ['{"schema_name": "form"']),
    ("/schema off\n", ["answers are words"]),
    ("/branch 2\n", ["going on after: second"]),
    ("third way\n", ["6 messages, the last: third way"]),
    ("/retry far\n", ["6 messages, the last: third way"]),
    ("/compare\n", ["1 of 3: far", "2 of 3: far", "3 of 3: far"]),
    ("/search zebra\n", ["nothing was found"]),
    ("/modle\n", ["did you mean /model?"], "/modle"),
    (CTRL_C + "//slash\n", ["the last: /slash"]),
    ("/resume\n", ["chats:", "Esc leaves"], None),
    (CTRL_C, []),
    ("/new\n", ["a new chat"]),
    ("/cost\n", ["nothing has been asked yet"]),
    ("/retry\n", ["nothing has been asked yet"]),
    # Keys.
    ("one" + ALT_ENTER + "two\n", ["the last: one", "two"]),
    ("\x1b[200~pasted\nlines\x1b[201~\n", ["the last: pasted", "lines"]),
    (CTRL_X_CTRL_E, [], "written in the editor"),
    ("\n", ["the last: written in the editor"]),
    (CTRL_R + "third w", ["third way"], None),
    ("\n\n", ["the last: third way"]),
    (UP + UP + "\n", ["the last: written in the editor"]),
    ("/attach form.json\n", ["form.json goes along with the next question"]),
    ("what is in it?\n", ["the last: what is in it?", "form.json:", '{"type": "object"}']),
)


def test_each_command_and_key_does_what_the_help_says(home: Path) -> None:
    (home / "dot.png").write_bytes(PNG)
    (home / "my notes.txt").write_text("notes")
    (home / "form.json").write_text(json.dumps({"type": "object"}))
    editor = home / "editor"
    editor.write_text("#!/bin/sh\nprintf 'written in the editor' > \"$1\"\n")
    editor.chmod(0o700)
    with chat(home, "--tools", "tools.py", EDITOR=str(editor), PAGER="cat") as terminal:
        terminal.expect_prompt()
        for typed, shown, *drafts in COMMAND_TABLE:
            terminal.type(typed)
            for text in shown:
                terminal.expect(text)
            if (draft := drafts[0] if drafts else "") is not None:
                terminal.expect_prompt(draft)
        leave(terminal)
        written = terminal.written
    copied = base64.b64encode(b"4 messages, the last: second").decode()
    assert "\x1b]52;c;" in written
    assert copied not in written, "only the newest answer was copied"
    marks = [written.count(f"\x1b]133;{kind}\x1b\\") for kind in "AC"]
    assert min(marks) > 10, "prompts and answers are marked for terminals that jump"
    saved = json.loads((home / "chat.json").read_text())
    assert "second" in json.dumps(saved)


def test_ctrl_c_never_breaks_a_chat(home: Path) -> None:
    with chat(home, "--tools", "tools.py") as terminal:
        terminal.expect_prompt()
        terminal.type("typed")
        terminal.expect_prompt("typed")
        terminal.type(CTRL_C)
        terminal.type("hang\n")
        terminal.expect("one two three")
        terminal.type(CTRL_C)
        terminal.expect("stopped; what arrived is kept")
        terminal.expect_prompt()
        terminal.type('call refund {"order":"1"}\n')
        terminal.expect_asked("[y/n/e/a] ")
        terminal.type(CTRL_C)
        terminal.expect("it waits")
        terminal.expect_prompt()
        terminal.type("meanwhile\n")
        terminal.expect("a call waits for a decision first")
        terminal.expect_asked("[y/n/e/a] ")
        terminal.type("n\n")
        terminal.expect("the tool says The user declined")
        terminal.expect_prompt("meanwhile")
        terminal.type("\n")
        terminal.expect("the last: meanwhile")
        terminal.expect_prompt()
        terminal.type("/cost\n")
        terminal.expect("without the tokens of 1 that ended before the model had counted them")
        terminal.expect_prompt()
        terminal.type("/erase\n")
        terminal.expect_asked("[y/N] ")
        terminal.type(CTRL_C)
        terminal.expect("nothing was erased")
        terminal.expect_prompt()
        terminal.type("/tree\n")
        terminal.expect("hang")
        terminal.type(CTRL_C)
        terminal.expect_prompt()
        terminal.type("hang\n")
        terminal.expect("one two three")
        terminal.type("half")
        terminal.expect_typed("half")
        # It clears what is typed, then stops the answer.
        terminal.type(CTRL_C)
        terminal.type(CTRL_C)
        terminal.expect("stopped; what arrived is kept")
        terminal.expect_prompt()
        leave(terminal)


def test_erase_goes_on_from_before_a_turn_that_another_program_erased(home: Path) -> None:
    def run(*args: str) -> str:
        arguments = [PROGRAM, *args, "--config", "c.toml"]
        return subprocess.run(
            arguments, cwd=home, env=environment(home), check=True, capture_output=True, text=True
        ).stdout

    with chat(home) as terminal:
        for words in ("one", "two", "three"):
            terminal.expect_prompt()
            terminal.type(words + "\n")
            terminal.expect(f"the last: {words}")
        terminal.expect_prompt()
        (second,) = json.loads(run("search", "two", "--json"))
        run("delete", second["response_id"], "--yes")
        terminal.type("/erase\n")
        terminal.expect_asked("[y/N] ")
        terminal.type("y\n")
        terminal.expect("erased: ")
        terminal.expect_prompt()
        terminal.type("four\n")
        terminal.expect("3 messages, the last: four")
        terminal.expect_prompt()
        leave(terminal)


def test_a_chat_is_read_by_its_id(home: Path) -> None:
    with chat(home, "-p", "about lighthouses") as terminal:
        assert terminal.leave() == 0
    listing = [PROGRAM, "list", "--json", "--config", "c.toml"]
    done = subprocess.run(listing, cwd=home, env=environment(home), capture_output=True, check=True)
    chat_id = json.loads(done.stdout)[0]["id"]
    with chat(home, PAGER="cat") as terminal:
        terminal.expect_prompt()
        terminal.type(f"/open {chat_id}\n")
        terminal.expect("1 messages, the last: about lighthouses")
        terminal.expect_prompt()
        leave(terminal)
