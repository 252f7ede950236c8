"""Every store against a simple model of it: any order of chains, branches, ends and erasures."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

from antiphon.core.turns import End
from antiphon.stores.memory import MemoryStore
from antiphon.stores.sqlite import open_sqlite
from antiphon.turn.ports import Head, NewTurn, Recent, Store, StoredTurn
from stores_kit import DONE, HEADER, assistant, held_in_file, held_in_memory, new_turn

T = TypeVar("T")

TENANTS = ("", "other")
IMAGES = (b"a cat", b"a dog", b"an owl")


class Known(msgspec.Struct):
    """What the model knows of a turn. ``thread`` is the id of the thread's first turn."""

    new: NewTurn
    thread: str
    depth: int
    parent: Known | None
    tree: list[int]
    head: Head | None = None
    output: list[bytes] = []
    end: End | None = None
    erased: bool = False
    children: list[Known] = []

    @property
    def id(self) -> str:
        return self.new.response_id

    def family(self) -> Iterator[Known]:
        yield self
        for child in self.children:
            yield from child.family()

    def chain(self) -> list[Known]:
        above = self.parent.chain() if self.parent else []
        return above if self.erased else [*above, self]

    def stored(self) -> StoredTurn | None:
        if self.erased:
            return None
        return StoredTurn(
            response_id=self.id,
            created_at=self.new.created_at,
            header=self.new.header,
            input=tuple(self.new.input),
            output=tuple(self.output),
            end=self.end,
            previous_response_id=self.parent.id if self.parent else None,
            blobs={blob.hash: blob.data for blob in self.new.blobs},
        )


class StoreMachine(RuleBasedStateMachine):
    known = Bundle("known")
    tenants = st.sampled_from(TENANTS)
    pictures = st.lists(st.sampled_from(IMAGES), max_size=2)

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory()
        self.store = self.do(self.open(Path(self.folder.name)))
        self.turns: list[Known] = []

    async def open(self, folder: Path) -> Store:
        raise NotImplementedError

    def held(self) -> list[tuple[str, bytes]]:
        raise NotImplementedError

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    def teardown(self) -> None:
        self.do(self.store.close())
        self.runner.close()
        self.folder.cleanup()

    @rule(target=known, tenant=tenants, items=st.integers(0, 2), images=pictures)
    def begin_root(self, tenant: str, items: int, images: list[bytes]) -> Known:
        new = new_turn(*["hello"] * items, tenant=tenant, images=images)
        return self.begin(Known(new, new.response_id, 0, None, [0]))

    @rule(target=known, parent=known, items=st.integers(0, 2), images=pictures)
    def continue_one(self, parent: Known, items: int, images: list[bytes]) -> Known:
        said = ["again"] * items
        new = new_turn(*said, tenant=parent.new.tenant, parent=parent.head, images=images)
        # The newest turn of a thread is continued in it, every other one branches.
        thread = new.response_id if parent.children else parent.thread
        turn = Known(new, thread, parent.depth + 1, parent, parent.tree)
        parent.children.append(turn)
        return self.begin(turn)

    def begin(self, turn: Known) -> Known:
        async def begin() -> Head | None:
            await self.store.begin(turn.new)
            return await self.store.head(turn.new.tenant, turn.id)

        turn.head = self.do(begin())
        assert turn.head is not None
        self.turns.append(turn)
        return turn

    @rule(turn=known, text=st.text(max_size=3), end=st.sampled_from([None, None, DONE]))
    def write(self, turn: Known, text: str, end: End | None) -> None:
        async def write() -> None:
            await self.store.write(turn.id, [assistant(text)], end)

        self.do(write())
        if not turn.erased and turn.end is None:
            turn.output.append(assistant(text))
            turn.end = end

    @rule(turn=known, tenant=tenants, cascade=st.booleans())
    def delete(self, turn: Known, tenant: str, cascade: bool) -> None:
        there = not turn.erased and tenant == turn.new.tenant
        deleted = self.do(self.store.delete(tenant, turn.id, cascade=cascade))
        assert deleted == there
        if there:
            for one in turn.family() if cascade else [turn]:
                one.erased = True
            turn.tree[0] += 1

    @rule(turn=known, tenant=tenants)
    def read(self, turn: Known, tenant: str) -> None:
        there = not turn.erased and tenant == turn.new.tenant
        assert self.do(self.store.turn(tenant, turn.id)) == (turn.stored() if there else None)
        head = self.do(self.store.head(tenant, turn.id))
        assert (head is not None) == there
        if head is not None and turn.head is not None:
            assert (head.thread, head.seq) == (turn.head.thread, turn.depth)
            assert head.tree == turn.head.tree
            assert head.running == (turn.end is None)

    @rule(turn=known)
    def read_chain(self, turn: Known) -> None:
        assert turn.head is not None
        turns = self.do(self.store.chain(turn.head))
        assert turns == [one.stored() for one in turn.chain()]

    @rule(one=known, other=known)
    def compare(self, one: Known, other: Known) -> None:
        assert one.head is not None
        assert other.head is not None
        assert (one.head.tree == other.head.tree) == (one.tree is other.tree)
        assert (one.head.thread == other.head.thread) == (one.thread == other.thread)

    @rule(turn=known)
    def read_epoch(self, turn: Known) -> None:
        head = self.do(self.store.head(turn.new.tenant, turn.id))
        if head is not None:
            assert head.epoch == turn.tree[0]

    @rule(tenant=tenants, limit=st.integers(0, 4))
    def read_recent(self, tenant: str, limit: int) -> None:
        newest: dict[str, Known] = {}
        for turn in self.turns:
            if turn.new.tenant == tenant and not turn.erased:
                newest[turn.thread] = turn
        latest = sorted(newest.values(), key=lambda turn: turn.new.created_at, reverse=True)
        assert self.do(self.store.recent(tenant, limit)) == [
            Recent(
                response_id=turn.id,
                created_at=turn.new.created_at,
                model=HEADER.model,
                turns=turn.depth + 1,
                opening=next((item for one in turn.chain() for item in one.new.input), None),
            )
            for turn in latest[:limit]
        ]

    @rule()
    def look_for_images(self) -> None:
        used = {
            (turn.new.tenant, blob.data)
            for turn in self.turns
            if not turn.erased
            for blob in turn.new.blobs
        }
        assert self.held() == sorted(used)

    @invariant()
    def what_was_begun_last_is_there(self) -> None:
        if self.turns:
            turn = self.turns[-1]
            assert self.do(self.store.turn(turn.new.tenant, turn.id)) == turn.stored()


class MemoryMachine(StoreMachine):
    async def open(self, folder: Path) -> Store:
        self.memory = MemoryStore()
        return self.memory

    def held(self) -> list[tuple[str, bytes]]:
        return held_in_memory(self.memory)


class SqliteMachine(StoreMachine):
    async def open(self, folder: Path) -> Store:
        return await open_sqlite(folder / "turns.db")

    def held(self) -> list[tuple[str, bytes]]:
        return held_in_file(Path(self.folder.name) / "turns.db")


@pytest.mark.parametrize("machine", [MemoryMachine, SqliteMachine])
def test_a_store_does_what_its_model_does(machine: type[StoreMachine]) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=40,
            stateful_step_count=50,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
