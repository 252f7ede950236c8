"""``antiphon nodes``: the processes that serve a store."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from antiphon.cli import terminal_output
from antiphon.cli.engine_runner import load_store_settings, run_with_settings
from antiphon.cli.options import Config, Json, Store
from antiphon.cli.terminal_output import Column
from antiphon.errors import ConfigError
from antiphon.turn.node_protocols import Node

if TYPE_CHECKING:
    from antiphon.bootstrap import Engine

_COLUMNS = (
    Column("id"),
    Column("state"),
    Column("started"),
    Column("turns"),
    Column("process"),
    Column("version"),
    Column("address", is_cropped=True),
)


def nodes(as_json: Json = False, store: Store = None, config: Config = None) -> None:
    """List the servers of a store, the oldest first.

    Each worker is one. Turns are those that a node runs now. A dead node stays in the list until
    another one has ended its turns, or goes on with them.
    """
    settings = load_store_settings({"store": store, "config": config})
    if settings.store == "memory:":
        raise ConfigError("the store memory: is one process's own, which alone serves it")

    async def read(engine: Engine) -> Sequence[Node]:
        return await engine.stores.nodes.list_nodes()

    found = run_with_settings(settings, read)
    if as_json:
        terminal_output.print_json(found)
    elif not sys.stdout.isatty():
        terminal_output.print_tsv([_row(node) for node in found])
    elif not found:
        terminal_output.print_note("no server runs on this store")
    else:
        terminal_output.print_table(_COLUMNS, [_row(node, in_words=True) for node in found])


def _row(node: Node, *, in_words: bool = False) -> tuple[str, ...]:
    format_time = terminal_output.format_ago if in_words else terminal_output.format_time
    state = "draining" if node.is_draining else "serving"
    return (
        node.id,
        state if node.is_alive else "dead",
        format_time(node.started_at),
        str(node.turns),
        f"{node.host}:{node.pid}",
        node.version,
        node.url or "-",
    )
