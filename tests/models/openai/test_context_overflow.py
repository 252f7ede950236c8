import pytest

from antiphon.models.openai.context_overflow import ContextOverflow, find_context_overflow

#: Messages of servers, with the tokens used and allowed where both are in them.
TOO_LONG: dict[str, tuple[str, int | None, int | None]] = {
    "vllm": (
        "You passed 7001 input tokens and requested 2000 output tokens. However, the model's "
        "context length is only 8192 tokens, resulting in a maximum input length of 6192 tokens.",
        7001,
        6192,
    ),
    "vllm-of-chat": (
        "This model's maximum context length is 8192 tokens. However, you requested 9001 tokens "
        "in the messages, Please reduce the length of the messages.",
        9001,
        8192,
    ),
    "vllm-decoder": (
        "The decoder prompt (length 4500) is longer than the maximum model length of 4096.",
        4500,
        4096,
    ),
    "moonshot": ("Your request exceeded model token limit: 8192", None, None),
    "moonshot-both": (
        "Invalid request: Your request exceeded model token limit: 8192 (requested: 9000)",
        9000,
        8192,
    ),
    "sglang": (
        "The input (9000 tokens) is longer than the model's context length (8192 tokens).",
        9000,
        8192,
    ),
    "sglang-request": (
        "Requested token count exceeds the model's maximum context length of 8192 tokens. You "
        "requested a total of 9000 tokens: 7000 tokens from the input messages and 2000 tokens "
        "for the completion.",
        9000,
        8192,
    ),
    "sglang-allowed": (
        "Input length (9000 tokens) exceeds the maximum allowed length (8187 tokens).",
        9000,
        8187,
    ),
    "dashscope": ("Range of input length should be [1, 8192]", None, None),
    "dashscope-prefix": (
        "<400> InternalError.Algo.InvalidParameter: Range of input length should be [1, 30720]",
        None,
        None,
    ),
    "minimax": ("invalid params, context window exceeds limit (2013)", None, None),
    "tgi": ("`inputs` tokens + `max_new_tokens` must be <= 8192", None, None),
    "tgi-given": (
        "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 8192. Given: 8000 "
        "`inputs` tokens and 500 `max_new_tokens`",
        8000,
        7692,
    ),
    "tgi-inputs": (
        "Input validation error: `inputs` must have less than 1024 tokens. Given: 1500",
        1500,
        1024,
    ),
    "ark": ("Total tokens of image and text exceed max message tokens", None, None),
    "ark-length": ("Input length 140000 exceeds the maximum length 131072", 140000, 131072),
    "openai": (
        "This model's maximum context length is 4097 tokens. However, your messages resulted in "
        "13393 tokens. Please reduce the length of the messages.",
        13393,
        4097,
    ),
    "openai-window": (
        "Your input exceeds the context window of this model. Please adjust your input and try "
        "again.",
        None,
        None,
    ),
    "openai-configured": (
        "Input tokens exceed the configured limit of 272,000 tokens. Your messages resulted in "
        "300,001 tokens.",
        300001,
        272000,
    ),
    "anthropic": ("prompt is too long: 206640 tokens > 200000 maximum", 206640, 200000),
    "anthropic-limit": (
        "input length and `max_tokens` exceed context limit: 188240 + 21333 > 200000, decrease "
        "input length or `max_tokens` and try again",
        188240,
        178667,
    ),
    "gemini": (
        "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).",
        1200000,
        1048576,
    ),
    "gemini-short": ("The input token count exceeds the maximum number of tokens.", None, None),
    "bedrock": ("Input is too long for requested model.", None, None),
    "bedrock-count": (
        "Too many input tokens. Max input tokens: 128000, request input token count: 130000",
        130000,
        128000,
    ),
    "cohere": (
        "too many tokens: total number of tokens in the prompt cannot exceed 4081 - received "
        "7038. Try using a shorter prompt.",
        7038,
        4081,
    ),
    "mistral": (
        "Prompt contains 40000 tokens and 0 draft tokens, too large for model with 32768 maximum "
        "context length",
        40000,
        32768,
    ),
    "groq": ("Please reduce the length of the messages or completion.", None, None),
    "cerebras": (
        "Please reduce the length of the messages or completion. Current length is 9000 while "
        "limit is 8192",
        9000,
        8192,
    ),
    "fireworks": (
        "The prompt is too long: 136000, model maximum context length: 131071",
        136000,
        131071,
    ),
    "xai": (
        "This model's maximum prompt length is 131072 but the request contains 136973 tokens.",
        136973,
        131072,
    ),
    "openrouter": (
        "This endpoint's maximum context length is 8192 tokens. However, you requested about "
        "10000 tokens (9000 of text input, 1000 in the output).",
        10000,
        8192,
    ),
    "ollama": ("the input length exceeds the context length", None, None),
    "lm-studio": (
        "Trying to keep the first 5000 tokens when context the overflows. However, the model is "
        "loaded with context length of only 4096 tokens, which is not enough.",
        5000,
        4096,
    ),
    "lm-studio-keep": (
        "The number of tokens to keep from the initial prompt is greater than the context length.",
        None,
        None,
    ),
    "llama-cpp": (
        "request (5000 tokens) exceeds the available context size (4096 tokens), try increasing it",
        5000,
        4096,
    ),
    "llama-cpp-short": (
        "the request exceeds the available context size. try increasing it",
        None,
        None,
    ),
    "llama-cpp-python": ("Requested tokens (5000) exceed context window of 4096", 5000, 4096),
    "copilot": ("prompt token count of 164534 exceeds the limit of 128000", 164534, 128000),
    "siliconflow": (
        "length of prompt_tokens (40000) must be less than max_seq_len (32768).",
        40000,
        32768,
    ),
    "zhipu": ("Prompt exceeds max length", None, None),
    "tensorrt": ("Prompt length (9000) exceeds maximum input length (8192).", 9000, 8192),
    "tensorrt-sum": (
        "The sum of prompt length (9000.0), query length (0) should not exceed max_num_tokens "
        "(8192)",
        None,
        None,
    ),
    "sambanova": (
        "The provided prompt is 9000 tokens long, so generating 1 tokens requires a sequence "
        "length of 9001, but the maximum supported sequence length is just 8192!",
        None,
        None,
    ),
    "tabby": ("Prompt length 5000 is greater than max_seq_len 4096", 5000, 4096),
    "github": ("Request body too large for gpt-4o model. Max size: 8000 tokens.", None, None),
    "lmdeploy": ("The input context is too long.", None, None),
    "code-in-words": ("Error: context_length_exceeded", None, None),
    "history": ("The conversation history is too long for this model.", None, None),
    "maximum-of-context": ("Context size exceeded: at most 4096 tokens.", None, None),
}


