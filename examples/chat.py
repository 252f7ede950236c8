"""Shows: a conversation that remembers.

    python examples/chat.py

There is no messages array to keep: every turn is stored before you see its answer.
"""

from antiphon import Conversation


def main() -> None:
    # The model is the one on board unless your settings or ANTIPHON_MODEL name another.
    chat = Conversation(instructions="You are a helpful assistant.")

    for question in ("My name is Alice.", "What's my name?"):
        print(f"You: {question}")
        print(f"Assistant: {chat.send(question).text}")

    # The array is there where you want it, as a plain list of dicts.
    print(f"({len(chat.messages())} messages so far)")

    # Begin anew. What was said stays stored; `antiphon list_tools` shows it.
    chat.reset()
    print(f"({len(chat.messages())} message after a reset: the instructions)")


if __name__ == "__main__":
    main()
