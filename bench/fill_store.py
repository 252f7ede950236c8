"""Fills a store in this process: ``python -m bench.fill_store STORE FIRST COUNT TURNS``.

STORE is a SQLite file or the URI of a PostgreSQL database. Conversations from number FIRST on,
COUNT of them, TURNS long, 64 at a time, through the same ``TurnService`` and store as a server's,
before the scripted model: what is missing is HTTP and an upstream. For each it prints the id of its
last response.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path

import uvloop

from antiphon.core.items import Message
from antiphon.core.turns import TurnRequest
from antiphon.models.model_registry import ModelRegistry
from antiphon.models.scripted import ScriptedModel, say
from antiphon.stores.postgres.store import PostgresStore, open_postgres
from antiphon.stores.sqlite.store import SqliteStore, open_sqlite
from antiphon.turn.service import TurnService
from bench.prose import prose_text

_AT_ONCE = 64
#: The reply to each turn. Of words, so that it is indexed as the fake's replies are.
REPLY = "Filled without a server: " + "and so they talked on until the evening. " * 4


async def fill(place: str, first: int, count: int, turns: int) -> None:
    """Store the conversations; prints their last ids."""
    store: SqliteStore | PostgresStore
    if place.startswith("postgresql:"):
        store = await open_postgres(place)
    else:
        store = await open_sqlite(Path(place))
    model = ScriptedModel(lambda _: say(REPLY))
    service = TurnService(store, ModelRegistry({"fake": model}, default="fake"), store.stores)
    numbers = iter(range(first, first + count))
    talks = [_talk(service, model, numbers, turns) for _ in range(_AT_ONCE)]
    await asyncio.gather(*talks)
    await service.close()
    await store.close()


async def _talk(
    service: TurnService, model: ScriptedModel, numbers: Iterator[int], turns: int
) -> None:
    for number in numbers:
        previous: str | None = None
        for turn in range(turns):
            message = Message("user", prose_text(number, turn))
            request = TurnRequest((message,), previous_response_id=previous)
            response = await (await service.start(request)).result()
            if response.status != "completed":
                raise RuntimeError(f"turn {turn} of {number} is {response.status}")
            previous = response.id
            # It remembers what it was shown.
            model.calls.clear()
        sys.stdout.write(f"{number} {previous}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description="fill a store without a server")
    parser.add_argument("store")
    parser.add_argument("numbers", type=int, nargs=3, metavar=("FIRST", "COUNT", "TURNS"))
    asked = parser.parse_args()
    first, count, turns = asked.numbers
    uvloop.run(fill(asked.store, first, count, turns))


if __name__ == "__main__":
    main()