@pytest.mark.parametrize("name", TOO_LONG)
def test_too_much_input_is_recognized(name: str) -> None:
    message, used, limit = TOO_LONG[name]
    for text in (message, message.lower(), f"Error: {message} (request id: 20261128)"):
        assert find_context_overflow(text) == ContextOverflow(used, limit)


@pytest.mark.parametrize(
    "message",
    [
        "max_tokens is too large: 20000. This model supports at most 16384 completion tokens, "
        "whereas you provided 20000.",
        "Invalid max_tokens value, the valid range of max_tokens is [1, 8192]",
        "Range of max_tokens should be [1, 8192]",
        "The maximum tokens you requested exceeds the model limit of 4096. Try again with a lower "
        "maximum tokens.",
        "`max_new_tokens` must be <= 4096. Given: 5000",
        "max_tokens must be at most 4096",
        "stop is too long",
        "Invalid 'messages[0].name': string too long. Expected a string with maximum length 64.",
        "Invalid 'input[3].id': string too long. Expected a string with maximum length 64.",
        "Invalid 'tools': array too long. Expected an array with maximum length 128.",
        "Invalid 'tools[0].function.description': string too long.",
        "Unrecognized request argument supplied: context_length",
        "Unknown parameter: 'context_window'.",
        "Too many images in the prompt: at most 4 are allowed.",
        "image is too large: 20 MB",
        "Request too large for model `x` on tokens per minute (TPM): Limit 6000, Requested 7000",
        "top_logprobs must be less than 20",
        "temperature must be <= 2",
        "The prompt was rejected by the content filter.",
        "Invalid prompt: messages must not be empty",
        "No.",
        "",
    ],
)
def test_other_limits_are_other_errors(message: str) -> None:
    assert find_context_overflow(message) is None


@pytest.mark.parametrize(
    "code",
    [
        "context_length_exceeded",
        "exceed_context_size_error",
        "tokens_limit_reached",
        "model_max_prompt_tokens_exceeded",
    ],
)
def test_a_code_is_enough(code: str) -> None:
    assert find_context_overflow("Shorter!", "", code) == ContextOverflow()
