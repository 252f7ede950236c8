"""Shows: an answer that is printed while it is written.

    python examples/streaming.py

Ctrl-C stops it.
"""

from antiphon import Conversation


def main() -> None:
    chat = Conversation(instructions="You are a storyteller.", max_output_tokens=500)

    print("Assistant: ", end="")
    try:
        # Leaving the block stops the answer, wherever Ctrl-C came in between.
        with chat.stream("Tell me a short story about a robot.") as stream:
            for text in stream:
                print(text, end="", flush=True)
    except KeyboardInterrupt:
        # What arrived is kept, and the conversation would go on from there.
        print(f"\n(stopped; {len(chat.messages())} messages so far)")
        return
    print()

    # When the stream is over the whole reply is there, too; "incomplete" if it was cut at 500.
    print(f"({len(stream.reply.text)} characters, {stream.reply.status})")


if __name__ == "__main__":
    main()
