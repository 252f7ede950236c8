"""Shows: a long conversation that stays within what the model can see.

    python examples/managed.py

What the model is no longer shown stays stored: `history` has all of it.
"""

from antiphon import Conversation, Window


def main() -> None:
    # The newest turns of at most 50 messages; instructions stay. TokenBudget counts tokens
    # instead, and Summarize has the model sum up old turns by itself.
    chat = Conversation(
        instructions="You are a helpful assistant.", context=Window(max_messages=50)
    )
    chat.send("We are planning a trip to Rome.")
    chat.send("We like old churches and good coffee.")

    # Or sum up now, and go on with the summary in place of what was said.
    print(f"Summary: {chat.summarize().text}")
    print(chat.send("Where should we go first?").text)

    print(f"(the model is shown {len(chat.context())} messages of {len(chat.messages())})")


if __name__ == "__main__":
    main()
