"""A chat completions upstream for tests of agents: does what the newest user message says.

Each line of it that begins with ``call`` is one round of tool calls, as in

    call get_weather {"city": "Oslo"} and call get_weather {"city": "Rome"}

After the last round, a line that begins with ``say`` is the answer; without one the answer
repeats what the tools returned or, where none was called, the first line of all user messages.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from support.misbehaving_upstream import Behaviour, Request, answer, models
from support.scenario import DONE, call, data, end, stream_of, text, whole

Json = dict[str, Any]


class Question(NamedTuple):
    """The newest user message: its words, its place, and its number of images."""

    text: str
    place: int
    images: int


def answer_agent(request: Request) -> Behaviour:
    """The answer to a request: streamed where it asks for that."""
    if request.path.endswith("/models"):
        return models("m")
    if not request.path.endswith("/chat/completions"):
        return answer(b'{"error": {"message": "Not here."}}', 404)
    body = request.json
    calls, words = reply_to(body["messages"])
    reason = "tool_calls" if calls else "stop"
    usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    if not body.get("stream"):
        message = {"role": "assistant", "content": words or None}
        return whole(message | ({"tool_calls": calls} if calls else {}), reason, usage=usage)
    pieces = [text(piece) for piece in re.findall(r"\S+\s*|\s+", words)]
    fragments = [call({"index": place, **one}) for place, one in enumerate(calls)]
    last = data({"choices": [], "usage": usage})
    return stream_of(*pieces, *fragments, end(reason), last, DONE)


def reply_to(messages: list[Json]) -> tuple[list[Json], str]:
    """The tool calls of the next round, or the words of the answer."""
    question = newest_question(messages)
    lines = [line.strip() for line in question.text.splitlines()]
    rounds = [line for line in lines if line.startswith("call ")]
    since = messages[question.place + 1 :]
    done = sum(1 for message in since if message.get("tool_calls"))
    if done < len(rounds):
        return calls_of(rounds[done], len(messages)), ""
    said = [line.removeprefix("say ") for line in lines if line.startswith("say ")]
    results = [text_of(message) for message in since if message["role"] == "tool"]
    if said:
        return [], said[-1]
    if question.images:
        return [], f"{question.images} images"
    pictures = sum(images_of(message) for message in since)
    if results:
        return [], " | ".join(results) + (f" and {pictures} images" if pictures else "")
    asked = [text_of(one).partition("\n")[0] for one in messages if one["role"] == "user"]
    return [], "You said: " + " | ".join(asked)


def newest_question(messages: list[Json]) -> Question:
    """The last user message that does not only show what a tool returned.

    Some clients send it again with each round: then its place is the first of these.
    """
    question = Question("", -1, 0)
    for place, message in enumerate(messages):
        images = images_of(message)
        after_tool = place > 0 and messages[place - 1]["role"] == "tool"
        if message["role"] != "user" or (images and after_tool):
            continue
        if text_of(message) != question.text or images:
            question = Question(text_of(message), place, images)
    return question


def calls_of(line: str, number: int) -> list[Json]:
    """The calls of one round, as a message has them."""
    calls = []
    for place, one in enumerate(line.split(" and call ")):
        name, _, arguments = one.removeprefix("call ").partition(" ")
        function = {"name": name, "arguments": arguments or "{}"}
        calls.append({"id": f"call_{number}_{place}", "type": "function", "function": function})
    return calls


def text_of(message: Json) -> str:
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "".join(part["text"] for part in content if part["type"] == "text")


def images_of(message: Json) -> int:
    content = message.get("content") or ""
    return sum(1 for part in content if isinstance(part, dict) and part["type"] == "image_url")
