"""Reported answers: chat completions as servers and gateways were reported to send them."""

from __future__ import annotations

from typing import Any

from support.answer_tables import HELLO, Meant, fails, says
from support.misbehaving_upstream import Behaviour
from support.scenario import (
    DONE,
    Json,
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


def thinking(words: str) -> Json:
    """A part of a content with thoughts."""
    return {"type": "thinking", "thinking": [{"type": "text", "text": words}]}


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
REFERENCE = {"type": "reference", "reference_ids": ["search_documents"]}
#: Contents that are lists, and answers within others.
CONTENTS = {
    "references-between": Meant(
        stream_of(
            *(A, chunk({"content": [REFERENCE]}), B),
            *(chunk({"content": [REFERENCE]}), end(), DONE),
        )
    ),
    "references-among-parts": Meant(
        whole({"content": [{"type": "text", "text": HELLO}, REFERENCE], "role": "assistant"})
    ),
    "reference-of-numbers": Meant(
        stream_of(A, chunk({"content": [{"type": "reference", "reference_ids": [1]}]}), B, end())
    ),
    "thinking-parts-one-by-one": thinks(
        stream_of(
            *(chunk({"content": [thinking(it)]}) for it in ("Let me", " see.")),
            *GOOD,
        )
    ),
    "thinking-parts-and-text": thinks(
        whole(
            {
                "content": [
                    {"type": "thinking", "thinking": [{"type": "text", "text": HM}]},
                    {"type": "text", "text": HELLO},
                ]
            }
        )
    ),
    "thinking-parts-that-are-closed": thinks(
        stream_of(
            chunk(
                {
                    "content": [
                        {
                            "type": "thinking",
                            "thinking": [{"type": "text", "text": HM}],
                            "closed": True,
                        }
                    ]
                }
            ),
            *GOOD,
        )
    ),
    "chat-response": Meant(
        body_of(
            {
                "modelId": "m",
                "chatResponse": {
                    "apiFormat": "GENERIC",
                    "choices": [
                        {
                            "index": 0,
                            "message": {
                                "role": "ASSISTANT",
                                "content": [{"type": "TEXT", "text": HELLO}],
                            },
                            "finishReason": "stop",
                        }
                    ],
                    "usage": {"promptTokens": 12, "completionTokens": 3, "totalTokens": 15},
                },
            }
        ),
        tokens=(12, 3),
    ),
    "choices-with-capital-type": Meant(
        whole({"role": "ASSISTANT", "content": [{"type": "TEXT", "text": HELLO}]}, "COMPLETE")
    ),
    "success-true": Meant(
        body_of(
            {
                "success": True,
                "code": 200,
                "msg": "ok",
                "data": {"choices": [{"message": MESSAGE, "finish_reason": "stop"}]},
            }
        )
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
