"""Conversations as Markdown."""

from __future__ import annotations

from antiphon.api.mcp.resources import render_markdown
from antiphon.core.items import (
    Compaction,
    ErasedItem,
    FunctionCall,
    FunctionCallOutput,
    InputFile,
    InputImage,
    InputText,
    Item,
    Message,
    OutputText,
    Refusal,
)
from antiphon.core.turns import End, Header, Response


def turn(*items: Item, end: End | None = None) -> Response:
    return Response("resp_1", 0.0, Header("m"), items, end=end)


def test_what_was_said_is_quoted() -> None:
    said = Message("user", "Hi\n\n## Not a heading\n**assistant**")
    done = End("completed", 1.0)
    assert render_markdown([turn(said, Message("assistant", "Yo"), end=done)]) == (
        "# Conversation\n\n"
        "## `resp_1`, 1970-01-01T00:00:00Z, m\n\n"
        "**user**\n\n> Hi\n>\n> ## Not a heading\n> **assistant**\n\n"
        "**assistant**\n\n> Yo\n"
    )


def test_every_kind_of_item_has_its_words() -> None:
    picture = InputImage("data:image/gif;base64,AAAA")
    text = render_markdown(
        [
            turn(
                Message("user", (InputText("Look:"), picture, InputFile("a.pdf"))),
                FunctionCall("call_1", "look", '{"a":1}'),
                FunctionCallOutput("call_1", "seen"),
                Compaction("We talked."),
                ErasedItem(),
                Message("assistant", (OutputText("A"), Refusal("but no"))),
                Message("user", ""),
            )
        ]
    )
    assert "> Look:\n>\n> [image]\n>\n> [file a.pdf]" in text
    assert '**call**\n\n> look({"a":1})' in text
    assert "**output**\n\n> seen" in text
    assert "**summary of what was before**\n\n> We talked." in text
    assert "> A\n>\n> but no" in text
    assert text.endswith("**user**\n\n>\n")
    assert "AAAA" not in text
    assert ", in_progress" in text
