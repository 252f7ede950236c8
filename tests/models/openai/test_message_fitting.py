"""Fitted messages: piece by piece they are what the whole would be."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.core.items import (
    FunctionCall,
    FunctionCallOutput,
    InputImage,
    InputText,
    Item,
    Message,
    Reasoning,
    SummaryText,
)
from antiphon.core.provider_fields import ProviderFields
from antiphon.core.reasoning_sidecar import insert_fields
from antiphon.core.turns import Options
from antiphon.models.openai.message_fitting import MessageFitter
from antiphon.models.openai.message_rules import text_tool_outputs
from antiphon.turn.message_rendering import message_pieces, render_turn
from antiphon.turn.protocols import ModelCall

ORIGIN = "h/m"
WORDS = st.sampled_from(["", "a", 'quo"te', "line\nbreak\tand tab", '{"role":"tool"'])
PICTURE = InputImage("https://example.com/a.png", detail="original")


@st.composite
def turns(draw: st.DrawFn) -> list[list[Item]]:
    """Turns with reasoning and pictures; calls are answered at once, by the next turn, or never."""
    made: list[list[Item]] = []
    waiting: list[str] = []
    for number in range(draw(st.integers(1, 5))):
        items: list[Item] = [
            FunctionCallOutput(call, draw(outputs())) for call in waiting if draw(st.booleans())
        ]
        if not items or draw(st.booleans()):
            words = draw(WORDS)
            plain = draw(st.booleans())
            items.append(Message("user", words if plain else (InputText(words), PICTURE)))
        waiting = []
        if draw(st.booleans()):
            origin = draw(st.sampled_from([ORIGIN, "other/m", None]))
            fields = ProviderFields(origin, text_field="reasoning_content")
            items.append(Reasoning((SummaryText(draw(WORDS)),), provider_fields=fields))
        for position in range(draw(st.integers(0, 2))):
            call = f"call_{number}_{position}"
            items.append(FunctionCall(call, "f", "{}"))
            if draw(st.booleans()):
                items.append(FunctionCallOutput(call, draw(outputs())))
            else:
                waiting.append(call)
        items.append(Message("assistant", draw(WORDS)))
        made.append(items)
    return made


def outputs() -> st.SearchStrategy[Any]:
    return st.one_of(WORDS, WORDS.map(lambda words: (InputText(words), PICTURE)))


def fitted_at_once(messages: bytes) -> Any:
    inserted = json.loads(insert_fields(messages, ORIGIN).replace(b"\t", b""))
    text = msgspec.json.encode(text_tool_outputs(inserted)).decode()
    return json.loads(text.replace('"detail":"original"', '"detail":"high"'))


@settings(deadline=None)
@given(turns(), st.sampled_from([0, 2000, 10**6]))
def test_pieces_that_were_fitted_before_give_the_same_messages(
    given_turns: list[list[Item]], capacity: int
) -> None:
    fitter = MessageFitter(capacity)
    segments = [render_turn(items) for items in given_turns]
    for end in [*range(1, len(segments) + 1), 1, len(segments)]:
        pieces = message_pieces(segments[:end], instructions="Be brief.")
        call = ModelCall("m", tuple(pieces), Options(), True)
        assert json.loads(fitter.fit(call, ORIGIN)) == fitted_at_once(call.messages)
