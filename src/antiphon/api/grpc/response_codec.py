"""Turns as the SDK's completions. Pure.

One completion may hold several choices, which are turns of their own: it has the id of the
first, whose metadata names the others.

What a completion says of the settings that it was made with. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from antiphon.api.grpc.tool_codec import (
    McpCallEncoder,
    count_mcp_calls,
    encode_call,
    has_open_calls,
)
from antiphon.core.items import (
    FunctionCall,
    FunctionCallOutput,
    Item,
    Message,
    OutputText,
    Reasoning,
    text_and_refusals_of,
)
from antiphon.core.token_prices import PriceLookup, cost_in_ticks
from antiphon.core.turns import (
    INCLUDE_ENCRYPTED_REASONING,
    INCLUDE_LOGPROBS,
    McpTool,
    Options,
    Response,
    Usage,
)
from antiphon.protos.xai import (
    REASONING_EFFORTS,
    SERVICE_TIERS,
    Proto,
    chat_pb2,
    choice_proto,
    format_proto,
    sample_pb2,
    tool_proto,
    usage_pb2,
)

_NANO = 1_000_000_000

_FINISH_REASONS = {
    "max_output_tokens": sample_pb2.REASON_MAX_LEN,
    "max_tool_calls": sample_pb2.REASON_TOOL_CALLS,
    "content_filter": sample_pb2.REASON_STOP,
}


class CompletionEncoder:
    """Encodes completions of one server: ``fingerprint`` names what made them."""

    def __init__(self, prices: PriceLookup, fingerprint: str) -> None:
        self.prices = prices
        self.fingerprint = fingerprint

    def encode(self, choices: Sequence[Response]) -> Proto:
        """A ``GetChatCompletionResponse``; the first choice gives it its id."""
        first = choices[0]
        whole = chat_pb2.GetChatCompletionResponse(
            outputs=self._outputs(choices),
            usage=self.total_usage(choices),
            citations=citation_urls(item for one in choices for item in one.output),
            settings=encode_settings(first),
            service_tier=SERVICE_TIERS.get(
                first.header.options.service_tier or "", usage_pb2.SERVICE_TIER_DEFAULT
            ),
        )
        self.set_identity(whole, first)
        return whole

    def _outputs(self, choices: Iterable[Response]) -> list[Proto]:
        outputs: list[Proto] = []
        for response in choices:
            outputs += encode_outputs(response, len(outputs))
        return outputs

    def set_identity(self, proto: Proto, response: Response) -> None:
        """Say which completion, or chunk of one, it is."""
        proto.id = response.id
        proto.model = response.model
        proto.system_fingerprint = self.fingerprint
        proto.created.FromNanoseconds(int(response.created_at * _NANO))

    def total_usage(self, choices: Iterable[Response]) -> Proto:
        """The tokens of all choices, and their cost where all have a price."""
        total, cost, run = Usage(), 0, 0
        priced = True
        for response in choices:
            used = (response.end.usage if response.end else None) or Usage()
            total += used
            price = self.prices(response.model)
            priced = priced and price is not None
            cost += cost_in_ticks(used, price) if price is not None else 0
            run += count_mcp_calls(response)
        return encode_usage(total, cost if priced else None, run)


def encode_usage(usage: Usage, cost: int | None = None, mcp_calls: int = 0) -> Proto:
    """Tokens; ``cost`` in ticks, None: unknown; how often MCP servers' tools were run.

    As with xAI, the tokens of reasoning are not among those of the completion.
    """
    written = max(0, usage.output_tokens - usage.reasoning_tokens)
    return usage_pb2.SamplingUsage(
        completion_tokens=written,
        reasoning_tokens=usage.reasoning_tokens,
        prompt_tokens=usage.input_tokens,
        prompt_text_tokens=usage.input_tokens,
        cached_prompt_text_tokens=usage.cached_tokens,
        total_tokens=usage.input_tokens + usage.output_tokens,
        cost_in_usd_ticks=cost,
        server_side_tools_used=[usage_pb2.SERVER_SIDE_TOOL_MCP] * mcp_calls,
    )


def encode_outputs(response: Response, first: int) -> list[Proto]:
    """One choice, whole, in outputs that are numbered from ``first``.

    It is one output; where the tools of MCP servers were run, one for each answer of the
    model, with those of its calls behind it.
    """
    calls = McpCallEncoder(response)
    outputs: list[Proto] = []
    answer = last = None
    for item in response.output:
        if isinstance(item, FunctionCallOutput):
            output = chat_pb2.CompletionOutput(index=first + len(outputs))
            if calls.add_output(item, output.message):
                outputs.append(output)
                answer = None
        elif isinstance(item, Message | Reasoning | FunctionCall):
            if answer is None:
                answer = last = _new_output(response, first + len(outputs))
                outputs.append(answer)
            _add_item(item, answer, response.header.options, calls)
    if last is None:
        last = _new_output(response, first + len(outputs))
        outputs.append(last)
    last.finish_reason = finish_reason(response)
    return outputs


def _new_output(response: Response, index: int) -> Proto:
    output = chat_pb2.CompletionOutput(index=index)
    output.message.role = chat_pb2.ROLE_ASSISTANT
    if wants_logprobs(response.header.options):
        output.logprobs.SetInParent()
    return output


def _add_item(
    item: Message | Reasoning | FunctionCall, output: Proto, options: Options, calls: McpCallEncoder
) -> None:
    message = output.message
    match item:
        case Message(content=content):
            message.content += text_and_refusals_of(content)
            if wants_logprobs(options):
                output.logprobs.MergeFrom(encode_logprobs(logprobs_of(content)))
        case Reasoning():
            message.reasoning_content += reasoning_text(item)
            if INCLUDE_ENCRYPTED_REASONING in options.include and item.sealed:
                message.encrypted_content = item.sealed
        case FunctionCall(server=None):
            message.tool_calls.append(encode_call(item))
        case FunctionCall():
            message.tool_calls.append(calls.encode(item))


def reasoning_text(item: Reasoning) -> str:
    """What a model thought: as it thought it, or in short."""
    texts = [part.text for part in item.summary]
    return "".join(texts + [part.text for part in item.content])


def finish_reason(response: Response) -> int:
    """Why a turn ended; ``REASON_INVALID``: it was cancelled, or has not ended yet."""
    end = response.end
    if end is None or end.status not in ("completed", "incomplete"):
        reason: int = sample_pb2.REASON_INVALID
        return reason
    if end.reason in _FINISH_REASONS:
        return int(_FINISH_REASONS[end.reason])
    return int(sample_pb2.REASON_TOOL_CALLS if has_open_calls(response) else sample_pb2.REASON_STOP)


def citation_urls(items: Iterable[Item]) -> list[str]:
    """The URLs that answers refer to, each once."""
    annotations = [
        note
        for item in items
        if isinstance(item, Message) and not isinstance(item.content, str)
        for part in item.content
        if isinstance(part, OutputText)
        for note in part.annotations
    ]
    urls = [note.get("url") for note in annotations if isinstance(note, dict)]
    return list(dict.fromkeys(url for url in urls if isinstance(url, str)))


def wants_logprobs(options: Options) -> bool:
    return INCLUDE_LOGPROBS in options.include


def logprobs_of(content: Any) -> tuple[Any, ...]:
    """The odds of an answer's tokens, as they are kept."""
    if isinstance(content, str):
        return ()
    return tuple(one for part in content if isinstance(part, OutputText) for one in part.logprobs)


