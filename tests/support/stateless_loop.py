"""The loops that programs write around a stateless API, with nothing of antiphon in them.

hand = ByHand(upstream.base_url, "You are a helpful assistant.")
hand.chat("My name is Alice.")
assert hand.messages == [...]
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from openai import OpenAI
from pydantic import BaseModel


class StatelessChatLoop:
    """A client, a messages array, and a dict of functions: each pattern as it is written."""

    def __init__(self, base_url: str, system: str | None = None) -> None:
        self._completions: Any = OpenAI(base_url=base_url, api_key="unused").chat.completions
        self.messages: list[dict[str, Any]] = []
        if system is not None:
            self.messages.append({"role": "system", "content": system})
        self._tools: list[dict[str, Any]] = []
        self._functions: dict[str, Callable[..., Any]] = {}

    def register_tool(
        self, name: str, description: str, parameters: Mapping[str, Any], func: Callable[..., Any]
    ) -> None:
        function = {"name": name, "description": description, "parameters": parameters}
        self._tools.append({"type": "function", "function": function})
        self._functions[name] = func

    def chat(self, text: str, image_url: str | None = None) -> str:
        """One message and its answer, with all tool calls in between."""
        content: Any = text
        if image_url is not None:
            image = {"type": "image_url", "image_url": {"url": image_url, "detail": "high"}}
            content = [{"type": "text", "text": text}, image]
        self.messages.append({"role": "user", "content": content})
        while True:
            answer = self._ask(**({"tools": self._tools} if self._tools else {}))
            if not answer.tool_calls:
                self.messages.append({"role": "assistant", "content": answer.content})
                return str(answer.content)
            calls = [call.model_dump() for call in answer.tool_calls]
            self.messages.append(
                {"role": "assistant", "content": answer.content, "tool_calls": calls}
            )
            for call in answer.tool_calls:
                arguments = json.loads(call.function.arguments)
                result = json.dumps(self._functions[call.function.name](**arguments))
                self.messages.append({"role": "tool", "tool_call_id": call.id, "content": result})

    def chat_stream(self, text: str) -> Iterator[str]:
        self.messages.append({"role": "user", "content": text})
        whole = ""
        for chunk in self._completions.create(model="grok-4", messages=self.messages, stream=True):
            if piece := chunk.choices[0].delta.content:
                whole += piece
                yield piece
        self.messages.append({"role": "assistant", "content": whole})

    def chat_structured(self, text: str, output_type: type[BaseModel]) -> Any:
        self.messages.append({"role": "user", "content": text})
        response = self._completions.parse(
            model="grok-4", messages=self.messages, response_format=output_type
        )
        answer = response.choices[0].message
        self.messages.append({"role": "assistant", "content": answer.content})
        return answer.parsed

    def _ask(self, **options: Any) -> Any:
        response = self._completions.create(model="grok-4", messages=self.messages, **options)
        return response.choices[0].message
