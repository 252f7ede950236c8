"""Reading replies and holding each to what it must say. None of it runs on the clock."""

from __future__ import annotations

from typing import Literal

import msgspec

from bench.load import BenchError


class _Message(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    message: _Message | None = None
    delta: _Message | None = None


class _Completion(msgspec.Struct):
    choices: list[_Choice]


class Part(msgspec.Struct):
    text: str = ""


class Item(msgspec.Struct):
    """A message, in a response's output or in a list of input items."""

    type: str = "message"
    role: str = "assistant"
    content: str | list[Part] = ""

    @property
    def text(self) -> str:
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content)


class _Details(msgspec.Struct):
    cached_tokens: int = 0


class Usage(msgspec.Struct):
    input_tokens: int
    output_tokens: int
    input_tokens_details: _Details = msgspec.field(default_factory=_Details)


class Response(msgspec.Struct):
    id: str
    status: str
    output: list[Item]
    previous_response_id: str | None = None
    usage: Usage | None = None

    @property
    def text(self) -> str:
        return "".join(item.text for item in self.output if item.type == "message")


class Items(msgspec.Struct):
    data: list[Item]
    has_more: bool = False


class _Event(msgspec.Struct):
    type: str
    sequence_number: int
    delta: str = ""
    response: msgspec.Raw = msgspec.Raw(b"")


class _Id(msgspec.Struct):
    id: str


_completion = msgspec.json.Decoder(_Completion).decode
_event = msgspec.json.Decoder(_Event).decode
response = msgspec.json.Decoder(Response).decode
items = msgspec.json.Decoder(Items).decode
_id = msgspec.json.Decoder(_Id).decode

Dialect = Literal["completions", "responses"]


def response_id(body: bytes) -> str:
    """Only the id: cheap enough to run between two turns."""
    return _id(body).id


def text_of(dialect: Dialect, body: bytes) -> str:
    """The model's text in a reply that was not streamed."""
    if dialect == "responses":
        told = response(body)
        if told.status != "completed":
            raise BenchError(f"{told.id} is {told.status}")
        return told.text
    message = _completion(body).choices[0].message
    return (message and message.content) or ""


def streamed(dialect: Dialect, body: bytes) -> tuple[str, int]:
    """A stream's text, and the number of events that carried it. Checks its end."""
    data = [
        line[5:].strip()
        for event in body.replace(b"\r\n", b"\n").split(b"\n\n")
        for line in event.split(b"\n")
        if line.startswith(b"data:")
    ]
    pieces = _responses_pieces(data) if dialect == "responses" else _completions_pieces(data)
    return "".join(pieces), len(pieces)


def _completions_pieces(data: list[bytes]) -> list[str]:
    if not data or data[-1] != b"[DONE]":
        raise BenchError("a stream did not end in [DONE]")
    deltas = [choice.delta for one in data[:-1] for choice in _completion(one).choices]
    return [delta.content for delta in deltas if delta and delta.content]


def _responses_pieces(data: list[bytes]) -> list[str]:
    events = [_event(one) for one in data if one != b"[DONE]"]
    if not events or events[-1].type != "response.completed":
        raise BenchError("a stream did not end in response.completed")
    if [event.sequence_number for event in events] != list(range(len(events))):
        raise BenchError("the sequence numbers of a stream have a gap")
    pieces = [event.delta for event in events if event.type == "response.output_text.delta"]
    if response(events[-1].response).text != "".join(pieces):
        raise BenchError("a completed response differs from its deltas")
    return pieces
