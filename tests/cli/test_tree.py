"""The tree of a chat, its outline and its screen, and the list of all chats."""

from __future__ import annotations

import json
import sqlite3
import subprocess
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.cli.tree_outline import outline
from antiphon.turn.transfer_protocols import TreeTurn
from support.chat_terminal import chat, leave
from support.command_line import PROGRAM, SCRIPTED_CONFIG, environment
from support.command_line_upstream import release
from support.pseudo_terminal import CTRL_D, ESCAPE, Terminal

_FORKS = [
    TreeTurn("a", 0.0, None),
    TreeTurn("b", 0.0, "a"),
    TreeTurn("c", 0.0, "a"),
    TreeTurn("d", 0.0, "b"),
    TreeTurn("e", 0.0, "c"),
    TreeTurn("f", 0.0, "e"),
    TreeTurn("g", 0.0, "a"),
]


def test_the_longest_branch_stays_in_its_column_and_the_others_stand_before_it() -> None:
    assert outline(_FORKS) == [
        ("a", ""),
        ("b", "├─"),
        ("d", "│ "),
        ("g", "├─"),
        ("c", ""),
        ("e", ""),
        ("f", ""),
    ]


def test_the_present_branch_stays_in_its_column() -> None:
    assert outline(_FORKS, "b") == [
        ("a", ""),
        ("c", "├─"),
        ("e", "│ "),
        ("f", "│ "),
        ("g", "├─"),
        ("b", ""),
        ("d", ""),
    ]


@st.composite
def _trees(draw: st.DrawFn) -> list[TreeTurn]:
    """Each turn continues one before it, or begins a tree."""
    parents = draw(st.lists(st.integers(0, 40), max_size=40))
    return [
        TreeTurn(f"{at}", 0.0, f"{at - parent}" if 0 < parent <= at else None)
        for at, parent in enumerate(parents)
    ]


@given(_trees(), st.integers(0, 40))
def test_each_turn_is_shown_once_and_behind_what_it_continues(
    turns: list[TreeTurn], head: int
) -> None:
    shown = [response_id for response_id, _ in outline(turns, f"{head}")]
    assert sorted(shown) == sorted(one.response_id for one in turns)
    places = {response_id: at for at, response_id in enumerate(shown)}
    assert all(places[one.parent] < places[one.response_id] for one in turns if one.parent)


@pytest.mark.parametrize("branches", [1, 1000])
def test_a_long_chat_with_many_branches_is_laid_out_at_once(branches: int) -> None:
    chain = [TreeTurn(f"{at}", 0.0, f"{at - 1}" if at else None) for at in range(10_000)]
    others = [TreeTurn(f"b{at}", 0.0, f"{at * 9}") for at in range(branches)]
    shown = outline([*chain, *others])
    assert len(shown) == 10_000 + branches
    assert max(len(prefix) for _, prefix in shown) <= 2, "none is deeper than one column"


