"""A model for tests of the page: what it says depends on the question's first word."""

from __future__ import annotations

import asyncio
import re
from typing import Any

from antiphon.errors import ModelError
from antiphon.models.scripted import (
    ScriptedModel,
    ScriptedReply,
    call,
    calls,
    fail,
    hang,
    say,
    think,
    wait,
)
from antiphon.turn.protocols import ModelInfo

TOUR = """\
Here is a **short tour** of what an answer can hold.

## Lists and tables

- A list with `code` in it
- and a [link](https://example.org/)

| Store | Write | Read |
|:--|--:|--:|
| SQLite | 2.1 ms | 0.3 ms |
| Memory | 0.1 ms | 0.1 ms |

## Code

```python
def fibonacci(n: int) -> int:
    a, b = 0, 1
    for _ in range(n):
        a, b = b, a + b
    return a
```

## Maths

The sum is $\\sum_{i=1}^{n} i = \\frac{n(n+1)}{2}$, and it costs $5 or $10.

> Nothing that was acknowledged is ever lost.
"""


class PageModel:
    """The model's script, and the events that a test holds answers back with."""

    def __init__(self, *, delay: float = 0.0) -> None:
        self.delay = delay
        #: "hold …" says half, then waits for this.
        self.resume = asyncio.Event()
        self.answered = 0

    def models(self, *names: str) -> dict[str, ScriptedModel]:
        return {
            name: ScriptedModel(self.reply, info=ModelInfo(name)) for name in names or ("grok-4",)
        }

    def reply(self, messages: list[dict[str, Any]]) -> ScriptedReply:  # noqa: PLR0911
        self.answered += 1
        question = _text(next(one for one in reversed(messages) if one["role"] == "user"))
        if messages[-1]["role"] == "tool":
            return say(f"The tool gave: {_text(messages[-1])}")
        match question.split(maxsplit=1)[0] if question.strip() else "":
            case "tour":
                return think("A tour: ", "lists, code, maths.") + self._say(TOUR)
            case "hold":
                return say("First half,") + wait(self.resume) + say(" second half.")
            case "blocks":
                settled = say("First block.\n\nSecond one.\n\nThird one.\n\nThe last")
                return settled + wait(self.resume) + say(" has grown.\n\nAfter it.")
            case "hang":
                return say("Some words") + hang()
            case "break":
                held = say("First half,") + wait(self.resume)
                return held + fail(ModelError("The upstream broke."))
            case "fail":
                return say("Half an answer") + fail(ModelError("The upstream broke."))
            case "tool":
                return calls(call("get_weather", {"city": "Oslo", "days": 3}))
            case "echo":
                return self._say(question.removeprefix("echo "))
        return self._say(f"You asked: {question}\n\nMessages so far: **{len(messages)}**.")

    def _say(self, text: str) -> ScriptedReply:
        return say(*re.findall(r"(?s).{1,12}", text), delay=self.delay)


def _text(message: dict[str, Any]) -> str:
    content = message["content"]
    if isinstance(content, list):
        return " ".join(part.get("text", "") for part in content)
    return content or ""
