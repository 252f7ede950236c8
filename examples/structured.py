"""Shows: an answer that is an object of your own type, not a text.

    python examples/structured.py

Pydantic models, dataclasses, TypedDicts and lists of them will do. An answer that does
not fit is sent back once for correction; then `InvalidOutputError` is raised.
"""

from typing import Literal

from pydantic import BaseModel, Field

from antiphon import Conversation


class MenuItem(BaseModel):
    name: str
    price: float
    description: str


class MenuAnalysis(BaseModel):
    cuisine_type: str
    price_range: Literal["cheap", "moderate", "expensive"]
    items: list[MenuItem] = Field(min_length=3, max_length=3)


def main() -> None:
    chat = Conversation()
    menu = chat.send("Create a 3-item Italian restaurant menu", returns=MenuAnalysis).parsed

    print(f"Cuisine: {menu.cuisine_type} ({menu.price_range})")
    for item in menu.items:
        print(f"  - {item.name}: ${item.price:.2f}")


if __name__ == "__main__":
    main()
