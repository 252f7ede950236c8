"""``antiphon usage``: tokens and cost by day or by model, erased turns included."""

from __future__ import annotations

import sys
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from antiphon.cli import terminal_output
from antiphon.cli.engine_runner import Flags, run_with_engine
from antiphon.cli.options import Config, Json, Store
from antiphon.cli.terminal_output import Column
from antiphon.core.turns import DEFAULT_TENANT

if TYPE_CHECKING:
    from antiphon.bootstrap import Engine
    from antiphon.turn.chat_protocols import UsageSum

_EPOCH = date(1970, 1, 1)


class Grouping(StrEnum):
    """What the sums are of."""

    DAY = "day"
    MODEL = "model"


def usage(
    by: Annotated[Grouping, typer.Option("--by", help="What each line is of.")] = Grouping.DAY,
    days: Annotated[int, typer.Option("--days", min=1, metavar="N", help="The last N days.")] = 30,
    as_json: Json = False,
    store: Store = None,
    config: Config = None,
) -> None:
    """Print tokens and cost, by day (UTC) or by model."""
    print_usage({"store": store, "config": config}, by, days, as_json=as_json)


def print_usage(flags: Flags, by: Grouping, days: int, *, as_json: bool) -> None:
    """Print the sums: a table, JSON, or tab-separated to a pipe."""
    today = (datetime.now(UTC).date() - _EPOCH).days

    async def read(engine: Engine) -> list[UsageSum]:
        return await engine.stores.chats.usage_sums(DEFAULT_TENANT, today - days + 1, today)

    sums: dict[str, UsageSum] = {}
    for one in run_with_engine(flags, read):
        name = one.model if by is Grouping.MODEL else f"{_EPOCH + timedelta(days=one.day)}"
        sums[name] = sums[name] + one if name in sums else one
    if as_json:
        terminal_output.print_json([_fields(by, name, one) for name, one in sums.items()])
        return
    rows = [tuple(map(_cell, _fields(by, name, one).values())) for name, one in sums.items()]
    if not sys.stdout.isatty():
        terminal_output.print_tsv(rows)
    elif not rows:
        terminal_output.print_note(f"nothing was used in the last {days} days")
    else:
        numbers = ("turns", "in", "cached", "out", "cost")
        columns = [Column(by.value), *(Column(name, is_number=True) for name in numbers)]
        terminal_output.print_table(columns, rows)


def _fields(by: Grouping, name: str, one: UsageSum) -> dict[str, object]:
    return {
        by.value: name,
        "turns": one.turns,
        "input_tokens": one.usage.input_tokens,
        "cached_tokens": one.usage.cached_tokens,
        "output_tokens": one.usage.output_tokens,
        "cost": one.cost,
    }


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4f}" if isinstance(value, float) else str(value)
