"""The store contract: one suite that every store passes."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from antiphon.core.ids import new_response_id
from antiphon.core.turns import End, FunctionTool, Header, Options, TurnError, Usage
from antiphon.errors import HistoryBranchedError, HistoryChangedError, StoreError
from antiphon.turn.store_protocols import Continuations, Head, NewTurn, StoredTurn
from support.store_turns import (
    DONE,
    Opener,
    assistant,
    begin_turn,
    complete_turn,
    complete_turns,
    head_of,
    ids,
    ids_of,
    new_turn,
    opener,
    user,
)
from support.stored_responses import response_ids


async def test_turn_is_running_until_its_end_is_written(store_in: Opener) -> None:
    async with store_in() as store:
        new = new_turn("Hi.", "Are you there?")
        await store.begin(new)
        assert (await head_of(store, new.response_id)).is_running
        turn = await store.turn("", new.response_id)
        assert turn is not None
        assert turn.end is None
        assert turn.input == (user("Hi."), user("Are you there?"))
        await store.write(new.response_id, [assistant("Yes.")])
        assert (await head_of(store, new.response_id)).is_running
        await store.write(new.response_id, [], DONE)
        assert not (await head_of(store, new.response_id)).is_running


async def test_turn_round_trips_with_all_fields(store_in: Opener) -> None:
    tool = FunctionTool("add", parameters={"type": "object", "n": 2**70})
    options = Options(tools=(tool,), stop=("\n", "\u2028"), metadata={"a": "ü"})
    header = Header("model/with:odd name", "", options)
    error = TurnError("upstream_error", "It broke. 💔")
    end = End("failed", 1_700_000_000.123456, Usage(1, 2, 3, 4), error, "why")
    async with store_in() as store:
        new = new_turn("Hi.", header=header, created_at=1_699_999_999.654321)
        store.begin(new)
        store.write(new.response_id, [assistant("one")])
        await store.write(new.response_id, [assistant("two"), assistant("three")], end)
        assert await store.turn("", new.response_id) == StoredTurn(
            response_id=new.response_id,
            created_at=1_699_999_999.654321,
            header=header,
            input=(user("Hi."),),
            output=(assistant("one"), assistant("two"), assistant("three")),
            end=end,
            previous_response_id=None,
        )


async def test_items_are_stored_byte_for_byte(store_in: Opener) -> None:
    unusual_items = [b"", b"\x00\xff\n", b'{"a": 1.0,\r\n"b": 1e5}', bytes(range(256)) * 80]
    async with store_in() as store:
        new = msgspec.structs.replace(new_turn(), input=unusual_items)
        await store.begin(new)
        await store.write(new.response_id, unusual_items[::-1], DONE)
        turn = await store.turn("", new.response_id)
        assert turn is not None
        assert list(turn.input) == unusual_items
        assert list(turn.output) == unusual_items[::-1]


async def test_arguments_can_be_changed_after_a_write(store_in: Opener) -> None:
    async with store_in() as store:
        new = new_turn("Hi.")
        store.begin(new)
        items = [assistant("one")]
        written = store.write(new.response_id, items, DONE)
        items.append(assistant("two"))
        await written
        turn = await store.turn("", new.response_id)
        assert turn is not None
        assert turn.output == (assistant("one"),)


async def test_turn_without_items_is_stored(store_in: Opener) -> None:
    async with store_in() as store:
        new = new_turn()
        store.begin(new)
        await store.write(new.response_id, [], DONE)
        turn = await store.turn("", new.response_id)
        assert turn is not None
        assert (turn.input, turn.output, turn.end) == ((), (), DONE)


async def test_chain_is_read_oldest_first(store_in: Opener) -> None:
    async with store_in() as store:
        heads = await complete_turns(store, 5)
        turns = await store.chain(heads[-1])
        assert [turn.response_id for turn in turns] == ids(heads)
        assert [turn.previous_response_id for turn in turns] == [None, *ids(heads)[:-1]]
        assert [turn.input for turn in turns] == [(user(f"question {n}"),) for n in range(5)]
        assert await ids_of(store, heads[2]) == ids(heads)[:3]
        assert [await store.turn("", turn.response_id) for turn in turns] == turns


async def test_chain_includes_a_running_turn(store_in: Opener) -> None:
    async with store_in() as store:
        parent = await complete_turn(store)
        child = await begin_turn(store, "And?", parent)
        first, second = await store.chain(child)
        assert first.end == DONE
        assert second.end is None
        assert second.input == (user("And?"),)


async def test_branch_starts_a_new_thread_in_the_same_tree(store_in: Opener) -> None:
    async with store_in() as store:
        heads = await complete_turns(store, 3)
        other = await complete_turn(store)
        branch = await complete_turns(store, 2, heads[0])
        assert len({head.thread for head in heads}) == 1
        assert [head.seq for head in heads] == [0, 1, 2]
        assert len({heads[0].thread, other.thread, branch[0].thread}) == 3
        assert {head.thread for head in branch} == {branch[0].thread}
        assert [head.seq for head in branch] == [1, 2]
        assert branch[0].tree == heads[0].tree != other.tree


async def test_branches_share_their_ancestors(store_in: Opener) -> None:
    async with store_in() as store:
        heads = await complete_turns(store, 3)
        left = await complete_turns(store, 2, heads[1])
        right = await complete_turns(store, 2, heads[1])
        below = await complete_turn(store, parent=left[0])
        assert await ids_of(store, left[-1]) == ids([*heads[:2], *left])
        assert await ids_of(store, right[-1]) == ids([*heads[:2], *right])
        assert await ids_of(store, below) == ids([*heads[:2], left[0], below])
        assert await ids_of(store, heads[-1]) == ids(heads)


async def test_concurrent_children_of_one_parent_are_branches(store_in: Opener) -> None:
    async with store_in() as store:
        parent = await complete_turn(store)
        children = [new_turn(str(number), parent=parent) for number in range(5)]
        await asyncio.gather(*[store.begin(child) for child in children])
        positions = set()
        for child in children:
            head = await head_of(store, child.response_id)
            positions.add((head.thread, head.seq))
            assert await ids_of(store, head) == [parent.response_id, child.response_id]
        assert len(positions) == 5


async def test_writes_after_the_end_are_ignored(store_in: Opener) -> None:
    async with store_in() as store:
        new = new_turn("Hi.")
        store.begin(new)
        store.write(new.response_id, [assistant("a")], DONE)
        # Queued with the end and after it: both are ignored.
        await store.write(new.response_id, [assistant("b")], End("cancelled", 1.0))
        await store.write(new.response_id, [assistant("c")])
        turn = await store.turn("", new.response_id)
        assert turn is not None
        assert (turn.output, turn.end) == ((assistant("a"),), DONE)


async def test_write_to_an_unknown_turn_is_refused(store_in: Opener) -> None:
    async with store_in() as store:
        with pytest.raises(StoreError):
            await store.write(new_response_id(), [assistant("a")], DONE)
        with pytest.raises(StoreError):
            await store.write("nonsense", [], DONE)


async def test_refused_turn_stores_nothing(store_in: Opener) -> None:
    async with store_in() as store:
        accepted = new_turn("first")
        foreign = await complete_turn(store, tenant="other")
        refused = new_turn("Hi.", parent=foreign)
        futures = [
            store.begin(accepted),
            store.begin(new_turn("second", response_id=accepted.response_id)),
            store.begin(new_turn("Hi.", response_id="resp_nonsense")),
            store.begin(refused),
            store.write(refused.response_id, [assistant("a")], DONE),
        ]
        results = await asyncio.gather(*futures, return_exceptions=True)
        assert results[0] is None
        assert [type(result) for result in results[1:]] == [StoreError] * 4
        assert await store.head("", refused.response_id) is None
        turn = await store.turn("", accepted.response_id)
        assert turn is not None
        assert turn.input == (user("first"),)
        assert await store.head("", "resp_nonsense") is None
        assert await store.turn("", "resp_nonsense") is None


async def test_cancelled_begin_future_does_not_cancel_the_write(store_in: Opener) -> None:
    async with store_in() as store:
        new = new_turn("Hi.")
        store.begin(new).cancel()
        await store.write(new.response_id, [assistant("a")], DONE)
        turn = await store.turn("", new.response_id)
        assert turn is not None
        assert turn.end == DONE


async def test_deleted_turn_is_missing_and_its_descendants_remain(store_in: Opener) -> None:
    async with store_in() as store:
        heads = await complete_turns(store, 4)
        branch = await complete_turn(store, parent=heads[1])
        deleted_id = heads[1].response_id
        assert await store.delete("", deleted_id)
        assert await store.head("", deleted_id) is None
        assert await store.turn("", deleted_id) is None
        assert not await store.delete("", deleted_id)
        assert await ids_of(store, heads[3]) == ids([heads[0], *heads[2:]])
        assert await ids_of(store, branch) == ids([heads[0], branch])
        # A deleted turn is still named as the previous response.
        for head in (heads[2], branch):
            turn = await store.turn("", head.response_id)
            assert turn is not None
            assert turn.previous_response_id == deleted_id
        assert (await store.chain(heads[3]))[1].previous_response_id == deleted_id
        later = await complete_turn(store, parent=heads[3])
        assert await ids_of(store, later) == ids([heads[0], *heads[2:], later])


async def test_position_of_a_deleted_newest_turn_is_not_reused(store_in: Opener) -> None:
    async with store_in() as store:
        first, second = await complete_turns(store, 2)
        assert await store.delete("", second.response_id)
        other = await complete_turn(store, parent=first)
        assert (other.thread, other.seq) != (second.thread, second.seq)
        assert await ids_of(store, other) == ids([first, other])
        with pytest.raises(HistoryChangedError):
            await complete_turn(store, parent=second)
        assert await ids_of(store, other) == ids([first, other])


async def test_cascade_deletes_only_the_descendants(store_in: Opener) -> None:
    async with store_in() as store:
        heads = await complete_turns(store, 4)
        inside = await complete_turns(store, 3, heads[2])
        below = await complete_turn(store, parent=inside[1])
        outside = await complete_turn(store, parent=heads[0])
        separate = await complete_turn(store)
        branch_off = await complete_turn(store, parent=heads[1])
        assert await store.delete("", heads[1].response_id, cascade=True)
        for head in (*heads[1:], *inside, below, branch_off):
            assert await store.head("", head.response_id) is None
        assert await ids_of(store, outside) == ids([heads[0], outside])
        assert await store.head("", separate.response_id) == separate
        await complete_turn(store, parent=heads[0])


async def test_deletion_increments_only_its_trees_epoch(store_in: Opener) -> None:
    async with store_in() as store:
        first, second = await complete_turns(store, 2)
        branch = await complete_turn(store, parent=first)
        other = await complete_turn(store)
        await store.delete("", second.response_id)
        assert (await head_of(store, first.response_id)).epoch > first.epoch
        assert (await head_of(store, branch.response_id)).epoch > branch.epoch
        assert await head_of(store, other.response_id) == other
        before = await head_of(store, first.response_id)
        await complete_turn(store, parent=first)
        assert await head_of(store, first.response_id) == before


async def test_turn_deleted_while_running_ignores_writes(store_in: Opener) -> None:
    async with store_in() as store:
        head = await begin_turn(store, "secret")
        store.write(head.response_id, [assistant("words")])
        deleted = asyncio.ensure_future(store.delete("", head.response_id))
        assert await deleted
        await store.write(head.response_id, [assistant("more")])
        await store.write(head.response_id, [], DONE)
        assert await store.turn("", head.response_id) is None
        with pytest.raises(HistoryChangedError):
            await complete_turn(store, parent=head)
        with pytest.raises(StoreError):
            await store.begin(new_turn(response_id=head.response_id))


async def test_other_tenants_response_is_not_found(store_in: Opener) -> None:
    async with store_in() as store:
        mine = await complete_turn(store, tenant="me")
        theirs = new_turn("Hi.", tenant="them")
        await store.begin(theirs)
        assert await store.head("them", mine.response_id) is None
        assert await store.turn("them", mine.response_id) is None
        assert await store.chain(msgspec.structs.replace(mine, tenant="them")) == []
        assert not await store.delete("them", mine.response_id, cascade=True)
        assert await response_ids(store, "me") == [mine.response_id]
        assert await response_ids(store, "them") == [theirs.response_id]
        assert await response_ids(store, "") == []
        assert await store.head("me", mine.response_id) == mine


async def test_concurrent_conversations_do_not_mix(store_in: Opener) -> None:
    async with store_in() as store:

        async def run_chain(number: int) -> None:
            parent = None
            for turn in range(6):
                parent = await complete_turn(store, f"{number}.{turn}", f"{turn}!", parent)
            assert parent is not None
            turns = await store.chain(parent)
            assert [turn.input[0] for turn in turns] == [
                user(f"{number}.{turn}") for turn in range(6)
            ]

        await asyncio.gather(*[run_chain(number) for number in range(12)])


async def test_closed_store_refuses_every_operation(store_in: Opener) -> None:
    async with store_in() as store:
        head = await complete_turn(store)
        await asyncio.gather(store.close(), store.close())
        await store.close()
        with pytest.raises(StoreError):
            await store.begin(new_turn("Hi."))
        with pytest.raises(StoreError):
            await store.write(head.response_id, [], DONE)
        for reading in (
            store.head("", head.response_id),
            store.turn("", head.response_id),
            store.chain(head),
            store.stores.chats.list_chats("", 1),
            store.delete("", head.response_id),
        ):
            with pytest.raises(StoreError):
                await reading


def only_turn(parent: Head, *seen: str) -> NewTurn:
    """A turn that may begin where nothing else continues its parent but what was seen."""
    known = [Continuations(parent, frozenset(seen))]
    return msgspec.structs.replace(new_turn("Yes.", parent=parent), seen=known)


async def test_of_several_who_saw_the_same_continuations_one_begins(store_in: Opener) -> None:
    async with store_in() as store:
        parent = await complete_turn(store)
        other = await complete_turn(store, "No.", parent=parent)
        rivals = [only_turn(parent, other.response_id) for _ in range(5)]
        begun = [store.begin(one) for one in rivals]
        errors = await asyncio.gather(*begun, return_exceptions=True)
        (winner,) = [one for one, error in zip(rivals, errors, strict=True) if error is None]
        for error in filter(None, errors):
            assert isinstance(error, HistoryBranchedError)
            assert error.response_ids == {winner.response_id}
        for one in rivals:
            assert (await store.turn("", one.response_id) is not None) == (one is winner)
        # Others are not kept from it.
        await complete_turn(store, "Well.", parent=parent)


async def test_erased_continuation_keeps_nobody_from_beginning(store_in: Opener) -> None:
    async with store_in() as store:
        parent = await complete_turn(store)
        first, second = [await complete_turn(store, "No.", parent=parent) for _ in range(2)]
        for one in (first, second):
            with pytest.raises(HistoryChangedError):
                await store.begin(only_turn(parent))
            assert await store.delete("", one.response_id)
        await store.begin(only_turn(await head_of(store, parent.response_id)))


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_of_two_processes_that_saw_the_same_one_begins(kind: str, tmp_path: Path) -> None:
    open_store = opener(kind, tmp_path)
    async with open_store() as one, open_store() as other:
        for _ in range(20):
            parent = await complete_turn(one)
            begun = [store.begin(only_turn(parent)) for store in (one, other)]
            errors = await asyncio.gather(*begun, return_exceptions=True)
            (lost,) = filter(None, errors)
            assert isinstance(lost, HistoryBranchedError)
