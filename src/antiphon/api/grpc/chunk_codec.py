"""A turn's events as the SDK's chunks. Pure.

Events that came together leave in one chunk. The SDK takes role, finish reason and usage
from whatever chunk came last, so each has the role, and the last one the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from antiphon.api.grpc.response_codec import (
    Completions,
    citations_of,
    encode_logprobs,
    finish_reason,
    wants_logprobs,
)
from antiphon.api.grpc.tool_call_codec import ServerCalls, encode_call
from antiphon.core import events
from antiphon.core.items import FunctionCall, FunctionCallOutput, Item, Reasoning
from antiphon.core.turns import INCLUDE_ENCRYPTED_REASONING, Response
from antiphon.protos.xai import Proto, chat_pb2

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
        self._sealed = INCLUDE_ENCRYPTED_REASONING in options.include
        self._odds = wants_logprobs(options)
        self._ended: list[Response] = []
        self._calls = ServerCalls(first)
        #: None: no tools of MCP servers can be run in between.
        self._steps = _Steps() if options.mcp_servers else None
        base = _Chunk()
        completions.name(base, first)
        #: What all chunks have. Messages' bytes can be joined: the fields add up.
        self._base: bytes = base.SerializeToString()

    def encode(self, batches: Sequence[tuple[int, Sequence[events.Event]]]) -> bytes:
        """The chunk of events that leave together, by choice; nothing: none of them is shown."""
        outputs: list[Proto] = []
        over: list[Response] = []
        for index, batch in batches:
            if self._steps is not None:
                outputs += self._outputs(batch, over, self._steps)
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

    def _outputs(
        self, batch: Sequence[events.Event], over: list[Response], steps: _Steps
    ) -> Iterator[Proto]:
        """What the model said, and what servers' tools did in between."""
        said: list[events.Event] = []
        for event in batch:
            if isinstance(event, events.ItemDone) and isinstance(event.item, FunctionCallOutput):
                yield from self._answers(said, over, steps)
                said = []
                delta = _Delta()
                if self._calls.answer(event.item, delta):
                    yield steps.tool(delta)
            else:
                said.append(event)
        yield from self._answers(said, over, steps)

    def _answers(
        self, said: Sequence[events.Event], over: list[Response], steps: _Steps
    ) -> Iterator[Proto]:
        """More of the model's answer, if that is any."""
        if said and (output := self._output(0, said, over)) is not None:
            yield steps.answer(output)

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
            case FunctionCall():
                delta.tool_calls.append(self._calls.call(item))
                return True
            case Reasoning(encrypted_content=str(sealed)) if self._sealed:
                delta.encrypted_content = sealed
                return True
        return False


class _Steps:
    """The numbers of a choice's outputs, where each answer and each tool's is one of its own."""

    def __init__(self) -> None:
        self._next = 0
        #: The newest answer's number, and whether more of it may come.
        self._answer: int | None = None
        self._open = False

    def answer(self, output: Proto) -> Proto:
        """The output with its number: the answer's that it is more of, or that of a new one.

        How the turn ended belongs to the newest, also where its tools were the last.
        """
        delta = output.delta
        says = delta.content or delta.reasoning_content or delta.encrypted_content
        if self._answer is None or (not self._open and (says or delta.tool_calls)):
            self._answer, self._open = self._next, True
            self._next += 1
        output.index = self._answer
        return output

    def tool(self, delta: Proto) -> Proto:
        """What a tool answered, as an output."""
        self._open = False
        self._next += 1
        return _Output(delta=delta, index=self._next - 1)
