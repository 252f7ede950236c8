"""``antiphon search`` and ``antiphon approvals``: what was said, and what waits, in all chats."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from antiphon.cli import terminal_output
from antiphon.cli.engine_runner import Flags, run_with_engine
from antiphon.cli.options import Config, Json, Store
from antiphon.cli.terminal_output import Column, format_ago, format_time
from antiphon.cli.waiting_calls import WaitingCall, find_waiting_calls
from antiphon.core.items import shorten
from antiphon.core.turns import DEFAULT_TENANT
from antiphon.turn.search_protocols import SearchHit

if TYPE_CHECKING:
    from antiphon.bootstrap import Engine

_HIT_COLUMNS = (Column("id"), Column("when"), Column("found", is_cropped=True))
_CALL_COLUMNS = (Column("response"), Column("when"), Column("call", is_cropped=True))
_MAX_CELL = 200


def search(
    words: Annotated[list[str], typer.Argument(metavar="WORDS", help="All of them are in a hit.")],
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, max=100, metavar="N", help="How many at most.")
    ] = 20,
    as_json: Json = False,
    store: Store = None,
    config: Config = None,
) -> None:
    """Search in all that was said, tools included; the best first.

    Each by the id of its response, which `antiphon show` prints and `antiphon chat --from` goes on
    from.
    """
    search_turns({"store": store, "config": config}, " ".join(words), limit, as_json=as_json)


def approvals(as_json: Json = False, store: Store = None, config: Config = None) -> None:
    """List the tool calls that wait for a decision, in all chats.

    `antiphon chat --from ID` goes on there, and /approve decides.
    """
    list_approvals({"store": store, "config": config}, as_json=as_json)


def search_turns(flags: Flags, query: str, limit: int, *, as_json: bool) -> None:
    """Print the hits: a table, JSON, or tab-separated to a pipe."""

    async def find(engine: Engine) -> Sequence[SearchHit]:
        return await engine.stores.search.search(DEFAULT_TENANT, query, limit)

    hits = run_with_engine(flags, find)
    if as_json:
        terminal_output.print_json(hits)
    elif not sys.stdout.isatty():
        rows = [(hit.response_id, format_time(hit.created_at), _cell(hit.excerpt)) for hit in hits]
        terminal_output.print_tsv(rows)
    elif not hits:
        terminal_output.print_note("nothing was found")
    else:
        rows = [(hit.response_id, format_ago(hit.created_at), _cell(hit.excerpt)) for hit in hits]
        terminal_output.print_table(_HIT_COLUMNS, rows)


def list_approvals(flags: Flags, *, as_json: bool) -> None:
    """Print the calls that wait: a table, JSON, or tab-separated to a pipe."""
    waiting = run_with_engine(flags, find_waiting_calls)
    if as_json:
        terminal_output.print_json([_call_fields(one) for one in waiting])
    elif not sys.stdout.isatty():
        terminal_output.print_tsv(
            [(one.response_id, format_time(one.created_at), _call_cell(one)) for one in waiting]
        )
    elif not waiting:
        terminal_output.print_note("nothing waits for a decision")
    else:
        terminal_output.print_table(
            _CALL_COLUMNS,
            [(one.response_id, format_ago(one.created_at), _call_cell(one)) for one in waiting],
        )


def _call_fields(one: WaitingCall) -> dict[str, object]:
    return {
        "response_id": one.response_id,
        "created_at": one.created_at,
        "title": one.title,
        "call_id": one.call.call_id,
        "name": one.call.name,
        "arguments": one.call.arguments,
    }


def _call_cell(one: WaitingCall) -> str:
    return _cell(f"{one.call.name}({one.call.arguments})")


def _cell(text: str) -> str:
    return shorten(text, _MAX_CELL)
