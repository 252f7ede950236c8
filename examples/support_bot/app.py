"""Shows: an application. A customer talks to the bot, an operator agrees to refunds.

    python -m examples.support_bot [--resume] [--database PATH]

Type `exit` to leave; `--resume` goes on where you left, even with a refund that still
waits for the operator. Ctrl-C stops an answer.

The model on board is too small for this. Give it a key for Grok in XAI_API_KEY, or name
another model with ANTIPHON_MODEL and ANTIPHON_BASE_URL.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from antiphon import AntiphonError, Conversation, FunctionCall, events
from examples.support_bot.shop import Shop
from examples.support_bot.tools import TOOLS

INSTRUCTIONS = """\
You are a customer service assistant for a food delivery app.
You help with orders, look at receipts, refund what the policy allows, and create tickets for
what you cannot solve. Ask for the customer's name and issue before you create a ticket.
Be clear, friendly and professional, and stay with customer service. The policy:

"""
POLICY = Path(__file__).with_name("policy.md")


def open_chat(shop: Shop, *, resume: bool) -> Conversation:
    """A new conversation, or the last one. Raises ``AntiphonError``."""
    # The policy is short enough to be told whole.
    instructions = INSTRUCTIONS + POLICY.read_text("utf-8")
    last = shop.last_conversation() if resume else None
    if last is None:
        return Conversation(instructions=instructions, tools=TOOLS, deps=shop)
    return Conversation.resume(last, instructions=instructions, tools=TOOLS, deps=shop)


def answer(chat: Conversation, shop: Shop, text: str) -> None:
    """Say something, if it is anything, until no call waits for the operator any more."""
    # One may have waited since before: the operator left, or their word did not get through.
    settle(chat, shop)
    if text:
        show(chat, shop, text)
        settle(chat, shop)


def settle(chat: Conversation, shop: Shop) -> None:
    """Have the operator decide on every call that waits."""
    while waiting := chat.pending():
        decisions = {call.call_id: ask_operator(call) for call in waiting}
        show(chat, shop, decisions=decisions)


def show(
    chat: Conversation,
    shop: Shop,
    text: str | None = None,
    decisions: dict[str, bool | str] | None = None,
) -> None:
    """One turn: its words as they are written, its tool calls in brackets between them."""
    speaking = False
    try:
        with chat.stream(text, decisions=decisions) as stream:
            for event in stream.events():
                match event:
                    case events.TextDelta(text=words) | events.RefusalDelta(text=words):
                        print(words if speaking else f"Bot: {words}", end="", flush=True)
                        speaking = True
                    case events.ItemDone(item=FunctionCall(name=name)):
                        print(f"\n  [{name}]" if speaking else f"  [{name}]")
                        speaking = False
    finally:
        if speaking:
            print()
        # The turn before, if this one failed.
        if chat.response_id is not None:
            shop.remember_conversation(chat.response_id)


def ask_operator(call: FunctionCall) -> bool | str:
    """Whether to run the call; a text is the reason why not, which the model is told."""
    output = input(f"Operator, {call.name} {call.arguments}? (y, n, or why not) ").strip()
    return {"y": True, "yes": True, "n": False, "no": False, "": False}.get(output.lower(), output)


def converse(chat: Conversation, shop: Shop) -> None:
    """Talk until the customer leaves."""
    # Nothing is said at first, but a refund may wait since last time.
    text = ""
    while text.lower() != "exit":
        try:
            answer(chat, shop, text)
        except AntiphonError as error:
            print(f"Sorry, that did not work: {error.message}")
        except KeyboardInterrupt:
            print("(stopped)")
        text = input("You: ").strip()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m examples.support_bot")
    parser.add_argument("--resume", action="store_true", help="go on with the last conversation")
    parser.add_argument("--database", type=Path, default=Path("support_bot.db"))
    given = parser.parse_args()

    # What goes wrong in a tool is told to the model in short, and to this file in full.
    logging.basicConfig(filename=given.database.with_suffix(".log"))
    shop = Shop(given.database)
    try:
        converse(open_chat(shop, resume=given.resume), shop)
    except AntiphonError as error:
        sys.exit(error.message)
    except (EOFError, KeyboardInterrupt):
        print()


if __name__ == "__main__":
    main()
