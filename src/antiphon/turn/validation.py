"""Request validation: rejects invalid input before anything is stored. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from antiphon.core.items import Item, Message, has_image
from antiphon.core.turns import Header, TurnRequest
from antiphon.errors import ImageInputUnsupportedError, InvalidRequestError
from antiphon.turn.message_rendering import RenderedTurn, render_turn
from antiphon.turn.protocols import Model


def turn_header(name: str, request: TurnRequest) -> Header:
    """What is stored of a request, for the model of that name."""
    return Header(
        name,
        request.instructions,
        request.options,
        request.conversation,
        request.background,
        request.chat_completion,
    )


def nothing_to_summarize_error() -> InvalidRequestError:
    """The error for a summary of nothing."""
    return InvalidRequestError("There is nothing to sum up yet.", code="nothing_to_summarize")


def validate_input(request: TurnRequest, model: Model) -> None:
    """Refuse input that says nothing, or that this model cannot look at."""
    items = request.input
    if (
        not request.approved_calls
        and not (request.previous_response_id is not None and not items)
        and all(isinstance(item, Message) and not item.content for item in items)
    ):
        raise InvalidRequestError(
            "The input is empty: say something.", code="empty_input", param="input"
        )
    validate_images(request, model)


def validate_images(request: TurnRequest, model: Model) -> None:
    """Refuse images for a model that reads text only."""
    if not model.info.images and any(has_image(item) for item in request.input):
        raise ImageInputUnsupportedError(
            f"The model '{model.info.name}' reads text only and cannot look at images.",
            param="input",
        )


def render_input(items: Sequence[Item], instructions: str | None) -> RenderedTurn:
    """Items as the model is shown them. Refuses what cannot be written down."""
    try:
        (instructions or "").encode()
        return render_turn(items)
    except UnicodeEncodeError as error:
        raise InvalidRequestError(
            "The input holds characters that are not Unicode text.",
            code="invalid_unicode",
            param="input",
        ) from error
