"""Another process that takes turns, or erases what they go on from.

Commands, each after ``python -m support.turns_child``:

queue PATH CONVERSATION NAME COUNT    turns that queue, all at once
delete PATH RESPONSE                  erases one response
drop PATH CONVERSATION                erases a conversation
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from antiphon.core.items import Message
from antiphon.core.turns import DEFAULT_TENANT, TurnRequest
from antiphon.models.model_registry import ModelRegistry
from antiphon.models.scripted import ScriptedModel
from antiphon.stores.sqlite.store import SqliteStore, open_sqlite
from antiphon.turn.service import TurnService


async def queue(store: SqliteStore, conversation: str, name: str, count: int) -> None:
    model = ScriptedModel()
    service = TurnService(store, ModelRegistry({"echo": model}, default="echo"), store.stores)

    async def turn(number: int) -> None:
        request = TurnRequest(
            (Message("user", f"{name} {number}"),),
            conversation=conversation,
            on_busy="queue",
            stream=bool(number % 2),
        )
        response = await (await service.start(request)).result()
        print(response.id, response.status, flush=True)

    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    await asyncio.gather(*[turn(number) for number in range(count)])
    await service.close()


async def main(command: str, path: Path, *rest: str) -> None:
    store = await open_sqlite(path)
    if command == "queue":
        conversation, name, count = rest
        await queue(store, conversation, name, int(count))
    elif command == "delete":
        print(await store.delete(DEFAULT_TENANT, rest[0]), flush=True)
    else:
        print(await store.stores.conversations.delete(DEFAULT_TENANT, rest[0]), flush=True)
    await store.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:]))
