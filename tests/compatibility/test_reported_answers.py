"""Answers in chat completions as they were reported of servers and gateways, and what they mean."""

from __future__ import annotations

import json
from typing import Any

from support.answer_tables import HELLO, Meant, check_answers, fails, says
from support.misbehaving_upstream import Behaviour
from support.scenario import (
    DONE,
    Json,
    Scenario,
    body_of,
    call,
    chunk,
    data,
    end,
    stream_of,
    text,
    whole,
)
from support.upstream_answers import ONE, first

A, B = text("Hello"), text(" there.")
GOOD = (A, B, end(), DONE)
MESSAGE: Json = {"role": "assistant", "content": HELLO}
HM = "Let me see."
S = "Worker local total request limit reached (33/32)"
COUNTS = {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15}
SAFE = {"hate": {"filtered": False, "severity": "safe"}}


def completion(message: Any = MESSAGE, reason: Any = "stop", **fields: Any) -> bytes:
    """A whole completion as an event of a stream."""
    choice = {"index": 0, "message": message, "finish_reason": reason}
    return data({"object": "chat.completion", "choices": [choice], **fields})


def thinks(behaviour: Behaviour) -> Meant:
    return says(HELLO, behaviour, reasoning=HM)


def notice(**fields: Any) -> bytes:
    return data({"id": "", "object": "", "created": 0, "model": "", **fields})


