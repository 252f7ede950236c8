"""Text generation answers: those of APIs that generate texts, whole or streamed. Pure.

Cohere's, TGI's, KoboldCpp's, watsonx's, llama.cpp's, SGLang's, Qianfan's and Bedrock's own APIs, as
base URLs are set to them and gateways pass them on. Each becomes a completion, each event a chunk.
"""

from __future__ import annotations

from typing import Any, Final

Json = dict[str, Any]

#: Cohere's events, of its first API and of its second.
_COHERE_V1_EVENTS: Final = (
    *("stream-start", "search-queries-generation", "search-results", "citation-generation"),
    *("text-generation", "tool-calls-generation", "tool-calls-chunk", "stream-end"),
)
_COHERE_V2_EVENTS: Final = (
    *("message-start", "content-start", "content-delta", "content-end", "tool-plan-delta"),
    *("tool-call-start", "tool-call-delta", "tool-call-end", "citation-start", "citation-end"),
    *("message-end", "debug"),
)
#: What tells a whole answer of Cohere's first API from any other object with a text.
_COHERE_V1_FIELDS: Final = ("generation_id", "chat_history", "response_id")
_QIANFAN_FIELDS: Final = ("is_truncated", "need_clear_history", "is_end", "sentence_id")
#: What the entries of ``results`` call their text, its end and its tokens.
_RESULT_TEXTS: Final = ("generated_text", "outputText", "text")
_RESULT_REASONS: Final = ("stop_reason", "completionReason", "finish_reason")
_INPUT_COUNTS: Final = ("input_token_count", "prompt_tokens")
_OUTPUT_COUNTS: Final = ("generated_token_count", "completion_tokens", "tokenCount")
#: Reasons of what is still being generated.
_NO_REASONS: Final = ("not_finished", "NOT_FINISHED", "")


def text_generation(value: Json) -> Json | None:
    """A completion, or a chunk of one; None: the object is none of these APIs'."""
    if "token" in value:
        return _token(value)
    if value.get("event_type") in _COHERE_V1_EVENTS:
        return _cohere_v1_event(value)
    if value.get("type") in _COHERE_V2_EVENTS:
        return _cohere_v2_event(value)
    results = value.get("results")
    if isinstance(results, list) and results and isinstance(results[0], dict):
        return _result(value, results[0])
    found = (read(value) for read in _READERS)
    return next((one for one in found if one is not None), None)


def _cohere_v1(value: Json) -> Json | None:
    text = value.get("text")
    if not isinstance(text, str) or not any(name in value for name in _COHERE_V1_FIELDS):
        return None
    message = {"content": text, "tool_calls": value.get("tool_calls")}
    return _chunk(message, value.get("finish_reason"), _cohere_usage(value.get("meta")))


def _tgi(value: Json) -> Json | None:
    generated, details = value.get("generated_text"), _object(value.get("details"))
    if not isinstance(generated, str) or not details:
        return None
    return _chunk({"content": generated}, *_tgi_end(details))


def _llama_server(value: Json) -> Json | None:
    content, is_end = value.get("content"), value.get("stop")
    if not isinstance(content, str) or not isinstance(is_end, bool):
        return None
    if not is_end:
        return _chunk({"content": content})
    is_limit = value.get("stop_type") == "limit" or value.get("stopped_limit") is True
    usage = _usage(value.get("tokens_evaluated"), value.get("tokens_predicted"))
    return _chunk({"content": content}, "length" if is_limit else "stop", usage)


def _sglang(value: Json) -> Json | None:
    text, info = value.get("text"), value.get("meta_info")
    if not isinstance(text, str) or not isinstance(info, dict):
        return None
    # All of the text comes in each event.
    reason = info.get("finish_reason")
    return _chunk({"content": text} if reason else {}, reason, info)


