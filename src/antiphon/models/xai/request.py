"""A call as a request of xAI's SDK. Pure.

Nothing is stored upstream: the whole context goes with each call, and with it what the
model thought, encrypted, so that it does not have to think it again.
"""

from __future__ import annotations

import msgspec

from antiphon.core.turns import FunctionTool, Options
from antiphon.errors import InvalidRequest
from antiphon.models.openai.logprobs_citations import wants_logprobs
from antiphon.models.xai.messages import messages_of
from antiphon.protos.xai import Proto, chat_pb2, usage_pb2
from antiphon.protos.xai_options import EFFORTS, choice_proto, format_proto, tool_proto
from antiphon.turn.protocols import ModelCall

_TIERS = {
    None: usage_pb2.SERVICE_TIER_UNSPECIFIED,
    "auto": usage_pb2.SERVICE_TIER_UNSPECIFIED,
    "default": usage_pb2.SERVICE_TIER_DEFAULT,
    "priority": usage_pb2.SERVICE_TIER_PRIORITY,
}
#: A function without parameters has them all the same.
_NO_PARAMETERS = {"type": "object", "properties": {}}


def request_of(call: ModelCall, name: str, origin: str) -> Proto:
    """A ``GetCompletionsRequest`` to the model ``name``, ``origin`` in what reasoning says.

    Raises ``InvalidRequest`` for what the API has no place for, naming the field at fault.
    """
    messages = messages_of(call.messages, origin)
    try:
        request = _request(call.options)
        request.model = name
        request.messages.extend(messages)
    except ValueError as error:
        # A number that is too big for its field.
        raise InvalidRequest(f"The model cannot be asked that: {error}") from error
    return request


def without_reasoning(request: Proto) -> Proto | None:
    """The request without encrypted reasoning, given or asked for; None: it has neither."""
    if not request.use_encrypted_content:
        return None
    other = chat_pb2.GetCompletionsRequest()
    other.CopyFrom(request)
    other.use_encrypted_content = False
    for message in other.messages:
        message.ClearField("encrypted_content")
        message.ClearField("reasoning_content")
    return other


def _request(options: Options) -> Proto:
    tools = options.tools
    logprobs = wants_logprobs(options)
    return chat_pb2.GetCompletionsRequest(
        user=options.user,
        max_tokens=options.max_output_tokens,
        seed=options.seed,
        stop=options.stop,
        temperature=options.temperature,
        top_p=options.top_p,
        logprobs=logprobs,
        top_logprobs=options.top_logprobs if logprobs else None,
        tools=[_tool(tool) for tool in tools],
        tool_choice=choice_proto(options.tool_choice) if tools else None,
        parallel_tool_calls=options.parallel_tool_calls if tools else None,
        response_format=format_proto(options.text_format),
        frequency_penalty=options.frequency_penalty,
        presence_penalty=options.presence_penalty,
        reasoning_effort=_effort(options.reasoning_effort),
        service_tier=_tier(options.service_tier),
        safety_identifier=options.safety_identifier,
        store_messages=False,
        use_encrypted_content=True,
    )


def _tool(tool: FunctionTool) -> Proto:
    if tool.parameters is None:
        tool = msgspec.structs.replace(tool, parameters=_NO_PARAMETERS)
    return tool_proto(tool)


def _effort(effort: str | None) -> int | None:
    if effort is not None and effort not in EFFORTS:
        raise InvalidRequest(
            f"This model knows no effort '{effort}': it has {', '.join(EFFORTS)}.",
            code="unsupported_value",
            param="reasoning.effort",
        )
    return None if effort is None else int(EFFORTS[effort])


def _tier(tier: str | None) -> int:
    if tier not in _TIERS:
        raise InvalidRequest(
            f"This model has no service tier '{tier}'.",
            code="unsupported_value",
            param="service_tier",
        )
    return int(_TIERS[tier])
