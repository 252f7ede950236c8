"""``antiphon list``, ``show`` and ``delete``: what is stored, without asking any model."""

from __future__ import annotations

from typing import Annotated

import typer

from antiphon.cli.options import Config, Json, ResponseId, Store


def list_(
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, metavar="N", help="How many at most.")
    ] = 20,
    as_json: Json = False,
    store: Store = None,
    config: Config = None,
) -> None:
    """List the conversations, newest first.

    Each by the id of its newest response, which `antiphon chat --from` goes on from.
    """
    from antiphon.cli import conversation_commands  # loaded on first use

    conversation_commands.list_conversations(
        {"store": store, "config": config}, limit, as_json=as_json
    )


def show(
    response_id: ResponseId,
    as_json: Json = False,
    store: Store = None,
    config: Config = None,
) -> None:
    """Print a conversation up to one of its responses.

    With --json as the array of messages that a model is sent.
    """
    from antiphon.cli import conversation_commands  # loaded on first use

    conversation_commands.show_conversation(
        {"store": store, "config": config}, response_id, as_json=as_json
    )


def delete(
    response_id: ResponseId,
    cascade: Annotated[
        bool, typer.Option("--cascade", help="Erase everything that continues it, too.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    store: Store = None,
    config: Config = None,
) -> None:
    """Erase one response, for good.

    What continues it goes on without that turn.
    """
    from antiphon.cli import conversation_commands  # loaded on first use

    flags = {"store": store, "config": config}
    if conversation_commands.delete_response(flags, response_id, cascade=cascade, confirm=not yes):
        typer.echo(f"deleted {response_id}")
