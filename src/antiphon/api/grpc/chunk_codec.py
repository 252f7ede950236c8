"""A turn's events as the SDK's chunks. Pure.

Events that came together leave in one chunk. The SDK takes role, finish reason and usage
from whatever chunk came last, so each has the role, and the last one the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from antiphon.api.grpc.response_codec import (
    CompletionEncoder,
    citation_urls,
    encode_logprobs,
    finish_reason,
    wants_logprobs,
)
from antiphon.api.grpc.tool_codec import McpCallEncoder, encode_call
from antiphon.core import events
from antiphon.core.items import FunctionCall, FunctionCallOutput, Item, Reasoning
from antiphon.core.turns import INCLUDE_ENCRYPTED_REASONING, Response
from antiphon.protos.xai import Proto, chat_pb2

_Chunk = chat_pb2.GetChatCompletionChunk
_Output = chat_pb2.CompletionOutputChunk
_Delta = chat_pb2.Delta
_ASSISTANT = chat_pb2.ROLE_ASSISTANT
#: Most events are of these, and many come together: they are joined, not looked at one by one.
_TEXT_DELTAS = (events.TextDelta, events.RefusalDelta)


class GrpcChunkEncoder:
    """Encodes the events of one completion's turns; ``first`` gives it its id."""

    def __init__(self, first: Response, completion_encoder: CompletionEncoder) -> None:
        self._completion_encoder = completion_encoder
        options = first.header.options
        self._include_encrypted = INCLUDE_ENCRYPTED_REASONING in options.include
        self._wants_logprobs = wants_logprobs(options)
        self._ended_responses: list[Response] = []
        self._call_encoder = McpCallEncoder(first)
        #: None: no tools of MCP servers can be run in between.
        self._numbering = _OutputNumbering() if options.mcp_servers else None
        base = _Chunk()
        completion_encoder.set_identity(base, first)
        #: What all chunks have. Messages' bytes can be joined: the fields add up.
        self._base: bytes = base.SerializeToString()

    def encode(self, batches: Sequence[tuple[int, Sequence[events.Event]]]) -> bytes:
        """The chunk of events that leave together, by choice; nothing: none of them is shown."""
        outputs: list[Proto] = []
        ended: list[Response] = []
        for index, batch in batches:
            if self._numbering is not None:
                outputs += self._numbered_outputs(batch, ended, self._numbering)
            elif (output := self._output(index, batch, ended)) is not None:
                outputs.append(output)
        if not outputs:
            return b""
        chunk = _Chunk(outputs=outputs)
        if ended:
            self._ended_responses += ended
            chunk.usage.CopyFrom(self._completion_encoder.total_usage(self._ended_responses))
            chunk.citations.extend(citation_urls(item for one in ended for item in one.output))
        body: bytes = chunk.SerializeToString()
        return self._base + body

    def _numbered_outputs(
        self, batch: Sequence[events.Event], ended: list[Response], steps: _OutputNumbering
    ) -> Iterator[Proto]:
        """What the model said, and what servers' tools did in between."""
        answer_events: list[events.Event] = []
        for event in batch:
            if isinstance(event, events.ItemDone) and isinstance(event.item, FunctionCallOutput):
                yield from self._answer_output(answer_events, ended, steps)
                answer_events = []
                delta = _Delta()
                if self._call_encoder.add_output(event.item, delta):
                    yield steps.number_tool_output(delta)
            else:
                answer_events.append(event)
        yield from self._answer_output(answer_events, ended, steps)

    def _answer_output(
        self, answer_events: Sequence[events.Event], ended: list[Response], steps: _OutputNumbering
    ) -> Iterator[Proto]:
        """More of the model's answer, if that is any."""
        if answer_events and (output := self._output(0, answer_events, ended)) is not None:
            yield steps.number_answer(output)

    def _output(
        self, index: int, batch: Sequence[events.Event], ended: list[Response]
    ) -> Proto | None:
        words = [event.text for event in batch if isinstance(event, _TEXT_DELTAS)]
        output = _Output(delta=_Delta(content="".join(words), role=_ASSISTANT), index=index)
        if len(words) < len(batch):
            rest = [event for event in batch if not isinstance(event, _TEXT_DELTAS)]
            shown = [self._add_event(event, output, ended) for event in rest]
            if not words and not any(shown):
                return None
        if self._wants_logprobs:
            for event in batch:
                if isinstance(event, events.TextDelta):
                    output.logprobs.MergeFrom(encode_logprobs(event.logprobs))
        return output

    def _add_event(self, event: events.Event, output: Proto, ended: list[Response]) -> bool:
        """Add what an event that is no word of the answer says; whether it says anything."""
        match event:
            case events.ReasoningDelta(text=more) | events.RawReasoningDelta(text=more):
                output.delta.reasoning_content += more
                return True
            case events.ItemDone(item=item):
                return self._add_item(item, output.delta)
            case events.Ended(response=response) if response.status != "failed":
                output.finish_reason = finish_reason(response)
                ended.append(response)
                return True
        return False

    def _add_item(self, item: Item, delta: Proto) -> bool:
        """Whether an item that is whole is shown as such: its words have been already."""
        match item:
            case FunctionCall(server=None):
                delta.tool_calls.append(encode_call(item))
                return True
            case FunctionCall():
                delta.tool_calls.append(self._call_encoder.encode(item))
                return True
            case Reasoning(sealed=str(sealed)) if self._include_encrypted:
                delta.encrypted_content = sealed
                return True
        return False


class _OutputNumbering:
    """The numbers of a choice's outputs, where each answer and each tool's is one of its own."""

    def __init__(self) -> None:
        self._next_index = 0
        #: The newest answer's number, and whether more of it may come.
        self._answer_index: int | None = None
        self._answer_open = False

    def number_answer(self, output: Proto) -> Proto:
        """The output with its number: the answer's that it is more of, or that of a new one.

        How the turn ended belongs to the newest, also where its tools were the last.
        """
        delta = output.delta
        says = delta.content or delta.reasoning_content or delta.encrypted_content
        if self._answer_index is None or (not self._answer_open and (says or delta.tool_calls)):
            self._answer_index, self._answer_open = self._next_index, True
            self._next_index += 1
        output.index = self._answer_index
        return output

    def number_tool_output(self, delta: Proto) -> Proto:
        """What a tool answered, as an output."""
        self._answer_open = False
        self._next_index += 1
        return _Output(delta=delta, index=self._next_index - 1)
