"""Stores to copy: something of everything in one, and what a reader sees of it."""

from __future__ import annotations

import hashlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from antiphon.bootstrap import open_copy_store
from antiphon.core.chain_fingerprints import ChainFingerprint
from antiphon.core.ids import new_conversation_id
from antiphon.core.share_secrets import hash_share_secret, new_share_id, new_share_secret
from antiphon.core.turns import (
    ConversationRecord,
    End,
    Header,
    IdempotencyReservation,
    TurnStatus,
    Usage,
)
from antiphon.transfer import store_copy
from antiphon.transfer.store_copy import CopyProgress, CopyReport, StoreCopy
from antiphon.turn.chat_protocols import ChatUpdate
from antiphon.turn.store_protocols import ApiKey
from antiphon.turn.transfer_protocols import ChatImport, ShareRecord, TurnImport
from support.store_turns import (
    DONE,
    StoreWithStores,
    assistant,
    begin_turn,
    complete_turn,
    complete_turns,
    head_of,
    new_turn,
    user,
)

IMAGE = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
IMPORTED = ChatImport(
    "",
    [
        TurnImport(
            "resp_" + "ab" * 16,
            1_600_000_000.0,
            Header("gpt-4o"),
            [user("An old question")],
            [assistant("and its answer")],
            End("completed", 1_600_000_001.0),
            hashlib.sha256(b"imported").digest(),
        )
    ],
    1_600_000_000.0,
    1_600_000_001.0,
    "An imported chat",
)


class FilledStore(msgspec.Struct):
    """What was put into a store: the ids to look for."""

    responses: list[str]
    conversation: str
    share_secret: str
    running: str


async def fill(store: StoreWithStores) -> FilledStore:
    """Put something of everything into a store."""
    stores = store.stores
    heads = await complete_turns(store, 4)
    branch = await complete_turns(store, 2, heads[1])
    beside = await complete_turn(store, "forked", "away", heads[1])
    await stores.conversations.erase_item("", heads[2].response_id, 1)
    erased = await complete_turn(store, "to be erased", "gone")
    left = await complete_turn(store, "what follows", "stays", erased)
    await store.delete("", erased.response_id)
    pictures = [await complete_turn(store, "Look.", images=[IMAGE]) for _ in range(2)]
    other = await complete_turn(store, "a piano", tenant="acme", images=[IMAGE])
    update = ChatUpdate(
        title="A title 💔", is_pinned=True, is_permanent=True, metadata={"project": "ü"}
    )
    await stores.chats.update("", heads[0].response_id, update)
    conversation = ConversationRecord(new_conversation_id(), 1_700_000_000.5, {"a": "b"})
    reservation = IdempotencyReservation("a key", b"\1" * 32)
    await stores.idempotency.reserve("", reservation.key, reservation.fingerprint)
    turn = msgspec.structs.replace(
        new_turn("On a conversation", header=Header("m", conversation=conversation.id)),
        conversation=conversation,
        creates_conversation=True,
        reservation=reservation,
    )
    await store.begin(turn)
    end = End("completed", 5.0, Usage(5, 6, 1), cost=0.5, model="other", approvals=("call_1",))
    await store.write(turn.response_id, [assistant("It waits.")], end)
    await stores.conversations.create("acme", {})
    await stores.response_index.add_fingerprint(
        left.response_id,
        ChainFingerprint(b"f" * 32, (await head_of(store, left.response_id)).epoch),
    )
    await stores.chat_transfer.import_chat(IMPORTED)
    key = ApiKey("key_1", "acme", 1.5, "the shop")
    await stores.api_keys.add(key, b"k" * 32)
    await stores.api_keys.add(ApiKey("key_2", "", 2.5), b"l" * 32)
    await stores.api_keys.revoke("key_2")
    secret = new_share_secret()
    digest = hash_share_secret(secret)
    assert digest is not None
    await stores.shares.add(ShareRecord(new_share_id(), "", left.response_id, 3.5), digest)
    running = await begin_turn(store, "It runs.", branch[-1])
    found = [*heads, *branch, beside, left, *pictures, other]
    ids = [*[head.response_id for head in found], turn.response_id]
    return FilledStore(ids, conversation.id, secret, running.response_id)


async def look_at(store: StoreWithStores, filled: FilledStore) -> list[object]:
    """What a reader sees of what ``fill`` made, but for what belongs to the store itself."""
    stores = store.stores
    digest = hash_share_secret(filled.share_secret)
    assert digest is not None
    seen: list[object] = []
    for name in filled.responses:
        for tenant in ("", "acme"):
            head = await store.head(tenant, name)
            if head is None:
                continue
            seen += [head.epoch, head.seq, head.timestamp, await store.chain(head)]
            seen += [await stores.chats.siblings(tenant, name)]
            seen += [await stores.chat_transfer.tree(tenant, name)]
    for tenant in ("", "acme"):
        seen += [
            await stores.chats.list_chats(tenant, 50),
            await stores.chats.waiting_turns(tenant),
        ]
        seen += [await stores.chats.usage_sums(tenant, 0, 1_000_000)]
        seen += [await stores.conversations.list_conversations(tenant, 50)]
        seen += [
            await stores.search.search(tenant, query, 9) for query in ("piano", "away", "gone")
        ]
        seen += [await stores.chats.image(tenant, hashlib.sha256(IMAGE).hexdigest())]
    seen += [await stores.conversations.get("", filled.conversation)]
    seen += [await stores.api_keys.list_keys(), await stores.api_keys.find(b"k" * 32)]
    seen += [await stores.api_keys.find(b"l" * 32), await stores.shares.find(digest)]
    seen += [await stores.response_index.find_chain("", [b"f" * 32])]
    return seen


async def end_running(store: StoreWithStores, response_id: str, status: TurnStatus) -> None:
    """End a turn that ``fill`` left running."""
    end = msgspec.structs.replace(DONE, status=status)
    await store.write(response_id, [assistant("It ran.")], end)


async def copy(source: str, target: str, *, dies_after: int | None = None) -> CopyReport:
    """Copy a store by its name; ``dies_after``: so many steps later the process is killed."""
    steps = 0

    def show(progress: CopyProgress) -> None:
        nonlocal steps
        steps += 1
        if steps == dies_after:
            os.kill(os.getpid(), signal.SIGKILL)

    async with open_copy_store(source) as one, open_copy_store(target) as other:
        return await StoreCopy(one, other, show).run(source)


@asynccontextmanager
async def opened(name: str) -> AsyncIterator[StoreWithStores]:
    """A store by its name."""
    from antiphon.bootstrap import _open_store
    from antiphon.core.retention import RETAIN_FOREVER

    store = await _open_store(name, RETAIN_FOREVER)
    try:
        yield store
    finally:
        await store.close()


if __name__ == "__main__":
    import asyncio

    # So that there are several steps.
    store_copy._FAMILIES = 2  # type: ignore[misc]
    asyncio.run(copy(sys.argv[1], sys.argv[2], dies_after=int(sys.argv[3])))
    Path(sys.argv[4]).touch()
