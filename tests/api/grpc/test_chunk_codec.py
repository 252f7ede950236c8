"""A turn with MCP servers' tools in a stream, however its events come together."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from xai_sdk.chat import Response as Streamed  # type: ignore[import-untyped]
from xai_sdk.proto import chat_pb2  # type: ignore[import-untyped]

from antiphon.api.grpc.chunk_codec import GrpcChunkEncoder
from antiphon.api.grpc.response_codec import CompletionEncoder
from antiphon.api.grpc.tool_codec import MCP_OUTPUTS
from antiphon.core import events
from antiphon.core.items import FunctionCall, FunctionCallOutput, Item, McpListTools, Message
from antiphon.core.token_prices import no_prices
from antiphon.core.turns import End, Header, McpTool, Options, Response

OPTIONS = Options(
    mcp_servers=(McpTool("files", require_approval=("pay",)),), include=(MCP_OUTPUTS,), tools=()
)
COMPLETIONS = CompletionEncoder(no_prices, "test")


def call(name: str, call_id: str) -> FunctionCall:
    return FunctionCall(call_id, f"files__{name}", "{}", server="files")


#: What turns may do: each answer of the model, and behind it what its tools answered.
answers = st.sampled_from(
    [
        (Message("assistant", "So."), call("add", "c1"), FunctionCallOutput("c1", "3")),
        (
            call("add", "c2"),
            call("fail", "c3"),
            FunctionCallOutput("c3", "No.", is_error=True),
            FunctionCallOutput("c2", "4"),
        ),
        (call("pay", "c4"), call("add", "c5"), FunctionCallOutput("c5", "5")),
        (Message("assistant", "Done."),),
        (call("add", "c6"),),
    ]
)
turns = st.lists(answers, max_size=4, unique=True)


def told(items: list[Item]) -> list[events.Event]:
    out: list[events.Event] = []
    for index, item in enumerate(items):
        shell = Message("assistant", "") if isinstance(item, Message) else item
        out.append(events.ItemAdded(index, shell))
        if isinstance(item, Message):
            assert isinstance(item.content, str)
            out += [events.TextDelta(index, letter) for letter in item.content]
        out.append(events.ItemDone(index, item))
    return out


@given(turns, st.data())
def test_a_stream_adds_up_to_the_stored_completion(
    rounds: list[tuple[Item, ...]], data: st.DataObject
) -> None:
    items: list[Item] = [McpListTools("files"), *(item for one in rounds for item in one)]
    opening = Response("resp_" + "0" * 32, 1.0, Header("m", options=OPTIONS), ())
    end = End("completed", 2.0)
    over = Response(opening.id, 1.0, opening.header, (), tuple(items), end)
    all_events = [events.Created(opening), *told(items), events.Ended(over)]
    cuts = data.draw(st.sets(st.integers(1, len(all_events))))
    encoder = GrpcChunkEncoder(opening, COMPLETIONS)
    streamed = Streamed(chat_pb2.GetChatCompletionResponse(), None)
    for first, last in zip([0, *sorted(cuts)], [*sorted(cuts), len(all_events)], strict=True):
        if chunk := encoder.encode([(0, all_events[first:last])]):
            streamed.process_chunk(chat_pb2.GetChatCompletionChunk.FromString(chunk))
    kept = COMPLETIONS.encode([over])
    for output in (*streamed.proto.outputs, *kept.outputs):
        if output.message.role == chat_pb2.ROLE_ASSISTANT:
            # A call is told before anybody knows what becomes of it.
            for one in output.message.tool_calls:
                one.ClearField("status")
                one.ClearField("error_message")
    assert list(streamed.proto.outputs) == list(kept.outputs)
    assert streamed.proto.usage == kept.usage
