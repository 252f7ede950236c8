"""The support bot: dialogues in a terminal, over a real database and a scripted model."""

from __future__ import annotations

import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from examples.support_bot.shop import Shop

from support.example_programs import (
    DIALOGUES,
    ROOT,
    ProgramResult,
    ReplayUpstream,
    dialogue,
    environment,
    error_reply,
    hanging_reply,
    normalize_messages,
    replay_upstream,
    replies,
    run_program,
    tool_call_reply,
    user_turns,
)
from support.pseudo_terminal import CTRL_C, CTRL_D, Terminal

pytestmark = pytest.mark.slow

BOT = ["-m", "examples.support_bot"]
UPLOAD = ROOT / "examples" / "support_bot" / "receipts" / "ord-789.png"
REFUND = tool_call_reply(
    "refund_order", "I ask.", order_id="ORD-789", amount_in_cents=188, reason="No soda ordered"
)


def bot(home: Path, upstream: ReplayUpstream, *args: str, typed: str) -> ProgramResult:
    """The bot, left at the end of what is typed."""
    ran = run_program([*BOT, *args], home, upstream, typed)
    assert (ran.code, ran.err) == (0, ""), ran
    return ran


def rows(home: Path, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(home / "support_bot.db")) as database:
        return database.execute(query).fetchall()


def lines(*said: str) -> str:
    return "".join(f"{line}\n" for line in said)


def screen(messages: list[dict[str, Any]]) -> str:
    """What the bot prints in a dialogue, up to where the customer leaves; not what is typed."""
    shown = ""
    for message in messages:
        if message["role"] == "user":
            shown += "You: "
        elif message["role"] == "assistant":
            shown += f"Bot: {message['content']}\n"
            for call in message.get("tool_calls") or ():
                shown += f"  [{call['function']['name']}]\n"
    return shown + "You: "


@pytest.mark.parametrize("name", DIALOGUES)
def test_the_bot_holds_the_dialogues(name: str, tmp_path: Path) -> None:
    messages = dialogue(name)
    with replay_upstream(*replies(messages)) as upstream:
        ran = bot(tmp_path, upstream, typed=lines(*user_turns(messages), "exit"))
        # Everything but the instructions, which are the bot's own, and the last answer.
        assert upstream.sent_messages()[1:] == normalize_messages(messages)[1:-1]
        assert upstream.unused_replies == 0
    assert ran.out == screen(messages)
    tickets = [one["content"] for one in messages if one["role"] == "tool"]
    filed = rows(tmp_path, "SELECT name, issue FROM tickets")
    written = [f"Created customer ticket for {who} with issue {what}" for who, what in filed]
    assert written == [one for one in tickets if one.startswith("Created")]


def test_the_bot_looks_into_the_database(tmp_path: Path) -> None:
    typed = lines(
        "Hi, I ordered something but it hasn't arrived.",
        "The order number is ORD-123",
        "Actually, I'd like to file a complaint about the delay.",
        "exit",
    )
    script = (
        "Which order?",
        tool_call_reply("lookup_order", order_id="ORD-123"),
        "On its way.",
        tool_call_reply("create_customer_ticket", call_id="call_2", name="Omar", issue="Delay"),
        "Filed.",
    )
    with replay_upstream(*script) as upstream:
        bot(tmp_path, upstream, typed=typed)
        shown = upstream.sent_messages()
    assert json.loads(shown[5]["content"])["status"] == "on its way"
    assert "An order is late when" in shown[0]["content"]
    assert rows(tmp_path, "SELECT name, issue FROM tickets") == [("Omar", "Delay")]


@pytest.mark.parametrize(
    ("said", "paid", "output"),
    [
        ("Yes", [("ORD-789", 188)], "Refunded $1.88 of ORD-789"),
        ("n", [], 'so it was not run."}'),
        ("", [], 'so it was not run."}'),
        ("We did ship it.", [], 'so it was not run. The reason given: We did ship it."}'),
    ],
)
def test_an_operator_decides_about_refunds(
    said: str, paid: list[tuple[str, int]], output: str, tmp_path: Path
) -> None:
    with replay_upstream(REFUND, "As they say.") as upstream:
        ran = bot(tmp_path, upstream, typed=lines("Refund the soda", said, "exit"))
        assert upstream.sent_messages()[-1]["content"].endswith(output)
    assert 'Operator, refund_order {"order_id": "ORD-789", "amount_in_cents": 188' in ran.out
    assert rows(tmp_path, "SELECT order_id, amount_in_cents FROM refunds") == paid