def test_one_goes_on_from_any_turn(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(SCRIPTED_CONFIG)
    args = [PROGRAM, "chat", "--config", "c.toml"]
    with Terminal(args, environment(tmp_path), tmp_path) as terminal:
        for words in ("first", "second", "third"):
            terminal.expect_prompt()
            terminal.type(f"{words}\n")
            terminal.expect(f"You said: {words}")
        terminal.expect_prompt()
        terminal.type("/tree\n")
        terminal.expect_row("→ third")
        terminal.type("\x1b[A\x1b[A\n")
        terminal.expect("You said: first")
        terminal.expect_prompt()
        terminal.type("another way\n")
        terminal.expect("Before that you said: first")
        terminal.expect_prompt()
        terminal.type(CTRL_D)
        assert terminal.leave() == 0


def test_a_search_in_a_tree_finds_what_other_chats_say_more_often(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(SCRIPTED_CONFIG)
    others = [[{"role": "user", "content": "storm storm"}]] * 120
    chats = [{"messages": messages} for messages in others]
    (tmp_path / "others.json").write_text(json.dumps(chats))
    run = partial(subprocess.run, cwd=tmp_path, env=environment(tmp_path), check=True)
    run([PROGRAM, "import", "others.json", "--config", "c.toml"])
    run([PROGRAM, "chat", "--config", "c.toml", "-p", "a lighthouse in a storm " + "by night " * 9])
    args = [PROGRAM, "chat", "--config", "c.toml", "--continue"]
    with Terminal(args, environment(tmp_path), tmp_path) as terminal:
        terminal.expect("continuing after 1 turn")
        terminal.expect_prompt()
        terminal.type("/tree\n")
        terminal.expect("turns:")
        terminal.type("storm\n")
        terminal.expect("You said: a lighthouse")
        terminal.kill()


def test_a_tree_is_a_line_for_each_turn_also_on_a_narrow_terminal(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(SCRIPTED_CONFIG)
    run = partial(subprocess.run, cwd=tmp_path, env=environment(tmp_path), check=True)
    run([PROGRAM, "chat", "--config", "c.toml", "-p", "今日は天気がいい " * 6])
    run([PROGRAM, "chat", "--config", "c.toml", "-c", "-p", "why? " * 20])
    listed = run([PROGRAM, "list", "--config", "c.toml"], stdout=subprocess.PIPE, text=True)
    newest = listed.stdout.split("\t")[0]
    args = [PROGRAM, "show", newest, "--tree", "--config", "c.toml"]
    with Terminal(args, environment(tmp_path), tmp_path) as terminal:
        assert terminal.leave() == 0
    first, second = (row.rstrip() for row in terminal.rows if row.strip())
    assert first.startswith("resp_")
    assert second.startswith(f"{newest}  why? why?")
    assert first[-1] == second[-1] == "…"


def test_a_picker_finds_a_chat_by_its_words(home: Path) -> None:
    for words in ("about lighthouses", "about submarines"):
        with chat(home, "-p", words) as terminal:
            assert terminal.leave() == 0
    # As --continue does, it goes on with the model of the chat.
    with (home / "c.toml").open("r+") as file:
        text = file.read().replace('model = "far"', 'model = "echo"')
        file.seek(0)
        file.write(text)
    with chat(home, "--resume") as terminal:
        terminal.expect("about submarines")
        terminal.type("lighthouses")
        terminal.expect("«lighthouses»")
        terminal.type("\n")
        terminal.expect("continuing after 1 turn, far")
        terminal.expect("the last: about lighthouses")
        terminal.expect_prompt()
        # Typed in one go, Enter is about what was typed, and what follows is for the prompt.
        terminal.type("/resume\nsubmarines\n/cost\n")
        terminal.expect("the last: about submarines")
        terminal.expect("1 turn: ")
        terminal.expect_prompt()
        leave(terminal)


def test_one_picks_a_chat_and_types_in_it_before_anything_can_answer(home: Path, url: str) -> None:
    for words in ("about lighthouses", "about submarines"):
        with chat(home, "-p", words) as terminal:
            assert terminal.leave() == 0
    (home / "d.toml").write_text(f'base_url = "{url}/held"\nstore = "sqlite:turns.db"\n')
    with chat(home, "--config", "d.toml", "--resume") as terminal:
        terminal.expect("about lighthouses")
        terminal.type(ESCAPE)
        terminal.expect("a new chat")
        terminal.kill()
    with chat(home, "--config", "d.toml", "--continue") as terminal:
        terminal.expect_prompt()
        terminal.type("next\nhalf a")
        terminal.expect_row("queued: next")
        terminal.expect_prompt("half a")
        release(url)
        terminal.expect_row("3 messages, the last: next")
        terminal.type(" draft\n")
        terminal.expect_row("5 messages, the last: half a draft")
        terminal.expect_prompt()
        leave(terminal)
        rows = [row for row in terminal.rows if row]
    assert rows[1:8] == [
        "continuing after 1 turn, far",
        "> about submarines",
        "1 messages, the last: about submarines",
        "> next",
        "3 messages, the last: next",
        "> half a draft",
        "5 messages, the last: half a draft",
    ]


def test_a_picker_says_why_it_cannot_search(home: Path) -> None:
    with chat(home, "-p", "about lighthouses") as terminal:
        assert terminal.leave() == 0
    with chat(home, "--resume") as terminal:
        terminal.expect("about lighthouses")
        with closing(sqlite3.connect(home / "turns.db")) as other:
            other.execute("DROP TABLE search_segments")
        terminal.type("lighthouses")
        terminal.expect_row("error: ")
        terminal.type(ESCAPE)
        terminal.expect("a new chat")
        terminal.kill()
