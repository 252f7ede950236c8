"""Context overflow: wordings as they were reported of servers and gateways, and their counts."""

from __future__ import annotations

import pytest

from antiphon.models.openai.context_overflow import ContextOverflow, find_context_overflow

# ruff: noqa: E501

TOO_LONG: list[str] = [
    "Request length 71599 + 2048 is greater than max_seq_len 65536",
    "ValueError: Request length 71599 + 2048 is greater than max_seq_len 65536",
    "Prompt length 71599 is greater than max_seq_len 65536",
    "Context length 9000 is greater than max_seq_len 8192",
    'litellm.ContextWindowExceededError: AnthropicError - {"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long: 209353 tokens > 199999 maximum"}}',
    "litellm.ContextWindowExceededError: model=gpt-5.5. Max Input Tokens=272000, Got=301450",
    "context length exceeded from messages",
    "max tokens of 200000 exceeded",
    "max tokens of 200000 exceeded error",
    "Context size has been exceeded.",
    "the request exceeds the available context size. try increasing the context size or enable context shift",
    "Requested tokens (2285) exceed context window of 2048",
    "Prompt too long: 5152 tokens exceeds max_seq_len 2048 (leave room for output tokens)",
    "This model's maximum context length is 262144 tokens. However, you requested 0 output tokens and your prompt contains at least 262145 input tokens, for a total of at least 262145 tokens. Please reduce the length of the input prompt or the number of requested output tokens. (parameter=input_tokens, value=262145)",
    "This model's maximum context length is 2048 tokens. However, your request has 8 input tokens plus 2045 'max_tokens'. Please reduce one or the other. (parameter=input_tokens, max_tokens, value=(8, 2045))",
    "Input length 131393 exceeds the maximum allowed input length of 131040 tokens.",
    "Input length (265330) exceeds model's maximum context length (262144).",
    "Input length (160062 tokens) exceeds the maximum allowed length (59862 tokens).",
    "tokens in request more than max tokens allowed",
    "Invalid request: Your request exceeded model token limit: 262144 (requested: 270000)",
    "Bad Request: Requested token count exceeds the model's maximum context length of 202752 tokens. You requested a total of 202941 tokens: 170941 tokens from the input messages and 32000 tokens for the completion. Please reduce the number of tokens in the input messages or the completion to fit within the limit.",
    "Token indices sequence length is longer than the specified maximum sequence length for this model (18294 > 16384).",
    "[address=0.0.0.0:43769, pid=1065] The decoder prompt (length 66501) is longer than the maximum model length of 65536. Make sure that `max_model_len` is no smaller than the number of text tokens.",
    "Input prompt (32889 tokens) is too long and exceeds limit of 2048",
    "Prompt exceeds maximum context length",
    "LLM request rejected: input length and max_tokens exceed context limit: 170636 + 34048 > 200000, decrease input length or max_tokens and try again",
    'Provider returned error: {"error":{"message":"This model\'s maximum context length is 262144 tokens. However, your messages resulted in 262897 tokens. Please reduce the length of the messages."}}',
    "Request body too large for gpt-4.1 model. Max size: 8000 tokens.",
    "The model returned the following errors: Input is too long for requested model.",
    "Input tokens exceed the configured limit of 272000 tokens. Your messages resulted in 301450 tokens.",
    "Your input exceeds the context window of this model. Please adjust your input and try again.",
    "prompt has 9000 tokens, which is over the model maximum (1050000)",
    "exceeds model maximum (1050000) tokens: 1060000",
    "This model's context window is 8192 tokens, your prompt needs 9000",
    "ollama: prompt length (40960) exceeds num_ctx 4096 and truncate is false",
    "max_seq_len exceeded: 9001 > 8192",
    "The conversation is too long for this model. Start a new one.",
    "Slot context size 4096 is too small for a prompt of 9000 tokens",
    "failed to find a memory slot for batch: n_tokens = 9001, n_ctx = 8192",
    "exceeded the maximum sequence length of 8192",
    "ERROR: input_ids length (9000) > max_position_embeddings (8192)",
    "Text too long: 9000 tokens, the limit of the model is 8192.",
    "模型上下文长度超限",
    "输入的 token 数 9000 超过了模型限制 8192",
    "Prompt 超长",
    "prompt tokens exceeds the max input tokens",
    "Total tokens exceed max_model_len",
    "Request too long for the model's context: 9000 > 8192",
    "Messages exceed the model's token budget of 8192 tokens",
    "kv cache is not large enough for the prompt",
    "not enough tokens left for the completion: the prompt uses 8190 of 8192",
]
OTHER_LIMITS: list[str] = [
    "The maximum tokens you requested exceeds the model limit of 2048. Try again with a maximum tokens value that is lower than 2048.",
    "The maximum tokens you requested exceeds the model limit of 32768",
    "max_tokens is too large: 6000. This model supports at most 4096 completion tokens, whereas you provided 6000.",
    "Input validation error: `max_new_tokens` must be <= 192",
    "The parameter `max_tokens` specified in the request are not valid: integer above maximum value, expected a value <= 32768, but got 65536",
    "ThrottlingException: Too many tokens, please wait before trying again.",
    "Request too large for gpt-4o in organization org-x on tokens per min (TPM): Limit 30000, Requested 132819. The input or output tokens must be reduced in order to run successfully.",
    "body -> frequency_penalty\n Extra inputs are not permitted (type=extra_forbidden)",
    "Request too large (max 32MB). Accumulated images and attachments pushed the request over the limit.",
    "Request Entity Too Large",
    "Model eu.anthropic.claude-opus-5 does not support the temperature parameter.",
    "The model 'openai.gpt-5.6-luna' does not support the '/v1/chat/completions' API",
    "invalid max_tokens parameter",
    "max_tokens (65536) must not exceed the model's output limit of 32768",
    "Invalid 'tools[0].function.description': string too long. Expected a string with maximum length 1024, but got a string with length 1500 instead.",
    "tools[0].function.name exceeds the maximum length of 64",
    "Too many tools: 140 > 128",
    "file is too large. Max size: 20 MB",
    "tool_choice 'required' is incompatible with thinking enabled",
    "Invalid 'input[3].id': string too long. Expected a string with maximum length 64, but got a string with length 92 instead.",
    "Invalid 'metadata.x': string too long. Expected a string with maximum length 512",
    "Daily token limit reached: 500000 tokens",
    "This request requires more credits, or fewer max_tokens. You requested up to 32000 tokens, but can only afford 6000.",
    "At most 1 image(s) may be provided in one prompt.",
    "thinking.budget_tokens must be less than max_tokens",
    "max_completion_tokens must be less than or equal to 32768",
    "Too many messages in the conversation: at most 500",
    "n_ctx must be set",
    "The maximum number of images per prompt is 16",
    "min_tokens must be less than or equal to max_tokens=10, got 20",
    "'max_tokens' must be at least 16",
]
#: What is used, and what fits beside the output that was asked for.
COUNTS: dict[str, tuple[int, int]] = {
    TOO_LONG[0]: (71599, 65536 - 2048),
    "Prompt too long: 5152 tokens exceeds max_seq_len 2048 (leave room for output tokens)": (
        5152,
        2048,
    ),
    "This model's maximum context length is 262144 tokens. However, you requested 0 output tokens and your prompt contains at least 262145 input tokens, for a total of at least 262145 tokens.": (
        262145,
        262144,
    ),
    "This model's maximum context length is 2048 tokens. However, your request has 1000 input tokens plus 1100 'max_tokens'. Please reduce one or the other.": (
        1000,
        948,
    ),
    "Input prompt (32889 tokens) is too long and exceeds limit of 2048": (32889, 2048),
    "LLM request rejected: input length and max_tokens exceed context limit: 170636 + 34048 > 200000": (
        170636,
        200000 - 34048,
    ),
}


def test_reported_wordings_mean_too_much_input() -> None:
    assert [one for one in TOO_LONG if find_context_overflow(one) is None] == []


def test_reported_other_limits_are_not_taken_for_it() -> None:
    assert [one for one in OTHER_LIMITS if find_context_overflow(one) is not None] == []


@pytest.mark.parametrize("message", COUNTS)
def test_the_counts_are_those_of_the_input(message: str) -> None:
    assert find_context_overflow(message) == ContextOverflow(*COUNTS[message])
