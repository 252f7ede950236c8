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
            if len(batch) == 1 and type(batch[0]) is events.TextDelta and not self._odds:
                # Most are so.
                delta = _Delta(content=batch[0].text, role=_ASSISTANT)
                outputs.append(_Output(delta=delta, index=index))
            elif (output := self._output(index, batch, over)) is not None:
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
        delta = _Delta(role=_ASSISTANT)
        output = _Output(index=index)
        words: list[str] = []
        thoughts: list[str] = []
        shown = False
        for event in batch:
            match event:
                case events.TextDelta(text=more) | events.RefusalDelta(text=more):
                    words.append(more)
                    if self._odds and isinstance(event, events.TextDelta):
                        output.logprobs.MergeFrom(encode_logprobs(event.logprobs))
                case events.ReasoningDelta(text=more) | events.RawReasoningDelta(text=more):
                    thoughts.append(more)
                case events.Created():
                    pass
                case events.ItemDone(item=item) if self._adds(item, delta):
                    pass
                case events.Ended(response=response) if response.status != "failed":
                    output.finish_reason = finish_reason(response)
                    over.append(response)
                case _:
                    continue
            shown = True
        if not shown:
            return None
        delta.content = "".join(words)
        delta.reasoning_content = "".join(thoughts)
        output.delta.CopyFrom(delta)
        return output

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
