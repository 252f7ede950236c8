"""Tools of chats in tests: one that runs by itself, one that needs approval."""

from __future__ import annotations

from typing import Any

from antiphon import Tool, tool
from support.chat_harness import Call


@tool
def weather(city: str) -> dict[str, Any]:
    """Tell the weather."""
    return {"city": city, "temp": 20}


def refunds(**options: Any) -> tuple[Tool[..., Any], list[str]]:
    """A tool that needs approval, and the orders for which it ran."""
    done: list[str] = []

    @tool(needs_approval=True, **options)
    def refund(order: str) -> str:
        """Give the money back."""
        done.append(order)
        return f"refunded {order}"

    return refund, done


def refund_call(order: str, call_id: str) -> Call:
    return Call("refund", {"order": order}, call_id)
