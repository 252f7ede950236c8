"""References and approvals: what a request only names is found, or it is refused whole."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from antiphon.core.ids import item_id, new_response_id
from antiphon.core.items import (
    ApprovedCall,
    FunctionCall,
    FunctionCallOutput,
    Item,
    McpApproval,
    Message,
)
from antiphon.core.tool_rules import denied_output
from antiphon.core.turns import DEFAULT_TENANT, ItemReference, TurnRequest
from antiphon.errors import AntiphonError, InvalidRequestError, NotFoundError
from antiphon.models.scripted import ScriptedModel
from antiphon.turn.references import ResolvedRequest, resolve_references
from antiphon.turn.service import TurnService
from antiphon.turn.store_protocols import Store
from support.turn_service import (
    STORES,
    contents,
    run_turn,
    run_with_store,
    service_with,
    turn_request,
)

WAITING = FunctionCall("call_1", "files__read", '{"path": "a"}', server="files")
Story = Callable[[TurnService, Store], Awaitable[None]]


@pytest.fixture(params=STORES)
def told(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Story], None]:
    """Runs a story with a service, over each kind of store."""

    def run(story: Story) -> None:
        async def main(store: Store) -> None:
            await story(service_with(ScriptedModel(), store), store)

        run_with_store(request.param, tmp_path, main)

    return run


Told = Callable[[Story], None]


async def kept(
    service: TurnService,
    said: Sequence[Item],
    output: Sequence[Item] = (),
    tenant: str = DEFAULT_TENANT,
) -> str:
    return await service.store_turn(TurnRequest(tuple(said), tenant=tenant), output)


def naming(*ids: str, place: int = 0, said: Sequence[Item] = (), **fields: Any) -> TurnRequest:
    return TurnRequest(
        tuple(said),
        references=tuple(
            ItemReference(name, place, f"input[{place + number}]")
            for number, name in enumerate(ids)
        ),
        **fields,
    )


async def refusal(
    service: TurnService, request: TurnRequest, kind: type[AntiphonError]
) -> tuple[str, str | None, str]:
    with pytest.raises(kind) as caught:
        await resolve_references(request, service.reader)
    return caught.value.code, caught.value.param, caught.value.message


def test_references_take_their_places(told: Told) -> None:
    async def story(service: TurnService, _: Store) -> None:
        name = await kept(
            service, [Message("user", "a"), Message("user", "b")], [Message("assistant", "c")]
        )
        a, b, c = (item_id(name, "message", place) for place in range(3))
        said = (Message("user", "x"), Message("user", "y"))
        for place, order in ((0, "abxy"), (1, "xaby"), (2, "xyab")):
            asked = await resolve_references(naming(a, b, place=place, said=said), service.reader)
            assert "".join(str(item.content) for item in asked.request.input) == order  # type: ignore[union-attr]
            assert asked.request.references == ()
        twice = await resolve_references(naming(c, c, a), service.reader)
        assert [item.role for item in twice.request.input] == [  # type: ignore[union-attr]
            "assistant",
            "assistant",
            "user",
        ]

    told(story)


def test_what_was_named_is_shown_and_kept_as_if_it_had_been_sent(told: Told) -> None:
    async def story(service: TurnService, _: Store) -> None:
        first = await run_turn(service, "My name is Alice.")
        request = naming(
            item_id(first.id, "message", 0), said=[Message("user", "Who am I?")], stream=True
        )
        second = await (await service.start(request)).result()
        assert contents(service.models.get(None)[1]) == [  # type: ignore[arg-type]
            "My name is Alice.",
            "Who am I?",
        ]
        await service.delete(DEFAULT_TENANT, first.id)
        again = await service.reader.response(DEFAULT_TENANT, second.id)
        assert [str(item.content) for item in again.input] == [  # type: ignore[union-attr]
            "My name is Alice.",
            "Who am I?",
        ]

    told(story)


def test_a_call_comes_with_its_output_where_they_are_one(told: Told) -> None:
    async def story(service: TurnService, _: Store) -> None:
        output = FunctionCallOutput("call_1", "words")
        name = await kept(service, [Message("user", "Read.")], [WAITING, output])
        for kind in ("mcp_call", "mcp_approval_request"):
            asked = await resolve_references(naming(item_id(name, kind, 1)), service.reader)
            assert asked.request.input == (WAITING, output)
        plain = FunctionCall("call_2", "add", "{}")
        name = await kept(
            service, [Message("user", "Add.")], [plain, FunctionCallOutput("call_2", "3")]
        )
        asked = await resolve_references(naming(item_id(name, "function_call", 1)), service.reader)
        assert asked.request.input == (plain,)

    told(story)


def test_what_is_nobodys_someone_elses_or_erased_is_missing(told: Told) -> None:
    async def story(service: TurnService, store: Store) -> None:
        theirs = await kept(service, [Message("user", "Theirs.")], tenant="other")
        mine = await kept(service, [Message("user", "Mine."), Message("user", "Erased.")])
        erased = item_id(mine, "message", 1)
        assert await store.stores.conversations.erase_item(DEFAULT_TENANT, mine, 1)  # type: ignore[attr-defined]
        wrong = [
            item_id(theirs, "message", 0),
            item_id(new_response_id(), "message", 0),
            item_id(mine, "message", 2),
            item_id(mine, "message", 0xFFFF),
            item_id(mine, "reasoning", 0),
            erased,
            erased.replace("msg_", "gone_"),
            mine,
            "msg_1",
            "",
            "x" * 5000,
            "msg_" + "\u0660" * 34,
        ]
        seen = set()
        for name in wrong:
            code, param, message = await refusal(service, naming(name), NotFoundError)
            seen.add((code, param, message.replace(f"'{name}'", "ID")))
        assert seen == {("item_not_found", "input[0]", "No item found with id ID.")}
        good = item_id(mine, "message", 0)
        code, param, _ = await refusal(service, naming(good, wrong[0]), NotFoundError)
        assert param == "input[1]"
        with pytest.raises(NotFoundError):
            await service.start(naming(wrong[0]))
        assert len(await service.reader.recent_threads(DEFAULT_TENANT, 10)) == 1, (
            "nothing was stored"
        )

    told(story)


def test_counting_and_summing_up_find_references_too(told: Told) -> None:
    async def story(service: TurnService, _: Store) -> None:
        name = await kept(service, [Message("user", "one two three")])
        request = naming(item_id(name, "message", 0), store=False)
        assert await service.count_tokens(request) == 3
        await service.compact(request)
        shown = service.models.get(None)[1].context()  # type: ignore[attr-defined]
        assert "one two three" in str(shown)
        for work in (service.count_tokens, service.compact):
            with pytest.raises(NotFoundError):
                await work(naming(item_id(new_response_id(), "message", 0), store=False))

    told(story)


def deciding(request_id: str, approve: bool, reason: str | None = None) -> TurnRequest:
    return TurnRequest((McpApproval(request_id, approve, reason),))


def test_an_approval_finds_its_call(told: Told) -> None:
    async def story(service: TurnService, _: Store) -> None:
        name = await kept(service, [Message("user", "Read.")], [WAITING])
        request_id = item_id(name, "mcp_approval_request", 1)
        asked = await resolve_references(deciding(request_id, True), service.reader)
        assert asked.request.input == (McpApproval(request_id, True),)
        assert asked.request.approved_calls == (WAITING,)
        assert asked.approved_calls == {"call_1": ApprovedCall(request_id, WAITING)}

    told(story)


def test_a_refusal_is_an_output_that_says_so(told: Told) -> None:
    async def story(service: TurnService, _: Store) -> None:
        name = await kept(service, [Message("user", "Read.")], [WAITING])
        request_id = item_id(name, "mcp_approval_request", 1)
        decision = McpApproval(request_id, False, "Not that file.")
        asked = await resolve_references(
            TurnRequest((decision, Message("user", "Go on."))), service.reader
        )
        assert asked.request.input == (
            decision,
            FunctionCallOutput(
                "call_1",
                denied_output(decision),
                is_error=True,
                approved_call=ApprovedCall(request_id, WAITING),
            ),
            Message("user", "Go on."),
        )
        assert (asked.request.approved_calls, asked.approved_calls) == ((), {})
        # The turn goes on with it, and the call is not open any more.
        request = msgspec.structs.replace(
            turn_request(decision, after=name), input=(decision, Message("user", "Go on."))
        )
        turn = await (await service.start(request)).result()
        assert turn.status == "completed"

    told(story)


def test_an_approval_of_something_that_does_not_wait_is_refused(told: Told) -> None:
    async def story(service: TurnService, _: Store) -> None:
        theirs = await kept(service, [Message("user", "Read.")], [WAITING], tenant="other")
        plain = FunctionCall("call_2", "add", "{}")
        mine = await kept(service, [Message("user", "Read.")], [WAITING, plain])
        wrong = [
            item_id(theirs, "mcp_approval_request", 1),
            item_id(new_response_id(), "mcp_approval_request", 1),
            item_id(mine, "mcp_call", 1),
            item_id(mine, "mcp_approval_request", 0),
            item_id(mine, "mcp_approval_request", 2),
            item_id(mine, "mcp_approval_request", 3),
            "mcpr_1",
            "",
        ]
        seen = set()
        for name in wrong:
            for approve in (True, False):
                code, param, message = await refusal(
                    service, deciding(name, approve), InvalidRequestError
                )
                seen.add((code, param, message.replace(f"'{name}'", "ID")))
        assert seen == {
            ("approval_request_not_found", "input", "There is no approval request with id ID.")
        }

    told(story)


def test_an_approval_of_another_conversations_call_is_refused(told: Told) -> None:
    async def story(service: TurnService, _: Store) -> None:
        name = await kept(service, [Message("user", "Read.")], [WAITING])
        other = await kept(service, [Message("user", "Else.")])
        for approve in (True, False):
            decision = McpApproval(item_id(name, "mcp_approval_request", 1), approve)
            with pytest.raises(InvalidRequestError):
                await service.start(turn_request(decision, after=other))

    told(story)


def test_a_request_that_names_nothing_stays_as_it_is(told: Told) -> None:
    async def story(service: TurnService, _: Store) -> None:
        request = turn_request("Hi.")
        assert await resolve_references(request, service.reader) == ResolvedRequest(request)

    told(story)
