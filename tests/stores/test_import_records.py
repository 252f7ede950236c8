"""Records of import jobs in every store: any process finds them, and sees whether theirs lives."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from antiphon.turn.transfer_protocols import IMPORT_RECORD_LIFETIME, ImportRecord
from support.store_turns import STORES, ManualClock, Opener, opener

RECORD = ImportRecord("import_1", "me", 1_800_000_000.5)


async def test_record_is_stored_replaced_and_forgotten_after_a_day(store_in: Opener) -> None:
    clock = ManualClock()
    async with store_in(clock) as store:
        imports = store.stores.imports
        assert await imports.get("me", RECORD.id) is None
        await imports.put(RECORD)
        here = msgspec.structs.replace(RECORD, node_id=store.stores.nodes.node_id)
        assert await imports.get("me", RECORD.id) == here
        assert await imports.get("them", RECORD.id) is None
        counts = {"imported": 2, "failed": 1}
        changes = {"status": "completed", "counts": counts, "new_turns": 7, "source": "claude"}
        await imports.put(msgspec.structs.replace(RECORD, **changes))
        assert await imports.get("me", RECORD.id) == msgspec.structs.replace(here, **changes)
        clock.now += IMPORT_RECORD_LIFETIME
        assert await imports.get("me", RECORD.id) is None
        await imports.put(msgspec.structs.replace(RECORD, id="import_2"))
        assert await imports.get("me", RECORD.id) is None


async def test_records_of_a_tenant_are_listed_the_newest_job_first(store_in: Opener) -> None:
    clock = ManualClock()
    async with store_in(clock) as store:
        imports = store.stores.imports
        assert await imports.list_records("me") == []
        old, new, other = (
            msgspec.structs.replace(RECORD, id=name, tenant=tenant, created_at=created_at)
            for name, tenant, created_at in (("a", "me", 1.5), ("b", "me", 2.5), ("c", "you", 3.5))
        )
        for record in (old, new, other):
            await imports.put(record)
        clock.now += IMPORT_RECORD_LIFETIME / 2
        done = msgspec.structs.replace(old, status="completed", completed_at=9.5)
        await imports.put(done)
        assert [one.id for one in await imports.list_records("me")] == ["b", "a"]
        clock.now += IMPORT_RECORD_LIFETIME / 2
        (left,) = await imports.list_records("me")
        assert left == msgspec.structs.replace(done, node_id=store.stores.nodes.node_id)


@pytest.mark.parametrize("kind", [kind for kind in STORES if kind != "memory"])
async def test_record_says_whether_its_process_lives(kind: str, tmp_path: Path) -> None:
    # Two stores that have the same file or database open are two processes.
    open_store = opener(kind, tmp_path)
    async with open_store() as reader:
        async with open_store() as writer:
            await writer.stores.imports.put(RECORD)
            found = await reader.stores.imports.get("me", RECORD.id)
            assert found is not None
            assert (found.is_alive, found.node_id) == (True, writer.stores.nodes.node_id)
        found = await reader.stores.imports.get("me", RECORD.id)
        assert found is not None
        assert (found.is_alive, found.status) == (False, "running")
