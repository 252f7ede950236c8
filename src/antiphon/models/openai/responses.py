"""A model behind an endpoint that speaks the Responses API, ours to remember for.

Upstream nothing is stored: the whole context goes with each call, and with it what the
model thought, encrypted, so that it does not have to think it again.
"""

from __future__ import annotations

from functools import cached_property

from antiphon.core.turns import SEALED
from antiphon.errors import InvalidRequest
from antiphon.models.openai.responses_request import RequestWriter
from antiphon.models.openai.responses_stream import AnswerReader
from antiphon.models.openai.upstream_model import UpstreamModel
from antiphon.models.retry import Failure
from antiphon.turn.protocols import ModelCall

#: The code of an error about reasoning that was sent back and cannot be read any more.
_STALE = "invalid_encrypted_content"


class ResponsesModel(UpstreamModel):
    """One endpoint that speaks the Responses API; see ``UpstreamModel`` for what it is given.

    Reasoning is asked for with each call. A model that has none to give may refuse that;
    then it is asked again without, from now on. One that cannot read its own old reasoning
    is asked again without that.
    """

    path = "/responses"

    @cached_property
    def _writer(self) -> RequestWriter:
        return RequestWriter(upstream_name=self._upstream_name, host=self._url.authority)

    def _body(self, call: ModelCall) -> bytes:
        return self._writer.body(call)

    def _reader(self, call: ModelCall) -> AnswerReader:
        return AnswerReader(self._writer.origin(call))

    def _mended(self, call: ModelCall, body: bytes, failure: Failure) -> bytes | None:
        error = failure.error
        if type(error) is not InvalidRequest:
            return None
        stale = error.code == _STALE
        if not stale and not _refuses_reasoning(error):
            return None
        if not stale:
            self._writer.reasons_not(call)
        # Keys change there: without old reasoning, the conversation can go on.
        other = self._writer.body(call, reasoning=not stale)
        return other if other != body else None


def _refuses_reasoning(error: InvalidRequest) -> bool:
    if error.param is not None:
        return error.param.startswith("include")
    return any(sign in error.message for sign in (SEALED, "'include'", '"include"'))
