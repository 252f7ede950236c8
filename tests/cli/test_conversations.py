"""``list``, ``show`` and ``delete``."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from antiphon.bootstrap import open_engine
from antiphon.core.items import Message
from antiphon.core.turns import DEFAULT_TENANT
from antiphon.settings import load_settings
from antiphon.turn.conversations import ConversationService
from support.command_line import PROGRAM, Command, environment
from support.pseudo_terminal import Terminal

CONFIG = """
model = "echo"
store = "sqlite:turns.db"
base_url = "http://127.0.0.1:9/v1"
api_key_env = "A_KEY_THAT_IS_NOT_SET"
"""


def ids(antiphon: Command) -> list[str]:
    return [line.split("\t")[0] for line in antiphon("list").out.splitlines()]


def test_list_shows_the_newest_first_with_whole_ids(antiphon: Command) -> None:
    antiphon("chat", "-p", "first\nwords")
    antiphon("chat", "-p", "second")
    antiphon("chat", "-c", "-p", "more")
    rows = [line.split("\t") for line in antiphon("list").out.splitlines()]
    assert [(row[2], row[3], row[4]) for row in rows] == [
        ("echo", "2", "second"),
        ("echo", "1", "first words"),
    ]
    assert all(row[0].startswith("resp_") and len(row[0]) == 37 for row in rows)
    assert len(antiphon("list", "-n", "1").out.splitlines()) == 1
    listed = json.loads(antiphon("list", "--json").out)
    assert [row["title"] for row in listed] == ["second", "first words"]
    assert listed[0]["id"].startswith("chat_")
    assert listed[0]["head"] == rows[0][0]


def test_a_chat_with_branches_is_one_line(antiphon: Command) -> None:
    antiphon("chat", "-p", "first")
    (first,) = ids(antiphon)
    antiphon("chat", "-c", "-p", "second")
    antiphon("chat", "--from", first, "-p", "another way")
    (row,) = [line.split("\t") for line in antiphon("list").out.splitlines()]
    assert row[3:] == ["2", "first"]
    (chat,) = json.loads(antiphon("list", "--json").out)
    assert (chat["turns"], chat["branches"], chat["status"]) == (2, 2, "idle")
    # Its own id stands for its newest response.
    for options in ([], ["--json"], ["--markdown"], ["--tree"]):
        by_head = antiphon("show", row[0], *options).out
        assert by_head == antiphon("show", chat["id"], *options).out
        assert "another way" in by_head
    assert "shown 5" in antiphon("chat", "--from", chat["id"], "-p", "third").out
    missing = antiphon("show", "chat_" + "0" * 32)
    assert (missing.code, missing.out) == (1, "")


def test_an_empty_list(antiphon: Command) -> None:
    assert antiphon("list").out == ""
    assert json.loads(antiphon("list", "--json").out) == []


def test_show_prints_the_messages_array(antiphon: Command) -> None:
    antiphon("chat", "--system", "Be kind.", "-p", "one")
    antiphon("chat", "-c", "-p", "two")
    (newest,) = ids(antiphon)
    ran = antiphon("show", newest, "--json")
    messages = json.loads(ran.out)
    assert [message["role"] for message in messages] == [
        "system",
        "user",
        "assistant",
        "user",
        "assistant",
    ]
    assert messages[3] == {"role": "user", "content": "two"}
    assert ran.out.startswith('[\n  {\n    "role": "system",')


def test_show_prints_each_message_with_its_role(antiphon: Command) -> None:
    antiphon("chat", "-p", "one")
    (newest,) = ids(antiphon)
    lines = antiphon("show", newest).out.splitlines()
    assert newest in lines[0]
    assert lines[1] == "user: one"
    assert lines[2] == "assistant: You said: one"


def test_delete_erases_a_turn_or_its_descendants(antiphon: Command) -> None:
    antiphon("chat", "-p", "one")
    (first,) = ids(antiphon)
    antiphon("chat", "-c", "-p", "two")
    antiphon("chat", "-c", "-p", "three")
    (newest,) = ids(antiphon)
    ran = antiphon("delete", first)
    assert (ran.code, ran.out) == (0, f"deleted {first}\n")
    assert "one" not in antiphon("show", newest).out.replace(first, "").split("Before")[0]
    assert antiphon("show", first).code == 1
    second = ids(antiphon)[0]
    assert antiphon("delete", second, "--cascade").code == 0
    assert antiphon("show", second).code == 1


def test_delete_erases_a_chat_by_its_own_id(antiphon: Command) -> None:
    antiphon("chat", "-p", "one")
    (first,) = ids(antiphon)
    antiphon("chat", "-c", "-p", "two")
    antiphon("chat", "--from", first, "-p", "another way")
    antiphon("chat", "-p", "other chat")
    chats = json.loads(antiphon("list", "--json").out)
    (chat_id,) = [chat["id"] for chat in chats if chat["title"] == "one"]
    ran = antiphon("delete", chat_id)
    assert (ran.code, ran.out) == (0, f"deleted {chat_id}\n")
    assert [chat["title"] for chat in json.loads(antiphon("list", "--json").out)] == ["other chat"]
    assert antiphon("delete", chat_id).code == 1


def test_a_conversation_is_read_gone_on_with_and_erased_by_its_id(antiphon: Command) -> None:
    async def create() -> str:
        async with open_engine(load_settings({"config": "c.toml"})) as engine:
            stores = engine.stores
            service = ConversationService(engine.service, stores.conversations, stores.search)
            return (await service.create(DEFAULT_TENANT, [Message("user", "kept words")])).id

    conversation_id = asyncio.run(create())
    assert "kept words" in antiphon("show", conversation_id).out
    assert "shown 2" in antiphon("chat", "--from", conversation_id, "-p", "more").out
    assert antiphon("delete", conversation_id).code == 0
    assert antiphon("show", conversation_id).code == 1
    assert antiphon("list").out == ""


@pytest.mark.parametrize("command", ["show", "delete"])
@pytest.mark.parametrize("wrong", ["resp_" + "0" * 32, "nonsense", "resp_\x1b[31m"])
def test_unknown_id_is_a_one_line_error(antiphon: Command, command: str, wrong: str) -> None:
    ran = antiphon(command, wrong)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("error: No response found")
    assert ran.err.count("\n") == 1
    assert "\x1b" not in ran.err


def test_no_key_is_needed_to_read(antiphon: Command, tmp_path: Path) -> None:
    antiphon("chat", "-p", "one")
    (tmp_path / "c.toml").write_text(CONFIG)
    assert "A_KEY_THAT_IS_NOT_SET" in antiphon("chat", "-p", "two").err
    assert len(ids(antiphon)) == 1


@pytest.mark.parametrize(
    "command",
    [
        ["list"],
        ["show", "x"],
        ["delete", "x"],
        ["search", "x"],
        ["approvals"],
        ["usage"],
        ["nodes"],
        ["export"],
        ["key", "list"],
        ["key", "revoke", "x"],
    ],
)
def test_reading_creates_no_store_of_a_mistyped_name(
    antiphon: Command, tmp_path: Path, command: list[str]
) -> None:
    ran = antiphon(*command, "--store", "sqlite:chat/typo.db")
    assert ran.code == 1
    assert "There is no store" in ran.err
    assert not (tmp_path / "chat").exists()


def test_report_of_erasures_creates_no_store(antiphon: Command, tmp_path: Path) -> None:
    ran = antiphon("store", "erase-report", "sqlite:chat/typo.db")
    assert ran.code == 1
    assert "There is no store" in ran.err
    assert not (tmp_path / "chat").exists()


def test_terminal_shows_a_table_and_delete_asks_for_confirmation(
    antiphon: Command, tmp_path: Path
) -> None:
    antiphon("chat", "-p", "what is kept here" + " and goes on" * 20)
    (newest,) = ids(antiphon)

    def at_terminal(*args: str, **env: str) -> Terminal:
        arguments = [PROGRAM, *args, "--config", "c.toml"]
        return Terminal(arguments, {**environment(tmp_path), **env}, tmp_path)

    with at_terminal("list") as terminal:
        assert terminal.leave() == 0
        header, row = terminal.shown.splitlines()
        assert header.split() == ["id", "when", "model", "turns", "title"]
        assert row.startswith(newest)
        assert "  echo       1  what is kept here and" in row
        assert len(row) <= 100
    with at_terminal("list", COLUMNS="40") as terminal:
        assert terminal.leave() == 0
        first, second = terminal.shown.splitlines()
        assert first == newest
        assert second.startswith("  now  echo  1  what is kept here and")
        assert (len(second), second[-1]) == (40, "…")
    for answer, left in (("n", 1), ("y", 0)):
        with at_terminal("delete", newest) as terminal:
            terminal.expect("what is kept here")
            terminal.expect("Erase this turn?")
            terminal.type(f"{answer}\n")
            assert terminal.leave() == 0
        assert len(ids(antiphon)) == left
