"""``antiphon usage``: tokens and cost by day, model and API key, erased turns included."""

from __future__ import annotations

import sys
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from antiphon.cli import terminal_output
from antiphon.cli.engine_runner import Flags, run_with_engine
from antiphon.cli.options import Config, Json, Store
from antiphon.cli.terminal_output import Column
from antiphon.core.token_prices import round_cost
from antiphon.core.turns import DEFAULT_TENANT
from antiphon.errors import InvalidRequestError
from antiphon.turn.usage_groups import add_up, group_fields, parse_groupings

if TYPE_CHECKING:
    from antiphon.bootstrap import Engine
    from antiphon.turn.chat_protocols import UsageSum
    from antiphon.turn.store_protocols import ApiKey

_EPOCH = date(1970, 1, 1)


def usage(
    by: Annotated[
        str,
        typer.Option(
            "--by",
            metavar="GROUP",
            help="What a line is of: day, model or key, or day,key and so on.",
        ),
    ] = "day",
    days: Annotated[int, typer.Option("--days", min=1, metavar="N", help="The last N days.")] = 30,
    tenant: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Whose keys it was used with; without it, what was used without keys and with"
            " those of --local.",
        ),
    ] = DEFAULT_TENANT,
    as_json: Json = False,
    store: Store = None,
    config: Config = None,
) -> None:
    """Print tokens and cost, by day (UTC), model or API key."""
    flags: Flags = {"store": store, "config": config}
    try:
        groupings = parse_groupings(by)
    except InvalidRequestError as error:
        raise typer.BadParameter(error.message, param_hint="--by") from None
    print_usage(flags, groupings, days, tenant, as_json=as_json)


def print_usage(
    flags: Flags, groupings: list[str], days: int, tenant: str, *, as_json: bool
) -> None:
    """Print the sums: a table, JSON, or tab-separated to a pipe."""
    today = (datetime.now(UTC).date() - _EPOCH).days

    async def read(engine: Engine) -> tuple[list[UsageSum], list[ApiKey]]:
        stores = engine.stores
        sums = await stores.chats.usage_sums(tenant, today - days + 1, today)
        return sums, await stores.api_keys.list_keys(tenant)

    found, keys = run_with_engine(flags, read)
    names = {key.id: key.name for key in keys}
    sums = [_fields(one, groupings, names) for one in add_up(found, groupings)]
    if as_json:
        terminal_output.print_json(sums)
        return
    rows = [tuple(map(_cell, one.values())) for one in sums]
    if not sys.stdout.isatty():
        terminal_output.print_tsv(rows)
    elif not rows:
        with_keys = " with keys" if found else ""
        terminal_output.print_note(f"nothing was used{with_keys} in the last {days} days")
    else:
        groups = [name.replace("_", " ") for name in sums[0] if name in (*groupings, "key_name")]
        numbers = ("turns", "in", "cached", "out", "cost")
        columns = [*map(Column, groups), *(Column(name, is_number=True) for name in numbers)]
        terminal_output.print_table(columns, rows)


def _fields(one: UsageSum, groupings: list[str], names: dict[str, str | None]) -> dict[str, object]:
    name = {"key_name": names.get(one.key_id or "")} if "key" in groupings else {}
    return {
        **group_fields(one, groupings),
        **name,
        "turns": one.turns,
        "input_tokens": one.usage.input_tokens,
        "cached_tokens": one.usage.cached_tokens,
        "output_tokens": one.usage.output_tokens,
        "cost": None if one.cost is None else round_cost(one.cost),
    }


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4f}" if isinstance(value, float) else str(value)
