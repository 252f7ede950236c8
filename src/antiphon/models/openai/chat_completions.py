"""A model behind any OpenAI-compatible ``/chat/completions`` endpoint."""

from __future__ import annotations

from functools import cached_property

from antiphon.models.openai.chat_completions_codec import AnswerReader, RequestWriter
from antiphon.models.openai.upstream_model import UpstreamModel
from antiphon.turn.protocols import ModelCall


class ChatCompletionsModel(UpstreamModel):
    """One endpoint that speaks chat completions; see ``UpstreamModel`` for what it is given."""

    path = "/chat/completions"

    @cached_property
    def _writer(self) -> RequestWriter:
        openai = _is_openai(self._url.host or "")
        return RequestWriter(upstream_name=self._upstream_name, openai=openai)

    def _body(self, call: ModelCall) -> bytes:
        return self._writer.body(call)

    def _reader(self, call: ModelCall) -> AnswerReader:
        return AnswerReader()


def _is_openai(host: str) -> bool:
    return host == "api.openai.com" or host.endswith((".api.openai.com", ".openai.azure.com"))
