"""Request validation: rejects invalid input before anything is stored. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from antiphon.core.items import Item, Message, has_image
from antiphon.core.secrets import without_secrets
from antiphon.core.tool_rules import HOSTED_PREFIX
from antiphon.core.turns import Header, Options, RestartOptions, TurnRequest
from antiphon.errors import ImageInputUnsupportedError, InvalidRequestError
from antiphon.turn.message_rendering import RenderedTurn, render_turn
from antiphon.turn.protocols import Model


def turn_header(name: str, request: TurnRequest) -> Header:
    """What is stored of a request, for the model of that name."""
    options = storable_options(request.options)
    return Header(
        name,
        request.instructions,
        options,
        request.conversation,
        request.background,
        request.chat_completion,
        _restart_options(request, options) if request.background else None,
        request.key_id,
    )


def _restart_options(request: TurnRequest, stored: Options) -> RestartOptions | None:
    """What a background turn is run again by, where its process dies.

    None: it cannot be, as not all that it needs is stored (keys of MCP servers and of upstreams'
    own tools), or because it began with tools that a person has agreed to.
    """
    places = {server.server_label: server.server_url for server in stored.mcp_servers}
    has_unstored_keys = stored is not request.options or any(
        server.headers or (server.url and server.url.reveal() != places.get(server.label))
        for server in request.mcp
    )
    if has_unstored_keys or request.approved_calls or request.context_policies:
        return None
    return RestartOptions(
        stream=request.stream,
        compact_threshold=request.compact_threshold,
        max_tool_rounds=request.max_tool_rounds,
        timeout=request.timeout,
        waits=is_queueing(request),
    )


def is_queueing(request: TurnRequest) -> bool:
    """Whether a turn waits until the one that it continues has been answered."""
    return (
        request.background
        and request.store
        and request.on_busy == "queue"
        and request.previous_response_id is not None
    )


def storable_options(options: Options) -> Options:
    """The options without the secrets in what only an upstream understands."""
    if not (options.hosted_tools or options.extra):
        return options
    tools, extra = without_secrets(options.hosted_tools), without_secrets(options.extra)
    if tools is options.hosted_tools and extra is options.extra:
        return options
    return msgspec.structs.replace(options, hosted_tools=tools, extra=extra)


def with_served_options(request: TurnRequest, model: Model) -> TurnRequest:
    """The request without the tools that nobody would run. Raises ``InvalidRequestError``."""
    options = served_options(request.options, model)
    if options is request.options:
        return request
    return msgspec.structs.replace(request, options=options)


def served_options(options: Options, model: Model) -> Options:
    """The options without the tools that nobody would run.

    Raises ``InvalidRequestError`` where one of these has to be called.
    """
    if not options.hosted_tools or model.info.runs_hosted_tools:
        return options
    allowed = options.allowed_tools
    if allowed is not None:
        allowed = tuple(name for name in allowed if not name.startswith(HOSTED_PREFIX))
    is_none_left = allowed == () or not (options.tools or options.mcp_servers)
    if options.tool_choice.startswith(HOSTED_PREFIX) or (
        options.tool_choice == "required" and is_none_left
    ):
        raise InvalidRequestError(
            f"The model '{model.info.name}' runs no tools itself, so that it cannot be made to:"
            " it can be given functions, custom tools and MCP servers.",
            code="unsupported_value",
            param="tool_choice",
        )
    return msgspec.structs.replace(options, hosted_tools=(), allowed_tools=allowed)


def nothing_to_summarize_error() -> InvalidRequestError:
    """The error for a summary of nothing."""
    return InvalidRequestError("There is nothing to sum up yet.", code="nothing_to_summarize")


def validate_input(request: TurnRequest, model: Model) -> None:
    """Refuse input that says nothing, or that this model cannot look at."""
    items = request.input
    if (
        not any(map(_says_something, items))
        and request.generate
        and not request.approved_calls
        and not (request.previous_response_id is not None and not items)
    ):
        raise InvalidRequestError(
            "The input is empty: say something.", code="empty_input", param="input"
        )
    validate_images(request, model)


def _says_something(item: Item) -> bool:
    return not isinstance(item, Message) or bool(item.content)


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