def test_a_refund_waits_for_the_operator_over_a_restart(tmp_path: Path) -> None:
    with replay_upstream("Hello!", REFUND, "Done.", "Bye.") as upstream:
        bot(tmp_path, upstream, typed=lines("Hi", "Refund the soda"))
        assert rows(tmp_path, "SELECT * FROM refunds") == []
        ran = bot(tmp_path, upstream, "--resume", typed=lines("y", "Thanks", "exit"))
        assert user_turns(upstream.sent_messages()) == ["Hi", "Refund the soda", "Thanks"]
    assert rows(tmp_path, "SELECT amount_in_cents FROM refunds") == [(188,)]
    assert ran.lines[0].endswith("Bot: Done.")


def test_the_bot_survives_a_failure(tmp_path: Path) -> None:
    with replay_upstream("Hello!", error_reply("Out of order."), "Here I am.") as upstream:
        ran = bot(tmp_path, upstream, typed=lines("Hi", "Anyone?", "Anyone?"))
        assert user_turns(upstream.sent_messages()) == ["Hi", "Anyone?"]
    assert "You: Sorry, that did not work: " in ran.out
    assert "Out of order." in ran.out
    assert ran.out.endswith("You: Bot: Here I am.\nYou: \n")


def test_ctrl_c_stops_an_answer_and_is_remembered(tmp_path: Path) -> None:
    home = tmp_path
    with replay_upstream(hanging_reply("One moment"), "Bye.") as upstream:
        with Terminal(BOT, environment(home, upstream), home, is_script=True) as terminal:
            terminal.expect("You: ")
            terminal.type("Hi\n")
            terminal.expect("Bot: One moment")
            terminal.type(CTRL_C)
            terminal.expect("(stopped)\nYou: ")
            terminal.type(CTRL_D)
            assert terminal.leave() == 0
        bot(home, upstream, "--resume", typed=lines("Thanks", "exit"))
        assert normalize_messages(upstream.sent_messages())[1:] == [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "One moment"},
            {"role": "user", "content": "Thanks"},
        ]


def test_the_session_on_the_examples_page(tmp_path: Path) -> None:
    page = (ROOT / "examples" / "README.md").read_text("utf-8")
    match = re.search(r"```console\n\$ [^\n]+\n(.*?)```", page, re.DOTALL)
    assert match is not None, "the page shows no session"
    # What the bot says there is a script; all else is its own.
    answers = re.findall(r"^Bot: (.*)$", match[1], re.MULTILINE)
    refund = tool_call_reply(
        "refund_order", None, order_id="ORD-789", amount_in_cents=188, reason="Soda missing"
    )
    refund["content"] = answers[0]
    script = (tool_call_reply("lookup_order", order_id="ORD-789"), refund, answers[1])
    with (
        replay_upstream(*script) as upstream,
        Terminal(BOT, environment(tmp_path, upstream), tmp_path, is_script=True) as terminal,
    ):
        for prompt, typed in re.findall(r"^(You: |Operator.*\) )(.*)$", match[1], re.MULTILINE):
            terminal.expect(prompt)
            terminal.type(f"{typed}\n")
        assert terminal.leave() == 0
        assert terminal.shown == match[1]


def test_a_refund_is_paid_once_and_never_beyond_what_was_paid(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "support_bot.db")
    for _ in range(2):
        shop.refund("call_1", "ORD-789", 2000, "cold")
    for call_id, order, amount in (("call_2", "ORD-789", 725), ("call_3", "ORD-0", 1)):
        with pytest.raises(ValueError, match="ORD-"):
            shop.refund(call_id, order, amount, "more")
    shop.refund("call_4", "ORD-789", 724, "the rest")
    assert rows(tmp_path, "SELECT call_id FROM refunds") == [("call_1",), ("call_4",)]


def test_a_receipt_can_only_be_an_upload(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(UPLOAD.read_bytes())
    look = tool_call_reply("analyze_receipt_image", image_url=str(tmp_path / "secret.png"))
    with replay_upstream(look, "I cannot find it.") as upstream:
        bot(tmp_path, upstream, typed=lines("My receipt", "exit"))
        told = json.loads(upstream.sent_messages()[-1]["content"])["error"]
    assert told.endswith("there is no upload secret.png")
    assert "Traceback" in (tmp_path / "support_bot.log").read_text()


def test_an_upload_is_shown_to_the_model(tmp_path: Path) -> None:
    look = tool_call_reply("analyze_receipt_image", image_url=UPLOAD.name)
    read = dialogue("receipt_refund")[5]["content"]
    with replay_upstream(look, read, "A soda.") as upstream:
        bot(tmp_path, upstream, typed=lines("My receipt", "exit"))
        (asked,) = upstream.requests[1]["messages"]
        assert [part["type"] for part in asked["content"]] == ["text", "image_url"]
        assert upstream.sent_messages()[-1]["content"] == read
