"""Shows: going on later with nothing but a response's id.

    python examples/server_side_state.py                              in Python
    python examples/server_side_state.py http://127.0.0.1:8080/v1     by `antiphon serve`

Both talk over the same stored turns: an id from one works in the other. For the second
you need the OpenAI client: pip install openai
"""

import sys

from antiphon import Conversation

FIRST = "My favorite color is blue."
LATER = "What's my favorite color?"


def in_python() -> None:
    chat = Conversation()
    chat.send(FIRST)
    response_id = chat.response_id
    assert response_id is not None, "there is one after the first turn"
    print(f"({response_id})")

    # Later, in any other program on this machine.
    chat = Conversation.resume(response_id)
    print(chat.send(LATER).text)


def by_server(base_url: str) -> None:
    from openai import OpenAI

    # Leave the model out, and the server takes its default.
    with OpenAI(base_url=base_url, api_key="unused") as client:
        first = client.responses.create(input=FIRST)
        print(f"({first.id})")

        second = client.responses.create(input=LATER, previous_response_id=first.id)
        print(second.output_text)


def main() -> None:
    if len(sys.argv) > 1:
        by_server(sys.argv[1])
    else:
        in_python()


if __name__ == "__main__":
    main()