def _bedrock(value: Json) -> Json | None:
    generation, reason = value.get("generation"), value.get("stop_reason")
    if isinstance(generation, dict) and "content" in generation:
        return _chunk(generation, reason)
    if not isinstance(generation, str):
        return None
    counts = value.get("prompt_token_count"), value.get("generation_token_count")
    return _chunk({"content": generation}, reason, _usage(*counts))


def _qianfan(value: Json) -> Json | None:
    if not isinstance(value.get("result"), str) or not any(
        map(value.__contains__, _QIANFAN_FIELDS)
    ):
        return None
    reason = value.get("finish_reason")
    if not reason:
        reason = "stop" if value.get("is_end") is True else None
    if value.get("is_truncated") is True:
        reason = "length"
    return _chunk({"content": value["result"]}, reason, value.get("usage"))


_READERS: Final = (_cohere_v1, _tgi, _llama_server, _sglang, _bedrock, _qianfan)


def _object(value: Any) -> Json:
    return value if isinstance(value, dict) else {}


def _chunk(delta: Any, reason: Any = None, usage: Any = None) -> Json:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": reason}], "usage": usage}


def _usage(prompt: Any, completion: Any) -> Json:
    return {"prompt_tokens": prompt, "completion_tokens": completion}


def _token(value: Json) -> Json | None:
    """An event of TGI or KoboldCpp: one token. TGI's last one has all of the text besides."""
    token = value["token"]
    if isinstance(token, str):
        return _chunk({"content": token}, value.get("finish_reason"))
    if not isinstance(token, dict) and "generated_text" not in value:
        return None
    token = _object(token)
    delta = {} if token.get("special") is True else {"content": token.get("text")}
    details = _object(value.get("details"))
    if details or value.get("generated_text") is None:
        return _chunk(delta, *_tgi_end(details))
    return _chunk(delta, "stop")


def _tgi_end(details: Json) -> tuple[Any, Json]:
    counts = details.get("input_length"), details.get("generated_tokens")
    return details.get("finish_reason"), _usage(*counts)


def _result(value: Json, result: Json) -> Json | None:
    text = next((result[name] for name in _RESULT_TEXTS if name in result), None)
    if not isinstance(text, str):
        return None
    reason = next((result[name] for name in _RESULT_REASONS if result.get(name)), None)
    counts = (
        next((result[name] for name in names if name in result), None)
        for names in (_INPUT_COUNTS, _OUTPUT_COUNTS)
    )
    prompt, completion = counts
    usage = _usage(value.get("inputTextTokenCount") if prompt is None else prompt, completion)
    return _chunk({"content": text}, None if reason in _NO_REASONS else reason, usage)


def _cohere_v1_event(event: Json) -> Json:
    match event["event_type"]:
        case "text-generation":
            return _chunk({"content": event.get("text")})
        case "tool-calls-chunk":
            return _chunk(
                {"tool_calls": event.get("tool_call_delta"), "content": event.get("text")}
            )
        case "stream-end":
            answer = _object(event.get("response"))
            reason = event.get("finish_reason") or answer.get("finish_reason")
            # They have come in pieces and as a whole, but here for sure.
            calls = {"tool_calls": answer.get("tool_calls")}
            return _chunk(calls, reason, _cohere_usage(answer.get("meta")))
    return _chunk({})


def _cohere_v2_event(event: Json) -> Json:
    delta = _object(event.get("delta"))
    message = _object(delta.get("message"))
    match event["type"]:
        case "content-start" | "content-delta":
            content = _object(message.get("content"))
            return _chunk({"content": content.get("text"), "thinking": content.get("thinking")})
        case "tool-plan-delta":
            return _chunk({"content": message.get("tool_plan")})
        case "tool-call-start" | "tool-call-delta":
            call = _object(message.get("tool_calls"))
            return _chunk({"tool_calls": [{**call, "index": event.get("index")}]})
        case "message-end":
            return _chunk({}, delta.get("finish_reason"), _cohere_usage(delta.get("usage")))
    return _chunk({})


def _cohere_usage(given: Any) -> Any:
    given = _object(given)
    return given.get("tokens") or given.get("billed_units") or given
