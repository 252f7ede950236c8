"""``phase`` of an assistant's messages, from an upstream to the official client and back."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any

import pytest
from openai.types.responses import ResponseInputParam

from antiphon.core.deltas import Delta, Finish, ItemEnd, OutputTextDelta, PhaseDelta
from antiphon.models.openai.responses import ResponsesEncoder
from antiphon.models.scripted import ScriptedModel, ScriptedReply
from antiphon.turn.protocols import ModelCall
from support.http_server import serving
from support.openai_client import client_of, validate_strictly

TWO = ScriptedReply(
    (
        *(PhaseDelta("commentary"), OutputTextDelta("I look."), ItemEnd()),
        *(
            PhaseDelta("final_answer"),
            OutputTextDelta("Sun"),
            OutputTextDelta("ny."),
            ItemEnd(),
            Finish("stop"),
        ),
    )
)
BOTH = ["commentary", "final_answer"]
SAID: ResponseInputParam = [
    {"role": "user", "content": "Weather?"},
    {"role": "assistant", "content": "I look.", "phase": "commentary"},
    {"role": "user", "content": "And?"},
]


class Listening(ScriptedModel):
    """Keeps what the Responses dialect would say to its upstream."""

    def __init__(self) -> None:
        super().__init__([TWO] * 4)
        self.sent: list[bytes] = []

    async def generate(self, call: ModelCall) -> AsyncGenerator[Sequence[Delta]]:
        self.sent.append(ResponsesEncoder(upstream_name=None, host="h").encode(call))
        async for batch in super().generate(call):
            yield batch


def phases(items: Any) -> list[str | None]:
    return [getattr(item, "phase", None) for item in items]


@pytest.mark.parametrize("stored", ["memory", "sqlite"])
def test_the_client_sees_it_and_the_model_gets_it_again(stored: str, tmp_path: Path) -> None:
    model = Listening()
    store = tmp_path / "a.db" if stored == "sqlite" else None
    with serving(model, store) as server, client_of(server) as client:
        talk = client.conversations.create()
        first = validate_strictly(client.responses.create(input=SAID, conversation=talk.id))
        assert phases(first.output) == BOTH
        assert phases(client.responses.retrieve(first.id).output) == BOTH
        given = client.responses.input_items.list(first.id, order="asc").data
        assert phases(given) == [None, "commentary", None]
        shown = client.conversations.items.list(talk.id, order="asc").data
        assert phases(shown) == [None, "commentary", None, *BOTH]
        client.responses.create(input="Thanks.", conversation=talk.id)
    assert model.sent[-1].count(b'"phase":"commentary"') == 2
    assert model.sent[-1].count(b'"phase":"final_answer"') == 1
    assert b"antiphon_" not in model.sent[-1]


def test_a_stream_shows_it_from_the_beginning_and_on_replay(tmp_path: Path) -> None:
    with serving(Listening(), tmp_path / "a.db") as server:
        whole = server.respond(stream=True)
        items = [event["item"] for event in whole.events if "item" in event]
        assert [item["phase"] for item in items] == ["commentary"] * 2 + ["final_answer"] * 2
        name = whole.events[0]["response"]["id"]
        assert server.get(f"/v1/responses/{name}?stream=true").without_ids == whole.body


def test_people_have_none_and_there_are_no_others() -> None:
    with serving() as server:
        message = {"role": "user", "content": "Hi", "phase": "commentary"}
        kept = server.post("/v1/responses", input=[message])
        shown = server.get(f"/v1/responses/{kept.json['id']}/input_items").json["data"]
        assert "phase" not in shown[0]
        odd = {"role": "assistant", "content": "Hi", "phase": "epilogue"}
        refused = server.post("/v1/responses", input=[message, odd])
        assert (refused.status, refused.error["param"]) == (400, "input[1].phase")
