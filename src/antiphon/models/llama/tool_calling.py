"""Tool calling for small models: chooses a tool by topic, then generates its arguments.

SmolLM2-135M was never trained on tools: choosing among functions, it guesses. Naming a
message's topic in one word, after one example for each tool, it is mostly right: so each tool
gets a word of its own name as its topic, and the likeliest first token decides. A second
prompt generates the arguments, under a grammar of the tool's schema. docs/embedded.md has
numbers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

import msgspec

from antiphon.core.tool_rules import HOSTED_PREFIX, hosted_choice_error
from antiphon.core.turns import FunctionTool, Options
from antiphon.errors import InvalidRequestError
from antiphon.models.llama.chat_template import Prompt, PromptMessage

#: How many of the likeliest tokens are compared with the beginnings of topics.
TOP_LOGPROBS = 1000
#: The options of the topic prompt: the likeliest single token.
ONE_TOKEN = Options(temperature=0.0, max_output_tokens=1)

#: The topic of messages that need no tool, and examples of it.
_CHAT_TOPIC = "chat"
_CHAT_EXAMPLES = (
    "Hi!",
    "Tell me something about cats.",
    "Who painted the Mona Lisa?",
    "Thank you.",
)
#: Added to logarithms of probabilities: a message that shares a word with a tool is more
#: likely to be for that tool.
_SHARED_WORD_BONUS = 4.0
#: Of a topic whose beginning is not among the likeliest tokens.
_MIN_LOG_PROBABILITY = -20.0

#: Of a tool's description and of the message, in characters: the rest adds time, not sense.
_MAX_DESCRIPTION_LENGTH = 160
_MAX_MESSAGE_LENGTH = 600
#: The number of last messages that arguments may be copied from.
_MAX_MESSAGES = 6

_WORD = re.compile(r"[a-z]+|\d+")
_NAME_BOUNDARY = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|[^A-Za-z0-9]+")
_SUFFIXES = ("ing", "ed", "es", "s", "e")
#: Words that many tools and messages share. Those of one or two letters are left out anyway.
_STOP_WORDS = frozenset(
    re.findall(
        r"\w+",
        "the and for from with its was you your this that what which who how does did can could "
        "please get set make create current given about has have not new one another user use "
        "using",
    )
)


def candidate_tools(options: Options, prompt: Prompt) -> tuple[tuple[FunctionTool, ...], bool]:
    """The tools that this answer may call, and whether it must call one of them.

    None once a tool has answered, whatever ``tool_choice``: a model this small would
    call it again and again. Raises ``InvalidRequestError`` for a choice of no such tool.
    """
    choice = options.tool_choice
    if choice.startswith(HOSTED_PREFIX):
        raise hosted_choice_error(choice)
    kind, _, name = choice.partition(":")
    if kind == "function":
        chosen = tuple(tool for tool in options.tools if tool.name == name)
        if not chosen:
            raise InvalidRequestError(f"There is no tool '{name}' to choose.", param="tool_choice")
        return ((), False) if prompt.ends_with_tool_result else (chosen[:1], True)
    if (
        prompt.ends_with_tool_result
        or choice == "none"
        or not any(message.role == "user" for message in prompt.messages)
    ):
        return (), False
    return options.tools, choice == "required"


def topic_messages(tools: Sequence[FunctionTool], prompt: Prompt) -> list[PromptMessage]:
    """The prompt for the topic of the last message."""
    examples = [
        (_tool_description(tool)[:_MAX_DESCRIPTION_LENGTH], topic)
        for tool, topic in zip(tools, topics(tools), strict=True)
    ]
    interleaved: list[tuple[str, str]] = []
    # No more of chat than of tools, or a single tool is never called.
    chats = [(text, _CHAT_TOPIC) for text in _CHAT_EXAMPLES[: len(tools)]]
    for index in range(len(examples)):
        interleaved += [*examples[index : index + 1], *chats[index : index + 1]]
    prompt_messages = [
        message
        for text, topic in interleaved
        for message in (PromptMessage("user", text), PromptMessage("assistant", topic))
    ]
    return [*prompt_messages, PromptMessage("user", _last_user_text(prompt))]


def choose_tool(
    tools: Sequence[FunctionTool], prompt: Prompt, logprobs: Mapping[str, float], *, required: bool
) -> FunctionTool | None:
    """The tool that the last message is for; None: it is for none.

    ``logprobs`` are by token, for the topic's first token.
    """
    message_words = _words(_last_user_text(prompt))
    best, best_score = None, -math.inf
    if not required:
        best_score = max(
            _log_probability(_CHAT_TOPIC, logprobs) + _chat_bias(len(tools)), _MIN_LOG_PROBABILITY
        )
    for tool, topic in zip(tools, topics(tools), strict=True):
        tool_words = _words(f"{tool.name} {_tool_description(tool)} {' '.join(_properties(tool))}")
        score = _log_probability(topic, logprobs) + _SHARED_WORD_BONUS * bool(
            message_words & tool_words
        )
        if score > best_score:
            best, best_score = tool, score
    return best


def _chat_bias(tools: int) -> float:
    """The bonus of the chat topic, as a logarithm: measured with one to four tools, and eight.

    The fourth example of chat draws much towards chat, and many tools draw away from it.
    """
    return 1.0 if tools < 4 else min(tools - 6.0, 2.0)


def topics(tools: Sequence[FunctionTool]) -> list[str]:
    """One word for each tool: the last of its name that begins like no other tool's word.

    Three letters make the beginning, because a first token must tell topics apart.
    """
    names = [[part.lower() for part in _NAME_BOUNDARY.split(tool.name) if part] for tool in tools]
    prefixes = [{part[:3] for part in parts} for parts in names]
    topic_words = []
    for index, parts in enumerate(names):
        others = {_CHAT_TOPIC[:3]}.union(*(prefixes[:index] + prefixes[index + 1 :]))
        own = [part for part in reversed(parts) if part[:3] not in others]
        topic_words.append(own[0] if own else " ".join(parts))
    return topic_words


def argument_messages(tool: FunctionTool, prompt: Prompt) -> list[PromptMessage]:
    """The prompt for a tool's arguments."""
    tool_words = ", ".join(
        f"{name} ({_describe_schema(schema)})" for name, schema in _properties(tool).items()
    )
    task = (
        f"Copy the arguments of the function {tool.name} out of the user's message, "
        f"as JSON: {tool_words}"
    )
    system = [message for message in prompt.messages if message.role == "system"]
    recent = [message for message in prompt.messages if message.role != "system"][-_MAX_MESSAGES:]
    instructions = "\n\n".join([*(message.content for message in system), task])
    return [PromptMessage("system", instructions), *recent]


