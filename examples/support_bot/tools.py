"""What the bot can do. The model is shown names, docstrings and type hints."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, Field

from antiphon import Tool, ToolContext, tool
from examples.support_bot.receipts import read_receipt
from examples.support_bot.shop import Shop

OrderId = Annotated[str, Field(description="The order's id, such as ORD-123")]


class CreateCustomerTicketRequest(BaseModel):
    name: str = Field(description="The customer's name")
    issue: str = Field(description="What is wrong, in the customer's words")


class AnalyzeReceiptImageRequest(BaseModel):
    image_url: str = Field(description="An https URL, or the name of a file they uploaded")


@tool
def lookup_order(order_id: OrderId, context: ToolContext[Shop]) -> dict[str, Any]:
    """Look up an order: its status, items and prices."""
    # `context.deps` is what the conversation was given; the model does not see it.
    return context.deps.order(order_id) or {"error": f"Order {order_id} not found"}


@tool
def create_customer_ticket(request: CreateCustomerTicketRequest, context: ToolContext[Shop]) -> str:
    """Create a customer ticket, for what you cannot solve yourself."""
    # The call's id makes it safe to do this twice: after a crash a call may come again.
    context.deps.file_ticket(context.call_id, request.name, request.issue)
    return f"Created customer ticket for {request.name} with issue {request.issue}"


@tool
async def analyze_receipt_image(request: AnalyzeReceiptImageRequest) -> str:
    """Analyze a receipt image and return the date, items, and subtotal."""
    receipt = await read_receipt(request.image_url)
    return receipt.model_dump_json(indent=2)


# Whatever a tool raises, the model reads it as the call's output and can react.
@tool(needs_approval=True)
def refund_order(
    order_id: OrderId,
    amount_in_cents: Annotated[int, Field(gt=0)],
    reason: str,
    context: ToolContext[Shop],
) -> str:
    """Refund an order or a part of it. An operator has to agree."""
    context.deps.refund(context.call_id, order_id, amount_in_cents, reason)
    return f"Refunded ${amount_in_cents / 100:.2f} of {order_id}"


TOOLS: list[Tool[..., Any]] = [
    lookup_order,
    create_customer_ticket,
    analyze_receipt_image,
    refund_order,
]
