"""What is asked over gRPC, and the check of what came back."""

from __future__ import annotations

from xai_sdk.proto import chat_pb2, sample_pb2  # type: ignore[import-untyped]

from bench.history import History, streamed_text, user_text
from bench.load import BenchError, Script
from bench.load_grpc import messages_in
from bench.workloads import expect


class RepeatedStream:
    """One single-message completion, streamed again and again: ``bench.workloads.Repeated``'s."""

    def __init__(self, chunks: int, *, store: bool = False, pause_ms: int = 0) -> None:
        text = user_text(0, 0)
        said = chat_pb2.Message(role=chat_pb2.ROLE_USER, content=[chat_pb2.Content(text=text)])
        asked = chat_pb2.GetCompletionsRequest(
            model=f"fake-{chunks}" + (f"@{pause_ms}" if pause_ms else ""),
            messages=[said],
            store_messages=store,
        )
        self._request: bytes = asked.SerializeToString()
        history = History()
        history.add("user", text)
        self._answer = streamed_text(history.proof(), chunks)
        self._replies: list[bytes] = []

    def scripts(self, connections: int) -> list[Script]:
        return [self._script() for _ in range(connections)]

    def _script(self) -> Script:
        while True:
            self._replies.append((yield self._request))

    def check(self) -> float:
        """Hold every stream to its text and its end, forget them; messages per stream."""
        carried = 0
        asked = len(self._replies)
        for reply in self._replies:
            chunks = [chat_pb2.GetChatCompletionChunk.FromString(one) for one in messages_in(reply)]
            outputs = [output for chunk in chunks for output in chunk.outputs]
            pieces = [output.delta.content for output in outputs if output.delta.content]
            expect("a stream", "".join(pieces), self._answer)
            if not outputs or outputs[-1].finish_reason != sample_pb2.REASON_STOP:
                raise BenchError("a stream did not end in REASON_STOP")
            carried += len(pieces)
        self._replies.clear()
        return carried / asked if asked else 0.0
