"""The tree of a chat: its outline, and its screen."""

from __future__ import annotations

from pathlib import Path

import pytest

from antiphon.cli.tree_outline import outline
from antiphon.turn.transfer_protocols import TreeTurn
from support.command_line import PROGRAM, SCRIPTED_CONFIG, environment
from support.pseudo_terminal import CTRL_D, Terminal


def test_branches_stand_to_the_right_before_the_newest() -> None:
    turns = [
        TreeTurn("a", 0.0, None),
        TreeTurn("b", 0.0, "a"),
        TreeTurn("c", 0.0, "a"),
        TreeTurn("d", 0.0, "b"),
        TreeTurn("e", 0.0, "c"),
        TreeTurn("f", 0.0, "a"),
    ]
    assert outline(turns) == [
        ("a", ""),
        ("b", "├─"),
        ("d", "│ "),
        ("c", "├─"),
        ("e", "│ "),
        ("f", ""),
    ]


@pytest.mark.parametrize("branches", [1, 1000])
def test_a_long_chat_with_many_branches_is_laid_out_at_once(branches: int) -> None:
    chain = [TreeTurn(f"{at}", 0.0, f"{at - 1}" if at else None) for at in range(10_000)]
    others = [TreeTurn(f"b{at}", 0.0, f"{at * 9}") for at in range(branches)]
    shown = outline([*chain, *others])
    assert len(shown) == 10_000 + branches
    assert max(len(prefix) for _, prefix in shown) <= 26


def test_one_goes_on_from_any_turn(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(SCRIPTED_CONFIG)
    args = [PROGRAM, "chat", "--config", "c.toml"]
    with Terminal(args, environment(tmp_path), tmp_path) as terminal:
        for words in ("first", "second", "third"):
            terminal.expect("> ")
            terminal.type(f"{words}\n")
            terminal.expect(f"You said: {words}")
        terminal.expect("> ")
        terminal.type("/tree\n")
        terminal.expect("→ third")
        terminal.type("\x1b[A\x1b[A\n")
        terminal.expect("You said: first")
        terminal.expect("> ")
        terminal.type("another way\n")
        terminal.expect("Before that you said: first")
        terminal.expect("> ")
        terminal.type(CTRL_D)
        assert terminal.leave() == 0