#: All of the answer once more behind its pieces.
REPETITIONS = {
    "behind-one-piece": Meant(stream_of(text(HELLO), completion(), DONE)),
    "behind-pieces": Meant(stream_of(A, B, completion(), DONE)),
    "behind-the-reason": Meant(stream_of(A, B, end(), completion(), DONE)),
    "with-counts": Meant(stream_of(text(HELLO), completion(usage=COUNTS), DONE), tokens=(12, 3)),
    "with-thoughts": thinks(
        stream_of(
            chunk({"reasoning_content": HM}),
            text(HELLO),
            completion({**MESSAGE, "reasoning_content": HM}),
            DONE,
        )
    ),
    "with-thoughts-in-a-list": thinks(
        stream_of(
            chunk({"reasoning_details": [{"type": "reasoning.text", "text": HM}]}),
            *(A, B, end()),
            completion({**MESSAGE, "reasoning_details": [{"type": "reasoning.text", "text": HM}]}),
            DONE,
        )
    ),
    "without-outer-space": Meant(
        stream_of(text("\n\nHello there.\n"), completion(), DONE), text="\n\nHello there.\n"
    ),
    "of-parts": Meant(
        stream_of(A, B, completion({"content": [{"type": "text", "text": HELLO}]}), DONE)
    ),
    "with-calls": Meant(
        stream_of(
            text(HELLO),
            call(first(arguments='{"c":1}')),
            completion({**MESSAGE, "tool_calls": [first(arguments='{"c":1}')]}, "tool_calls"),
            DONE,
        ),
        calls=ONE,
    ),
    "calls-alone": Meant(
        stream_of(
            call(first(arguments='{"c":1}')),
            completion({"content": None, "tool_calls": [first(arguments='{"c":1}')]}, "tool_calls"),
            DONE,
        ),
        text="",
        calls=ONE,
    ),
    "thoughts-alone": says(
        "",
        stream_of(
            chunk({"reasoning_content": "Let me"}),
            chunk({"reasoning_content": " see."}),
            completion({"content": "", "reasoning_content": HM}),
            DONE,
        ),
        reasoning=HM,
    ),
    "the-same-word-twice": says("ha ha ", stream_of(text("ha "), text("ha "), end(), DONE)),
    "messages-in-a-row": says(
        "ha ha ",
        stream_of(
            *(data({"choices": [{"index": 0, "message": {"content": "ha "}}]}) for _ in "12"),
            end(),
            DONE,
        ),
    ),
}
#: Events beside the answer that say nothing of it.
NOTICES = {
    "no-choices-first": Meant(stream_of(data({"choices": []}), *GOOD)),
    "no-choices-between": Meant(stream_of(A, data({"choices": [], "usage": None}), B, end(), DONE)),
    "choices-null": Meant(stream_of(A, data({"choices": None}), B, end(), DONE)),
    "prompt-annotations": Meant(
        stream_of(
            notice(prompt_annotations=[{"content_filter_results": SAFE}], choices=[], usage=None),
            *GOOD,
        )
    ),
    "filter-results-without-delta": Meant(
        stream_of(
            *(A, B, end()),
            notice(
                choices=[
                    {
                        "index": 0,
                        "finish_reason": None,
                        "content_filter_results": SAFE,
                        "content_filter_offsets": {"check_offset": 44, "start_offset": 44},
                    }
                ]
            ),
            DONE,
        )
    ),
    "filter-results-first": Meant(
        stream_of(notice(choices=[{"index": 0, "content_filter_results": SAFE}]), *GOOD)
    ),
    "event-of-another-api-behind": Meant(
        stream_of(
            *(A, B, end()),
            data({"type": "response.completed", "response": {"id": "r", "status": "completed"}}),
            DONE,
        )
    ),
    "event-of-another-api-first": Meant(
        stream_of(data({"type": "response.created", "response": {"id": "r"}}), *GOOD)
    ),
    "metrics-of-bedrock": Meant(
        stream_of(
            *(A, B, end()),
            data(
                {
                    "amazon-bedrock-invocationMetrics": {
                        "inputTokenCount": 12,
                        "outputTokenCount": 3,
                    }
                }
            ),
            DONE,
        ),
        tokens=(12, 3),
    ),
    "metrics-of-bedrock-beside-the-reason": Meant(
        stream_of(
            *(A, B),
            data(
                {
                    "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}],
                    "amazon-bedrock-invocationMetrics": {
                        "inputTokenCount": 12,
                        "outputTokenCount": 3,
                    },
                }
            ),
            DONE,
        ),
        tokens=(12, 3),
    ),
    "timings-beside": Meant(
        stream_of(A, B, chunk({}, "stop"), data({"choices": [], "usage": COUNTS, "timings": {}}))
    ),
    "progress-of-a-prompt": Meant(
        stream_of(
            chunk({"role": "assistant", "content": None}, prompt_progress={"total": 9, "cache": 0}),
            data({"choices": [], "prompt_progress": {"total": 9, "processed": 4}}),
            *GOOD,
        )
    ),
    "routing-notice": Meant(stream_of(data({"provider": "nvidia", "model": "m"}), *GOOD)),
    "delta-null-at-the-end": Meant(
        stream_of(A, B, data({"choices": [{"delta": None, "finish_reason": "stop"}]}), DONE)
    ),
}
#: Reasons to stop, and their places.
ENDS = {
    "reason-null-then-done": Meant(stream_of(A, B, chunk({}, None), DONE)),
    "reason-in-each-piece": Meant(
        stream_of(chunk({"content": "Hello"}, "stop"), chunk({"content": " there."}, "stop"), DONE)
    ),
    "reason-beside-the-last-word": Meant(
        stream_of(A, chunk({"content": " there."}, "stop"), data({"choices": [], "usage": COUNTS})),
        tokens=(12, 3),
    ),
    "limit-beside-the-last-word": Meant(
        stream_of(A, chunk({"content": " there."}, "length"), DONE), "length"
    ),
    "error-and-null-counts": fails(
        "finish_reason: error",
        whole(MESSAGE, "error", usage={"prompt_tokens": None, "completion_tokens": None}),
        HELLO,
    ),
    "network_error": fails("network_error", stream_of(A, B, end("network_error"), DONE), HELLO),
    "malformed_function_call": fails(
        "MALFORMED_FUNCTION_CALL", stream_of(end("MALFORMED_FUNCTION_CALL"), DONE)
    ),
    "filter-of-malformed-call": fails(
        "MALFORMED",
        stream_of(A, B, end("function_call_filter: MALFORMED_FUNCTION_CALL"), DONE),
        HELLO,
    ),
    "thoughts-alone": says(
        "", stream_of(chunk({"content": "", "reasoning_content": HM}), end(), DONE), reasoning=HM
    ),
    "thoughts-alone-whole": says(
        "", whole({"role": "assistant", "content": "", "reasoning_content": HM}), reasoning=HM
    ),
    "thoughts-cut-by-the-limit": says(
        "",
        stream_of(chunk({"reasoning_content": HM}), end("length"), DONE),
        meaning="length",
        reasoning=HM,
    ),
}
#: Errors within an answer.
PROVIDER = {"code": 502, "message": S, "metadata": {"error_type": "provider_unavailable"}}
ERRORS = {
    "no-choices-and-an-error": fails(S, stream_of(data({"choices": [], "error": PROVIDER}), DONE)),
    "no-choices-and-an-error-behind-words": fails(
        S, stream_of(A, B, data({"choices": [], "error": PROVIDER}), DONE), HELLO
    ),
    "error-beside-an-empty-delta": fails(
        "Provider disconnected",
        stream_of(
            *(A, B),
            data(
                {
                    "error": {"code": "server_error", "message": "Provider disconnected"},
                    "choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "error"}],
                }
            ),
        ),
        HELLO,
    ),
    "error-within-a-choice": fails(
        S,
        stream_of(
            *(A, B),
            data(
                {"choices": [{"index": 0, "delta": {}, "error": PROVIDER, "finish_reason": None}]}
            ),
            DONE,
        ),
        HELLO,
    ),
    "raw-words-of-the-server-behind": fails(
        "temporarily rate-limited upstream",
        stream_of(
            data(
                {
                    "error": {
                        "message": "Provider returned error",
                        "code": 429,
                        "metadata": {"raw": "glm-5 is temporarily rate-limited upstream."},
                    }
                }
            )
        ),
        code="rate_limit_exceeded",
    ),
    "raw-json-of-the-server-behind": fails(
        "maximum context length is 262144",
        stream_of(
            data(
                {
                    "error": {
                        "message": "Provider returned error",
                        "code": 400,
                        "metadata": {
                            "raw": json.dumps(
                                {
                                    "error": {
                                        "message": "This model's maximum context length is 262144"
                                        " tokens. However, your messages resulted in 262897"
                                        " tokens.",
                                        "code": 400,
                                    }
                                }
                            )
                        },
                    }
                }
            )
        ),
        code="context_length_exceeded",
    ),
    "too-long-in-a-stream": fails(
        "1284668 tokens",
        stream_of(
            data(
                {
                    "choices": [],
                    "error": {
                        "code": 400,
                        "message": "prompt is too long: 1284668 tokens > 1000000 maximum",
                    },
                }
            )
        ),
        code="context_length_exceeded",
    ),
    "too-long-with-status-200": fails(
        "available context size",
        body_of(
            {
                "error": {
                    "code": 400,
                    "message": "the request exceeds the available context size.",
                    "type": "exceed_context_size_error",
                    "n_prompt_tokens": 14429,
                    "n_ctx": 8192,
                }
            }
        ),
        code="context_length_exceeded",
    ),
    "message-twice": fails(
        "Compute error.",
        stream_of(data({"error": {"message": "Compute error."}, "message": "Compute error."})),
    ),
    "success-false": fails(
        "An unexpected error occurred",
        stream_of(
            *(A, B),
            data(
                {
                    "success": False,
                    "error": {
                        "code": "INTERNAL_SERVER_ERROR",
                        "status": 500,
                        "message": "An unexpected error occurred.",
                        "docs": "https://example.org/errors",
                    },
                }
            ),
        ),
        HELLO,
    ),
    "quota-then-done": fails(
        "quota exceeded", stream_of(data({"error": {"message": "quota exceeded"}}), DONE)
    ),
    "error-event-of-a-template": fails(
        "Error rendering prompt",
        stream_of(b'event: error\ndata: {"error":{"message":"Error rendering prompt"}}\n\n'),
    ),
    "failed-generation": fails(
        "Failed to call a function.",
        stream_of(
            data(
                {
                    "error": {
                        "message": "Failed to call a function.",
                        "code": "tool_use_failed",
                        "failed_generation": "<function=lookup>",
                    }
                }
            )
        ),
    ),
    "in-a-list": fails(S, body_of([{"error": {"code": 503, "message": S}}])),
    "line-of-ollama": fails(
        "an error was encountered",
        stream_of(A, B, b'{"error":"an error was encountered while running the model"}\n'),
        HELLO,
    ),
    # Gateways close an answer properly before they say what has cut it.
    "behind-a-reason": fails(S, stream_of(A, B, end(), data({"error": PROVIDER}), DONE), HELLO),
    "behind-a-reason-of-calls": fails(
        S,
        stream_of(
            call(first(arguments='{"c":1}')), end("tool_calls"), data({"error": PROVIDER}), DONE
        ),
    ),
    "behind-a-reason-by-its-name": fails(
        S, stream_of(A, B, end(), b"event: error\ndata: " + S.encode() + b"\n\n"), HELLO
    ),
}
#: Other names beside the usual ones.
NAMES = {
    "choice": Meant(body_of({"choice": {"message": MESSAGE, "finish_reason": "stop"}})),
    "choice-list": Meant(body_of({"choice": [{"message": MESSAGE, "finish_reason": "stop"}]})),
    "choice-in-a-stream": Meant(
        stream_of(
            *(
                data({"choice": {"index": 0, "delta": {"content": one}}})
                for one in ("Hello", " there.")
            ),
            DONE,
        )
    ),
    "choice-beside-choices": Meant(
        body_of(
            {
                "choices": [{"message": MESSAGE, "finish_reason": "stop"}],
                "choice": {"message": MESSAGE, "finish_reason": "stop"},
            }
        )
    ),
    "output_text-in-the-message": Meant(whole({"role": "assistant", "output_text": HELLO})),
    "output_text-in-the-delta": Meant(
        stream_of(chunk({"output_text": "Hello"}), chunk({"output_text": " there."}), end(), DONE)
    ),
    "output_text-beside-content": Meant(whole({**MESSAGE, "output_text": HELLO})),
    "output_text-beside-content-in-a-stream": Meant(
        stream_of(chunk({"content": HELLO, "output_text": HELLO}), end(), DONE)
    ),
    "output_text-beside-null": Meant(whole({"content": None, "output_text": HELLO})),
    "output_text-beside-choices": Meant(
        body_of({"choices": [{"message": MESSAGE, "finish_reason": "stop"}], "output_text": HELLO})
    ),
    "capitals": Meant(
        body_of({"Choices": [{"Message": {"Role": "assistant", "Content": HELLO}}], "Usage": None})
    ),
    "capitals-within-a-response": Meant(
        body_of(
            {
                "Response": {
                    "Choices": [
                        {
                            "FinishReason": "stop",
                            "Message": {"Role": "assistant", "Content": HELLO},
                        }
                    ],
                    "RequestId": "r",
                }
            }
        )
    ),
    "capitals-in-a-stream": Meant(
        stream_of(
            *(
                data({"Choices": [{"Delta": {"Role": "assistant", "Content": one}}]})
                for one in ("Hello", " there.")
            ),
            data({"Choices": [{"Delta": {}, "FinishReason": "stop"}]}),
        )
    ),
    "such-names-in-words": says(
        '"toolCalls": [] and "choice": 1',
        stream_of(text('"toolCalls": [] and'), text(' "choice": 1'), end(), DONE),
    ),
}


def test_an_answer_that_comes_again_is_one(world: Scenario) -> None:
    check_answers(world, REPETITIONS)


def test_notices_are_no_part_of_an_answer(world: Scenario) -> None:
    check_answers(world, NOTICES)


def test_ends_are_known_wherever_they_are(world: Scenario) -> None:
    check_answers(world, ENDS)


def test_errors_within_an_answer_are_told(world: Scenario) -> None:
    check_answers(world, ERRORS)


def test_words_are_found_under_other_names(world: Scenario) -> None:
    check_answers(world, NAMES)
