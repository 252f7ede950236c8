"""Shows: a program for the old Chat SDK, which runs as it is but for its import line.

    python examples/old_sdk.py

What is new: its conversations are stored, and can be gone on with from anywhere.
"""

import asyncio

import antiphon.compat.chat_sdk as xai_sdk  # was: import xai_sdk


async def talk() -> None:
    client = xai_sdk.Client()
    conversation = client.chat.create_conversation()

    for question in ("My name is Alice.", "What's my name?"):
        print(f"Human: {question}")
        token_stream, response = conversation.add_response(question)
        print("Grok: ", end="")
        async for token in token_stream:
            print(token, end="", flush=True)
        print()
        await response  # raises what went wrong, if something did

    print(f"(go on with: antiphon chat --from {conversation.response_id})")


def main() -> None:
    asyncio.run(talk())


if __name__ == "__main__":
    main()