def encode_logprobs(logprobs: Iterable[Any]) -> Proto:
    """Odds as they are kept, which models gave and nobody checked."""
    content = [
        chat_pb2.LogProb(
            **_logprob_fields(one),
            top_logprobs=[
                chat_pb2.TopLogProb(**_logprob_fields(other)) for other in _top_logprobs(one)
            ],
        )
        for one in logprobs
        if isinstance(one, dict)
    ]
    return chat_pb2.LogProbs(content=content)


def _top_logprobs(one: dict[str, Any]) -> list[dict[str, Any]]:
    given = one.get("top_logprobs")
    return [other for other in given if isinstance(other, dict)] if isinstance(given, list) else []


def _logprob_fields(one: dict[str, Any]) -> dict[str, Any]:
    token, logprob = one.get("token"), one.get("logprob")
    return {
        "token": token if isinstance(token, str) else "",
        "logprob": float(logprob) if isinstance(logprob, int | float) else 0.0,
        "bytes": _bytes(one.get("bytes")),
    }


def _bytes(given: Any) -> bytes:
    try:
        return bytes(given) if isinstance(given, list) else b""
    except (TypeError, ValueError):
        return b""


def encode_settings(response: Response) -> Proto:
    """A ``RequestSettings``. What the model decided by itself is left out."""
    options = response.header.options
    tools = [tool_proto(tool) for tool in options.tools] + [
        _mcp_server_proto(server) for server in options.mcp_servers
    ]
    return chat_pb2.RequestSettings(
        max_tokens=options.max_output_tokens,
        parallel_tool_calls=options.parallel_tool_calls,
        previous_response_id=response.previous_response_id,
        reasoning_effort=REASONING_EFFORTS.get(options.reasoning_effort or ""),
        temperature=options.temperature,
        response_format=format_proto(options.text_format),
        tool_choice=choice_proto(options.tool_choice) if tools else None,
        tools=tools,
        top_p=options.top_p,
        user=options.user,
        store_messages=response.store,
        use_encrypted_content=INCLUDE_ENCRYPTED_REASONING in options.include,
    )


def _mcp_server_proto(server: McpTool) -> Proto:
    """An MCP server, without anything that it is reached with."""
    return chat_pb2.Tool(
        mcp=chat_pb2.MCP(
            server_label=server.server_label,
            server_description=server.server_description,
            server_url=server.server_url,
            allowed_tool_names=server.allowed_tools,
        )
    )
