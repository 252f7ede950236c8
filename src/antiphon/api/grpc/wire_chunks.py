"""A turn's events as the SDK's chunks. Pure.

Events that came together leave in one chunk. The SDK takes role, finish reason and usage
from whatever chunk came last, so each has the role, and the last one the rest.
"""

from __future__ import annotations

from collections.abc import Sequence

from antiphon.api.grpc.wire_request import SEALED
from antiphon.api.grpc.wire_response import (
    Completions,
    citations_of,
    encode_call,
    encode_logprobs,
    finish_reason,
    wants_logprobs,
)
from antiphon.core import events
from antiphon.core.items import FunctionCall, Item, Reasoning
from antiphon.core.turns import Response
from antiphon.core.xai_protos import Proto, chat_pb2

_Chunk = chat_pb2.GetChatCompletionChunk
_Output = chat_pb2.CompletionOutputChunk
_Delta = chat_pb2.Delta
_ASSISTANT = chat_pb2.ROLE_ASSISTANT
#: Most events are of these, and many come together: they are joined, not looked at one by one.
_WORDS = (events.TextDelta, events.RefusalDelta)


class ChunkEncoder:
    """Encodes the events of one completion's turns; ``first`` gives it its id."""

    def __init__(self, first: Response, completions: Completions) -> None:
        self._completions = completions
        options = first.header.options
        self._sealed = SEALED in options.include
        self._odds = wants_logprobs(options)
        self._ended: list[Response] = []
        base = _Chunk()
        completions.name(base, first)
        #: What all chunks have. Messages' bytes can be joined: the fields add up.
        self._base: bytes = base.SerializeToString()

    def encode(self, batches: Sequence[tuple[int, Sequence[events.Event]]]) -> bytes:
        """The chunk of events that leave together, by choice; nothing: none of them is shown."""
        outputs: list[Proto] = []
        over: list[Response] = []
        for index, batch in batches:
            if (output := self._output(index, batch, over)) is not None:
                outputs.append(output)
        if not outputs:
            return b""
        chunk = _Chunk(outputs=outputs)
        if over:
            self._ended += over
            chunk.usage.CopyFrom(self._completions.usage(self._ended))
            chunk.citations.extend(citations_of(item for one in over for item in one.output))
        body: bytes = chunk.SerializeToString()
        return self._base + body

    def _output(
        self, index: int, batch: Sequence[events.Event], over: list[Response]
    ) -> Proto | None:
        words = [event.text for event in batch if isinstance(event, _WORDS)]
        output = _Output(delta=_Delta(content="".join(words), role=_ASSISTANT), index=index)
        if len(words) < len(batch):
            rest = [event for event in batch if not isinstance(event, _WORDS)]
            shown = [self._show(event, output, over) for event in rest]
            if not words and not any(shown):
                return None
        if self._odds:
            for event in batch:
                if isinstance(event, events.TextDelta):
                    output.logprobs.MergeFrom(encode_logprobs(event.logprobs))
        return output

    def _show(self, event: events.Event, output: Proto, over: list[Response]) -> bool:
        """Add what an event that is no word of the answer says; whether it says anything."""
        match event:
            case events.ReasoningDelta(text=more) | events.RawReasoningDelta(text=more):
                output.delta.reasoning_content += more
                return True
            case events.ItemDone(item=item):
                return self._adds(item, output.delta)
            case events.Ended(response=response) if response.status != "failed":
                output.finish_reason = finish_reason(response)
                over.append(response)
                return True
        return False

    def _adds(self, item: Item, delta: Proto) -> bool:
        """Whether an item that is whole is shown as such: its words have been already."""
        match item:
            case FunctionCall(server=None):
                delta.tool_calls.append(encode_call(item))
                return True
            case Reasoning(encrypted_content=str(sealed)) if self._sealed:
                delta.encrypted_content = sealed
                return True
        return False
