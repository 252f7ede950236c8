"""Receipts: a picture in, an object out."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from pydantic import BaseModel

from antiphon import AsyncConversation

#: Where customers' uploads arrive.
UPLOADS = Path(__file__).with_name("receipts")


class Item(BaseModel):
    name: str
    quantity: int
    price_in_cents: int


class Receipt(BaseModel):
    date: datetime
    items: list[Item]
    currency: str
    total_in_cents: int


async def read_receipt(image: str) -> Receipt:
    """What is on a receipt. ``image`` is an https URL or the name of an upload.

    Raises ``ValueError`` if there is no such upload, and ``AntiphonError``.
    """
    picture: str | Path = image
    if not image.startswith("https://"):
        # The model chose this text: of a path only its end counts, so that it stays in there.
        picture = UPLOADS / Path(image).name
        if not picture.is_file():
            raise ValueError(f"there is no upload {picture.name}")
    # A conversation of its own: the customer's stays free of the picture's many tokens.
    reply = await AsyncConversation().send(
        "Please extract the date and items and subtotal from the receipt",
        images=[picture],
        detail="high",
        returns=Receipt,
    )
    return reply.parsed
