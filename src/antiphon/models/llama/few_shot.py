"""Few-shot examples: turns that teach a tiny model to remember the user's name.

Given a name and asked for it, SmolLM2-135M repeats it in 3 of 18 tries; after these turns in
18. The middle matters as much as the ends: greetings that repeat the name, a second person,
and a last turn without any name, or the model takes every user for the second person. No
answer here asks for a name, or the model would ask every user.
"""

from __future__ import annotations

import msgspec

_EXAMPLES = (
    ("My name is Grace.", "Hello, Grace! How can I help you?"),
    ("What's my name?", "Your name is Grace."),
    ("Hello, I am a new person. My name is Ivan.", "Hello, Ivan! How can I help you?"),
    ("Do you remember my name?", "Yes! Your name is Ivan."),
    ("Who am I?", "You are Ivan."),
    ("Let us start again.", "Hello! I am SmolLM. How can I help you?"),
    ("Who are you?", "I am SmolLM, an AI assistant."),
)


class _ExampleMessage(msgspec.Struct):
    role: str
    content: str


#: For ``ModelInfo.few_shot``: chat messages' JSON, comma-separated, without brackets.
FEW_SHOT_EXAMPLES: bytes = msgspec.json.encode(
    [
        message
        for question, answer in _EXAMPLES
        for message in (_ExampleMessage("user", question), _ExampleMessage("assistant", answer))
    ]
)[1:-1]
