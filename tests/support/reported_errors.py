"""Reported errors: failures within answers as servers and gateways were reported to send them."""

from __future__ import annotations

import json

from support.answer_tables import HELLO, fails
from support.scenario import DONE, body_of, call, data, end, stream_of, text
from support.upstream_answers import first

A, B = text("Hello"), text(" there.")
S = "Worker local total request limit reached (33/32)"

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
    "of-a-factory": fails(
        "System is too busy now",
        stream_of(
            data(
                {
                    "code": "ModelFactory.ModelController.Model.Error",
                    "description": json.dumps({"code": 50508, "message": "System is too busy now"}),
                    "detail": json.dumps({"code": 50508, "message": "System is too busy now"}),
                    "solution": "",
                }
            )
        ),
    ),
    "business-error": fails(
        "Credential expired",
        body_of({"code": 401, "msg": "Credential expired or incorrect", "success": False}),
    ),
    "business-error-in-a-stream": fails(
        "Credential expired",
        stream_of(data({"code": 1001, "msg": "Credential expired", "success": False}), DONE),
    ),
    "no-choices-at-all": fails("no answer", body_of({"id": "x", "choices": [], "usage": None})),
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
