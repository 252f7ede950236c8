"""``search``, ``approvals``, ``show -x`` and ``--markdown``, and times in words."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import msgspec
import pytest

from antiphon.cli.code_blocks import code_blocks
from antiphon.cli.terminal_output import format_ago
from support.command_line import PROGRAM, Command, environment
from support.pseudo_terminal import Terminal
from support.store_turns import DONE, HEADER, assistant, complete_turn, new_turn, run, sqlite


def test_search_finds_what_was_said(antiphon: Command) -> None:
    antiphon("chat", "-p", "about a lighthouse")
    antiphon("chat", "-p", "about a submarine")
    ran = antiphon("search", "lighthouse")
    (row,) = ran.out.splitlines()
    response_id, _, excerpt = row.split("\t")
    assert response_id.startswith("resp_")
    assert "«lighthouse»" in excerpt
    (hit,) = json.loads(antiphon("search", "lighthouse", "--json").out)
    assert hit["response_id"] == response_id
    nothing = antiphon("search", "zeppelin")
    assert (nothing.code, nothing.out) == (0, "")


def test_show_prints_a_page_or_the_first_code_block(antiphon: Command) -> None:
    antiphon("chat", "-p", "a\n```sh\nls -l\n```\n")
    response_id = antiphon("list").out.split("\t")[0]
    assert antiphon("show", response_id, "-x").out == "ls -l\n"
    assert antiphon("show", response_id, "--markdown").out.startswith("## You\n\na\n")
    antiphon("chat", "-p", "no code")
    response_id = antiphon("list").out.split("\t")[0]
    ran = antiphon("show", response_id, "-x")
    assert (ran.code, ran.out) == (1, "")
    assert "no code block" in ran.err


def test_show_prints_a_tree(antiphon: Command) -> None:
    antiphon("chat", "-p", "one")
    first = antiphon("list").out.split("\t")[0]
    for words in ("two", "three"):
        antiphon("chat", "--from", first, "-p", words)
    lines = antiphon("show", first, "--tree").out.splitlines()
    assert [line.partition("  ")[2] for line in lines] == ["one", "├─two", "three"]
    rows = json.loads(antiphon("show", first, "--tree", "--json").out)
    assert [row["parent"] for row in rows] == [None, first, first]


def test_usage_sums_up_what_was_used(antiphon: Command) -> None:
    antiphon("chat", "-p", "one two")
    antiphon("chat", "-p", "three")
    (row,) = json.loads(antiphon("usage", "--by", "model", "--json").out)
    assert (row["model"], row["turns"], row["input_tokens"]) == ("echo", 2, 3)
    (line,) = antiphon("usage").out.splitlines()
    assert line.split("\t")[1:3] == ["2", "3"]


def test_sums_of_costs_are_shown_without_what_binary_fractions_leave(
    antiphon: Command, tmp_path: Path
) -> None:
    async def store_turns() -> None:
        async with sqlite(tmp_path / "a.db") as store:
            head = None
            for cost in (0.1, 0.2):
                end = msgspec.structs.replace(DONE, cost=cost)
                head = await complete_turn(store, parent=head, end=end)

    run(store_turns())
    options = ("--store", "sqlite:a.db", "--json")
    (row,) = json.loads(antiphon("usage", "--days", "9999", *options).out)
    assert row["cost"] == 0.3


def test_usage_is_summed_up_by_key_where_there_are_keys(antiphon: Command, tmp_path: Path) -> None:
    path = tmp_path / "keys.db"
    where = ("--store", f"sqlite:{path}")
    antiphon("chat", "-p", "one", *where)
    assert antiphon("usage", "--by", "key", *where).out == ""
    antiphon("key", "create", "--tenant", "acme", "--name", "laptop", *where)
    (key,) = json.loads(antiphon("key", "list", "--json", *where).out)

    async def make_turn() -> None:
        async with sqlite(path) as store:
            header = msgspec.structs.replace(HEADER, key_id=key["id"])
            turn = new_turn("Hi.", tenant="acme", header=header)
            await store.begin(turn)
            ended_now = msgspec.structs.replace(DONE, ended_at=time.time())
            await store.write(turn.response_id, [assistant("a")], ended_now)

    run(make_turn())
    (line,) = antiphon("usage", "--by", "key", "--tenant", "acme", *where).out.splitlines()
    assert line.split("\t")[:3] == [key["id"], "laptop", "1"]
    wrong = antiphon("usage", "--by", "hour", *where)
    assert (wrong.code, wrong.out) == (2, "")


def test_nothing_waits(antiphon: Command) -> None:
    antiphon("chat", "-p", "hello")
    assert antiphon("approvals").out == ""
    assert json.loads(antiphon("approvals", "--json").out) == []


@pytest.mark.parametrize(
    ("text", "blocks"),
    [
        ("```\na\n```", ["a\n"]),
        ("~~~py\na\n```\n~~~\n```\nb", ["a\n```\n", "b"]),
        ("`x` ```y``` z", []),
        ("````\n```\n````", ["```\n"]),
    ],
)
def test_code_blocks(text: str, blocks: list[str]) -> None:
    assert code_blocks(text) == blocks


def test_times_in_words() -> None:
    now = time.time()
    words = [format_ago(now - ago) for ago in (0, 90, 7200, 90000, 3 * 86400)]
    assert words == ["now", "2 min ago", "2 h ago", "1 day ago", "3 days ago"]
    assert format_ago(0)[:2] in {"19", "20"}


def test_no_colours_with_no_color_or_without_a_terminal(antiphon: Command, tmp_path: Path) -> None:
    antiphon("chat", "-p", "**bold** words")
    args = [PROGRAM, "chat", "-p", "**bold** and `code`", "--config", "c.toml"]
    with Terminal(args, {**environment(tmp_path), "NO_COLOR": "1"}, tmp_path) as terminal:
        assert terminal.leave() == 0
    assert not re.search(r"\x1b\[[0-9;]*m", terminal.written)
    assert "bold and `code`" in terminal.rows[0]
    assert "\x1b" not in antiphon("chat", "-p", "**bold**").out
