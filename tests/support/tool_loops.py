"""Tool loops: answers with a call and with what models want back beside it."""

from __future__ import annotations

from typing import Any

from support.misbehaving_upstream import Behaviour
from support.scenario import DONE, Outcome, call, chunk, end, stream_of, text, whole

Json = dict[str, Any]

CALL: Json = {"id": "call_1", "type": "function", "function": {"name": "lookup", "arguments": "{}"}}
SIGNED: Json = {"google": {"thought_signature": "QUJD"}}
TEXT_ENTRY: Json = {
    "type": "reasoning.text",
    "text": "Look it up.",
    "signature": "c2ln",
    "index": 0,
}
SECRET: Json = {
    "type": "reasoning.encrypted",
    "data": "gAAA",
    "id": "rs_1",
    "format": "x",
    "index": 1,
}
GOOD = stream_of(text("Hello there."), end(), DONE)


def calls(*deltas: Json, **beside: Any) -> Behaviour:
    """A stream of these deltas and then a call."""
    parts = [chunk(delta) for delta in deltas]
    return stream_of(*parts, call({"index": 0, **CALL, **beside}), end("tool_calls"), DONE)


def whole_call(beside: Json | None = None, **fields: Any) -> Behaviour:
    message = {"role": "assistant", "content": None, "tool_calls": [{**CALL, **(beside or {})}]}
    return whole({**message, **fields}, "tool_calls")


def output_of(outcome: Outcome) -> Json:
    return {"type": "function_call_output", "call_id": outcome.call_ids[0], "output": "42"}
