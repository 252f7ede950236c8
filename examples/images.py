"""Shows: asking about a picture, and asking again without sending it again.

    python examples/images.py [PICTURE or URL]

The model on board reads text only: name another with ANTIPHON_MODEL.
"""

import sys
from pathlib import Path

from antiphon import Conversation, InvalidRequestError

RECEIPT = Path(__file__).parent / "support_bot" / "receipts" / "ord-789.png"


def main() -> None:
    image = sys.argv[1] if len(sys.argv) > 1 else RECEIPT
    chat = Conversation()
    try:
        # A path, a URL, bytes or a PIL image. Its type is told by its bytes, not its name,
        # and however often it is shown it is stored once.
        print(chat.send("What's in this image?", images=[image], detail="high").text)
    except InvalidRequestError as error:
        sys.exit(error.message)
    # The model is shown the picture again: it is part of the conversation.
    print(chat.send("What colors are prominent?").text)


if __name__ == "__main__":
    main()
