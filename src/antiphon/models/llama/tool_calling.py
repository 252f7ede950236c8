"""Tools for a model that was never taught any: which one, and with what arguments.

Asked to choose among functions, SmolLM2-135M guesses. Asked to name a message's topic in
one word, after one example for each tool, it is mostly right: so each tool gets a word of
its own name as its topic, and the likeliest first token decides. A second question has the
arguments written, under a grammar made of the tool's schema. docs/embedded.md has numbers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

import msgspec

from antiphon.core.turns import FunctionTool, Options
from antiphon.errors import InvalidRequestError
from antiphon.models.llama.chat_template import Line, Talk

#: How many of the likeliest tokens are looked at for the beginnings of topics.
GUESSES = 1000
#: The question for the topic: the likeliest single token.
ONE_TOKEN = Options(temperature=0.0, max_output_tokens=1)

#: The topic of all that needs no tool, and messages with it.
_CHAT = "chat"
_CHATS = ("Hi!", "Tell me something about cats.", "Who painted the Mona Lisa?", "Thank you.")
#: Added to logarithms of probabilities: a message that shares a word with a tool is more
#: likely to be for that tool.
_SHARED_WORD = 4.0
#: Of a topic whose beginning is not among the likeliest tokens.
_NEVER = -20.0

#: Of a tool's description and of the message, in characters: the rest adds time, not sense.
_DESCRIPTION = 160
_MESSAGE = 600
#: Of the conversation, the lines that arguments may be copied from.
_LINES = 6

_WORD = re.compile(r"[a-z]+|\d+")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|[^A-Za-z0-9]+")
_ENDINGS = ("ing", "ed", "es", "s", "e")
#: Words that many tools and messages share. Those of one or two letters are left out anyway.
_COMMON = frozenset(
    re.findall(
        r"\w+",
        "the and for from with its was you your this that what which who how does did can could "
        "please get set make create current given about has have not new one another user use "
        "using",
    )
)


def tools_in_question(options: Options, talk: Talk) -> tuple[tuple[FunctionTool, ...], bool]:
    """The tools that this answer may call, and whether it must call one of them.

    None once a tool has answered, whatever ``tool_choice``: a model this small would
    call it again and again. Raises ``InvalidRequestError`` for a choice of no such tool.
    """
    choice = options.tool_choice
    kind, _, name = choice.partition(":")
    if kind == "function":
        chosen = tuple(tool for tool in options.tools if tool.name == name)
        if not chosen:
            raise InvalidRequestError(f"There is no tool '{name}' to choose.", param="tool_choice")
        return ((), False) if talk.answered else (chosen[:1], True)
    if talk.answered or choice == "none" or not any(line.role == "user" for line in talk.lines):
        return (), False
    return options.tools, choice == "required"


def topic_lines(tools: Sequence[FunctionTool], talk: Talk) -> list[Line]:
    """What the model is shown to name the topic of the last message."""
    examples = [
        (_described(tool)[:_DESCRIPTION], topic)
        for tool, topic in zip(tools, topics(tools), strict=True)
    ]
    mixed: list[tuple[str, str]] = []
    # No more of chat than of tools, or a single tool is never called.
    chats = [(text, _CHAT) for text in _CHATS[: len(tools)]]
    for place in range(len(examples)):
        mixed += [*examples[place : place + 1], *chats[place : place + 1]]
    lines = [
        line for text, topic in mixed for line in (Line("user", text), Line("assistant", topic))
    ]
    return [*lines, Line("user", _asked(talk))]


def pick(
    tools: Sequence[FunctionTool], talk: Talk, guesses: Mapping[str, float], *, must: bool
) -> FunctionTool | None:
    """The tool that the last message is for; None: it is for none.

    ``guesses`` are logarithms of probabilities by token, for the topic's first token.
    """
    asked = _words(_asked(talk))
    best, best_score = None, -math.inf
    if not must:
        best_score = max(_likelihood(_CHAT, guesses) + _chat_bias(len(tools)), _NEVER)
    for tool, topic in zip(tools, topics(tools), strict=True):
        known = _words(f"{tool.name} {_described(tool)} {' '.join(_properties(tool))}")
        score = _likelihood(topic, guesses) + _SHARED_WORD * bool(asked & known)
        if score > best_score:
            best, best_score = tool, score
    return best


def _chat_bias(tools: int) -> float:
    """What chat is given ahead, as a logarithm: measured with one to four tools, and eight.

    The fourth example of chat draws much towards chat, and many tools draw away from it.
    """
    return 1.0 if tools < 4 else min(tools - 6.0, 2.0)


def topics(tools: Sequence[FunctionTool]) -> list[str]:
    """One word for each tool: the last of its name that begins like no other tool's word.

    Three letters make the beginning, because a first token must tell topics apart.
    """
    names = [[part.lower() for part in _CAMEL.split(tool.name) if part] for tool in tools]
    taken = [{part[:3] for part in parts} for parts in names]
    made = []
    for place, parts in enumerate(names):
        others = {_CHAT[:3]}.union(*(taken[:place] + taken[place + 1 :]))
        own = [part for part in reversed(parts) if part[:3] not in others]
        made.append(own[0] if own else " ".join(parts))
    return made


def argument_lines(tool: FunctionTool, talk: Talk) -> list[Line]:
    """What the model is shown to write a tool's arguments."""
    known = ", ".join(f"{name} ({_about(schema)})" for name, schema in _properties(tool).items())
    order = (
        f"Copy the arguments of the function {tool.name} out of the user's message, "
        f"as JSON: {known}"
    )
    system = [line for line in talk.lines if line.role == "system"]
    said = [line for line in talk.lines if line.role != "system"][-_LINES:]
    told = "\n\n".join([*(line.content for line in system), order])
    return [Line("system", told), *said]


def takes_arguments(tool: FunctionTool) -> bool:
    """False where the only arguments that the schema surely allows are none."""
    open_words = {"properties", "$ref", "anyOf", "oneOf", "allOf", "additionalProperties"}
    named = {word for word in open_words if (tool.parameters or {}).get(word)}
    return bool(named)


def argument_options(tool: FunctionTool, options: Options) -> Options:
    """The options for writing a tool's arguments. What would cut or bend JSON is left out."""
    schema = {"type": "object", **(tool.parameters or {})}
    return msgspec.structs.replace(
        options,
        text_format={"type": "json_schema", "schema": schema},
        stop=(),
        frequency_penalty=None,
        presence_penalty=None,
    )


def _asked(talk: Talk) -> str:
    asked = next((line.content for line in reversed(talk.lines) if line.role == "user"), "")
    return asked[-_MESSAGE:]


def _described(tool: FunctionTool) -> str:
    return tool.description or " ".join(_CAMEL.split(tool.name))


def _properties(tool: FunctionTool) -> dict[str, object]:
    properties = (tool.parameters or {}).get("properties")
    return properties if isinstance(properties, dict) else {}


def _about(schema: object) -> str:
    known = schema if isinstance(schema, dict) else {}
    return str(known.get("description") or known.get("type") or "any")


def _likelihood(topic: str, guesses: Mapping[str, float]) -> float:
    """Of a topic, by the tokens that it can begin with."""
    chance = sum(
        math.exp(guess)
        for token, guess in guesses.items()
        if (start := token.strip()) and topic.startswith(start)
    )
    return math.log(chance) if chance > 0 else _NEVER


def _words(text: str) -> set[str]:
    found = _WORD.findall(_CAMEL.sub(" ", text).lower())
    return {_stem(word) for word in found if len(word) > 2 and word not in _COMMON}


def _stem(word: str) -> str:
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word.removesuffix(ending)
    return word
