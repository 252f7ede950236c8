"""Context overflow: more wordings of servers and gateways, and those of other limits."""

from __future__ import annotations

from antiphon.models.openai.context_overflow import find_context_overflow

# ruff: noqa: RUF001

TOO_LONG: list[str] = [
    "Prompt length is 9000 which exceeds maximum of 8192",
    "got 9000 tokens; max 8192 input tokens",
    "The maximum number of tokens is 8192, but the request has 9000",
    "Total number of tokens (9000) exceeds the limit 8192",
    "The input tokens must be reduced in order to run the model",
    "prompt is too long: 210266 tokens > 200000 maximum",
    "input length and `max_tokens` exceed context limit: 199759 + 8192 > 200000, decrease"
    " input length or `max_tokens` and try again",
    "This model's maximum context length is 65536 tokens. However, you requested 72000 "
    "tokens (64000 in the messages, 8000 in the completion). Please reduce the length of "
    "the messages or completion.",
    "The prompt is too long: 267657, model maximum context length: 262143",
    "This model's maximum prompt length is 131072 but the request contains 150000 tokens.",
    "Prompt contains 40000 tokens and 0 draft tokens, too large for model with 32768 "
    "maximum context length",
    "Please reduce the length of the messages or completion.",
    "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).",
    "The input token count exceeds the maximum number of tokens allowed 1048576.",
    "too many tokens: total number of tokens in the prompt cannot exceed 4081 - received "
    "5000. Try using a shorter prompt.",
    "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 8193. Given: "
    "8000 `inputs` tokens and 512 `max_new_tokens`",
    "Please reduce the length of the messages or completion. Current length is 9000 while"
    " limit is 8192",
    "This endpoint's maximum context length is 131072 tokens. However, you requested "
    "about 140000 tokens (139000 of text input, 1000 in the output). Please reduce the "
    'length of either one, or use the "middle-out" transform',
    "Input is too long for requested model.",
    "The model returned the following errors: input is too long for requested model",
    "An error occurred (ValidationException) when calling the Converse operation: The "
    "model returned the following errors: prompt is too long: 210000 tokens > 200000 "
    "maximum",
    "Unable to submit request because the input token count is 40000 but the model "
    "supports up to 32768. Reduce the input token count and try again.",
    "the number of input tokens 5000 cannot exceed the total tokens limit 4096 for this model",
    "Trying to keep the first 5000 tokens when context the overflows. However, the model "
    "is loaded with context length of only 4096 tokens, which is not enough. Try to load "
    "the model with a larger context length, or provide a shorter input",
    "the request exceeds the available context size. try increasing the context size or "
    "enable context shift",
    "request (9001 tokens) exceeds the available context size (8192 tokens), try increasing it",
    "input length exceeds the context length",
    "prompt too long; exceeded max context length by 20 tokens",
    "Prompt exceeds max length",
    "输入长度超过模型最大长度限制",
    "tokens数量超过最大限制",
    "InternalError.Algo.InvalidParameter: Range of input length should be [1, 30720]",
    "prompt tokens too long",
    "the length of prompt tokens exceeds the limit",
    "Invalid request: Your request exceeded model token limit: 8192",
    "invalid params, context window exceeds limit (2013)",
    "The maximum context length of Meta-Llama-3.1 is 4096. However, answering your "
    "request will take 5000 tokens. Please reduce the length of the messages or the "
    "specified max_completion_tokens value.",
    "Prompt length (9000) exceeds maximum input length (8192). Set log level to info and "
    "check logs",
    "Requested token count exceeds the model's maximum context length of 32768 tokens. "
    "You requested a total of 40000 tokens: 39000 tokens from the input messages and 1000"
    " tokens for the completion.",
    "Input validation error: `inputs` must have less than 1024 tokens. Given: 2000",
    "Context length 5000 is greater than max_seq_len 4096",
    "This model maximum context length is 2048 tokens. However, your messages resulted in"
    " over 2100 tokens.",
    "AiError: The estimated number of input and maximum output tokens (9000) exceeded "
    "this model context window limit (8000).",
    "Request body too large for gpt-4o model. Max size: 8000 tokens.",
    "Requested input length 9000 exceeds maximum input length 8191",
    "The decoder prompt (length 9000) is longer than the maximum model length of 8192. "
    "Make sure that `max_model_len` is no smaller than the number of text tokens plus "
    "multimodal tokens.",
    "Your input exceeds the context window of this model. Please adjust your input and try again.",
    "The conversation is too long for this model",
    "Conversation too long, please start a new one",
    "tokens in request more than max tokens allowed",
    "Total tokens of image and text exceed max message tokens",
    "The total number of tokens (prompt + completion) must not exceed 4096",
    "Input too large: 9000 tokens, the limit is 8192",
    "messages exceed the maximum number of tokens of the model",
    "prompt has 9000 tokens, but the model supports at most 8192 tokens",
    "Your prompt has 9000 tokens, which is over the limit of 8192",
    "This request would exceed the model's context limit",
    "sequence length is longer than the specified maximum sequence length for this model "
    "(5000 > 4096)",
    "Token indices sequence length is longer than the specified maximum sequence length "
    "for this model (600 > 512)",
    "Requested tokens (5000) exceed context window of 4096",
    "contextLengthExceeded: input has 5000 tokens",
    "max_prompt_tokens: prompt token count of 70000 exceeds the limit of 64000",
    "The message you submitted was too long, please reload the conversation and submit "
    "something shorter",
    "The input (9000 tokens) is longer than the model's context length (8192 tokens).",
    "prompt tokens (9000) + max tokens (100) exceeds n_ctx 8192",
    "The sum of prompt length (9000.0) and max_tokens (0) should not exceed max_num_tokens (8192)",
    "Text length exceeds model context (n_ctx=4096)",
    "the context window is full",
    "exceeded maximum allowed input length of 8192 tokens",
    "Expected a prompt of at most 8192 tokens, got 9000",
    "the model's context size of 8192 tokens is exceeded by the request",
    "請求的輸入過長，超過上下文限制",
    "Input tokens exceed the configured limit of 272000 tokens. Your messages resulted in"
    " 290000 tokens.",
    "number of tokens in the request (9000) is greater than the maximum (8192)",
]
OTHER_LIMITS: list[str] = [
    "Rate limit reached for model `llama` in organization `org` on tokens per minute "
    "(TPM): Limit 6000, Used 5000, Requested 2000.",
    "Request too large for model `x` on tokens per minute (TPM): Limit 6000, Requested "
    "7000, please reduce your message size and try again.",
    "max_tokens must be less than or equal to `8192`",
    "Invalid max_tokens value, the valid range of max_tokens is [1, 8192]",
    "`max_tokens` must be <= 4096",
    "max_tokens: 100000 > 8192, which is the maximum allowed number of output tokens for claude",
    "Invalid 'tools[0].function.name': string too long. Expected a string with maximum "
    "length 64, but got a string with length 100 instead.",
    "max_completion_tokens is too large: 100000. This model supports at most 16384 "
    "completion tokens, whereas you provided 100000.",
    "Image exceeds maximum size of 5 MB",
    "You exceeded your current quota, please check your plan and billing details.",
    "number of tools exceeds the maximum of 128",
    "Invalid 'stop': array too long. Expected an array with maximum length 4",
    "temperature must be less than or equal to 2",
    "The prompt_cache_key is too long",
    "Range of max_tokens should be [1, 8192]",
    "top_logprobs must be at most 20",
    "messages: at least one message is required",
    "too many images: at most 20 per request",
    "The maximum number of output tokens is 8192",
    "Too many requests, please slow down",
    "prompt blocked by content policy",
    "Unsupported value: 'temperature' does not support 0.2 with this model. Only the "
    "default (1) value is supported.",
    "exceeded maximum number of concurrent requests",
    "Maximum number of messages is 100",
    "max_new_tokens must be strictly positive",
    "daily token limit exceeded",
    "You have exceeded your monthly token limit",
    "The model is overloaded: maximum queue size reached",
    "file too large: limit 20 MB",
    "budget_tokens must be less than max_tokens",
    "thinking budget 40000 exceeds the maximum of 32768",
    "Instructions too long. Expected maximum length 256000",
    "metadata values must be at most 512 characters",
    "reasoning_effort must be one of low, medium, high",
    "max_tokens (9000) exceeds the maximum output length of the model (8192)",
]


def test_too_much_input_is_recognized_in_many_words() -> None:
    for message in TOO_LONG:
        assert find_context_overflow(message) is not None, message


def test_other_limits_are_not_taken_for_it() -> None:
    for message in OTHER_LIMITS:
        assert find_context_overflow(message) is None, message


def test_two_numbers_are_the_tokens_used_and_allowed() -> None:
    found = find_context_overflow(
        "Input too large: 9000 tokens, the limit is 8,192. (id 1234567890)"
    )
    assert found is not None
    assert (found.used, found.limit) == (9000, 8192)