def has_parameters(tool: FunctionTool) -> bool:
    """False where the only arguments that the schema surely allows are none."""
    open_words = {"properties", "$ref", "anyOf", "oneOf", "allOf", "additionalProperties"}
    named = {word for word in open_words if (tool.parameters or {}).get(word)}
    return bool(named)


def argument_options(tool: FunctionTool, options: Options) -> Options:
    """The options for writing a tool's arguments. Options that would truncate or distort JSON are
    left out.
    """
    schema = {"type": "object", **(tool.parameters or {})}
    return msgspec.structs.replace(
        options,
        text_format={"type": "json_schema", "schema": schema},
        stop=(),
        frequency_penalty=None,
        presence_penalty=None,
    )


def _last_user_text(prompt: Prompt) -> str:
    message_words = next(
        (message.content for message in reversed(prompt.messages) if message.role == "user"), ""
    )
    return message_words[-_MAX_MESSAGE_LENGTH:]


def _tool_description(tool: FunctionTool) -> str:
    return tool.description or " ".join(_NAME_BOUNDARY.split(tool.name))


def _properties(tool: FunctionTool) -> dict[str, object]:
    properties = (tool.parameters or {}).get("properties")
    return properties if isinstance(properties, dict) else {}


def _describe_schema(schema: object) -> str:
    tool_words = schema if isinstance(schema, dict) else {}
    return str(tool_words.get("description") or tool_words.get("type") or "any")


def _log_probability(topic: str, logprobs: Mapping[str, float]) -> float:
    """Of a topic, by the tokens that it can begin with."""
    probability = sum(
        math.exp(logprob)
        for token, logprob in logprobs.items()
        if (start := token.strip()) and topic.startswith(start)
    )
    return math.log(probability) if probability > 0 else _MIN_LOG_PROBABILITY


def _words(text: str) -> set[str]:
    found = _WORD.findall(_NAME_BOUNDARY.sub(" ", text).lower())
    return {_stem(word) for word in found if len(word) > 2 and word not in _STOP_WORDS}


def _stem(word: str) -> str:
    for ending in _SUFFIXES:
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word.removesuffix(ending)
    return word
