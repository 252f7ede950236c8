"""Shows: Python functions that the model may call.

    python examples/tools.py

The calls, their outputs and the model's next words are one turn: you see the answer.
The model on board is too small to choose tools well; use a bigger one.
"""

from typing import Annotated, Any

from antiphon import Conversation, tool


# The usual way: the type hints are the JSON schema, the docstring is the description.
@tool
def get_time_zone(city: Annotated[str, "City name, e.g. San Francisco"]) -> str:
    """Get the time zone of a city."""
    return {"Tokyo": "Asia/Tokyo", "New York": "America/New_York"}.get(city, "UTC")


def get_weather(location: str) -> dict[str, Any]:
    return {"temp": 72, "condition": "sunny", "location": location}


def main() -> None:
    chat = Conversation(
        instructions="You are a helpful assistant with access to weather data.",
        tools=[get_time_zone],
    )
    # For a function without type hints, or a schema that you have already.
    chat.register_tool(
        name="get_weather",
        description="Get current weather for a location",
        parameters={
            "type": "object",
            "properties": {
                "location": {"type": "string", "description": "City name, e.g. San Francisco"}
            },
            "required": ["location"],
        },
        func=get_weather,
    )

    for question in ("What's the weather in Tokyo?", "How about New York?"):
        print(f"You: {question}")
        print(f"Assistant: {chat.send(question).text}")


if __name__ == "__main__":
    main()
