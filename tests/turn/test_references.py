"""Item references and approvals: resolved from the store, or the whole request is refused."""

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
from support.stored_responses import response_ids
from support.turn_service import (
    STORES,
    contents,
    run_turn,
    run_with_store,
    service_with,
    turn_request,
)

OPEN_CALL = FunctionCall("call_1", "files__read", '{"path": "a"}', server="files")
Scenario = Callable[[TurnService, Store], Awaitable[None]]


@pytest.fixture(params=STORES)
def run_in_store(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Scenario], None]:
    """Runs a scenario with a service, over each kind of store."""

    def run(scenario: Scenario) -> None:
        async def main(store: Store) -> None:
            await scenario(service_with(ScriptedModel(), store), store)

        run_with_store(request.param, tmp_path, main)

    return run


ScenarioRunner = Callable[[Scenario], None]


async def store_turn(
    service: TurnService,
    items: Sequence[Item],
    output: Sequence[Item] = (),
    tenant: str = DEFAULT_TENANT,
) -> str:
    return await service.store_turn(TurnRequest(tuple(items), tenant=tenant), output)


def request_with_references(
    *ids: str, place: int = 0, items: Sequence[Item] = (), **fields: Any
) -> TurnRequest:
    return TurnRequest(
        tuple(items),
        references=tuple(
            ItemReference(name, place, f"input[{place + number}]")
            for number, name in enumerate(ids)
        ),
        **fields,
    )


async def resolution_error(
    service: TurnService, request: TurnRequest, kind: type[AntiphonError]
) -> tuple[str, str | None, str]:
    with pytest.raises(kind) as caught:
        await resolve_references(request, service.reader)
    return caught.value.code, caught.value.param, caught.value.message


def test_references_are_inserted_at_their_positions(run_in_store: ScenarioRunner) -> None:
    async def scenario(service: TurnService, _: Store) -> None:
        name = await store_turn(
            service, [Message("user", "a"), Message("user", "b")], [Message("assistant", "c")]
        )
        a, b, c = (item_id(name, "message", place) for place in range(3))
        items = (Message("user", "x"), Message("user", "y"))
        for place, order in ((0, "abxy"), (1, "xaby"), (2, "xyab")):
            resolved = await resolve_references(
                request_with_references(a, b, place=place, items=items), service.reader
            )
            assert "".join(str(item.content) for item in resolved.request.input) == order  # type: ignore[union-attr]
            assert resolved.request.references == ()
        twice = await resolve_references(request_with_references(c, c, a), service.reader)
        assert [item.role for item in twice.request.input] == [  # type: ignore[union-attr]
            "assistant",
            "assistant",
            "user",
        ]

    run_in_store(scenario)


def test_referenced_item_is_sent_and_stored_like_an_input_item(
    run_in_store: ScenarioRunner,
) -> None:
    async def scenario(service: TurnService, _: Store) -> None:
        first = await run_turn(service, "My name is Alice.")
        request = request_with_references(
            item_id(first.id, "message", 0), items=[Message("user", "Who am I?")], stream=True
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

    run_in_store(scenario)


def test_reference_to_an_mcp_call_includes_its_output(run_in_store: ScenarioRunner) -> None:
    async def scenario(service: TurnService, _: Store) -> None:
        output = FunctionCallOutput("call_1", "words")
        name = await store_turn(service, [Message("user", "Read.")], [OPEN_CALL, output])
        for kind in ("mcp_call", "mcp_approval_request"):
            resolved = await resolve_references(
                request_with_references(item_id(name, kind, 1)), service.reader
            )
            assert resolved.request.input == (OPEN_CALL, output)
        plain = FunctionCall("call_2", "add", "{}")
        name = await store_turn(
            service, [Message("user", "Add.")], [plain, FunctionCallOutput("call_2", "3")]
        )
        resolved = await resolve_references(
            request_with_references(item_id(name, "function_call", 1)), service.reader
        )
        assert resolved.request.input == (plain,)

    run_in_store(scenario)


def test_unknown_foreign_or_erased_reference_is_not_found(run_in_store: ScenarioRunner) -> None:
    async def scenario(service: TurnService, store: Store) -> None:
        theirs = await store_turn(service, [Message("user", "Theirs.")], tenant="other")
        mine = await store_turn(service, [Message("user", "Mine."), Message("user", "Erased.")])
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
        errors = set()
        for name in wrong:
            code, param, message = await resolution_error(
                service, request_with_references(name), NotFoundError
            )
            errors.add((code, param, message.replace(f"'{name}'", "ID")))
        assert errors == {("item_not_found", "input[0]", "No item found with id ID.")}
        good = item_id(mine, "message", 0)
        code, param, _ = await resolution_error(
            service, request_with_references(good, wrong[0]), NotFoundError
        )
        assert param == "input[1]"
        with pytest.raises(NotFoundError):
            await service.start(request_with_references(wrong[0]))
        assert await response_ids(store) == [mine], "nothing was stored"

    run_in_store(scenario)


def test_token_count_and_compaction_resolve_references(run_in_store: ScenarioRunner) -> None:
    async def scenario(service: TurnService, _: Store) -> None:
        name = await store_turn(service, [Message("user", "one two three")])
        request = request_with_references(item_id(name, "message", 0), store=False)
        assert await service.count_tokens(request) == 3
        await service.compact(request)
        shown = service.models.get(None)[1].context()  # type: ignore[attr-defined]
        assert "one two three" in str(shown)
        for work in (service.count_tokens, service.compact):
            with pytest.raises(NotFoundError):
                await work(
                    request_with_references(item_id(new_response_id(), "message", 0), store=False)
                )

    run_in_store(scenario)


def approval_request(request_id: str, approve: bool, reason: str | None = None) -> TurnRequest:
    return TurnRequest((McpApproval(request_id, approve, reason),))


def test_approval_resolves_to_its_call(run_in_store: ScenarioRunner) -> None:
    async def scenario(service: TurnService, _: Store) -> None:
        name = await store_turn(service, [Message("user", "Read.")], [OPEN_CALL])
        request_id = item_id(name, "mcp_approval_request", 1)
        resolved = await resolve_references(approval_request(request_id, True), service.reader)
        assert resolved.request.input == (McpApproval(request_id, True),)
        assert resolved.request.approved_calls == (OPEN_CALL,)
        assert resolved.approved_calls == {"call_1": ApprovedCall(request_id, OPEN_CALL)}

    run_in_store(scenario)


def test_denied_approval_becomes_an_error_output(run_in_store: ScenarioRunner) -> None:
    async def scenario(service: TurnService, _: Store) -> None:
        name = await store_turn(service, [Message("user", "Read.")], [OPEN_CALL])
        request_id = item_id(name, "mcp_approval_request", 1)
        decision = McpApproval(request_id, False, "Not that file.")
        resolved = await resolve_references(
            TurnRequest((decision, Message("user", "Go on."))), service.reader
        )
        assert resolved.request.input == (
            decision,
            FunctionCallOutput(
                "call_1",
                denied_output(decision),
                is_error=True,
                approved_call=ApprovedCall(request_id, OPEN_CALL),
            ),
            Message("user", "Go on."),
        )
        assert (resolved.request.approved_calls, resolved.approved_calls) == ((), {})
        # The turn continues with it, and the call is no longer open.
        request = msgspec.structs.replace(
            turn_request(decision, after=name), input=(decision, Message("user", "Go on."))
        )
        turn = await (await service.start(request)).result()
        assert turn.status == "completed"

    run_in_store(scenario)


def test_approval_of_an_item_that_is_not_pending_is_refused(run_in_store: ScenarioRunner) -> None:
    async def scenario(service: TurnService, _: Store) -> None:
        theirs = await store_turn(service, [Message("user", "Read.")], [OPEN_CALL], tenant="other")
        plain = FunctionCall("call_2", "add", "{}")
        mine = await store_turn(service, [Message("user", "Read.")], [OPEN_CALL, plain])
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
        errors = set()
        for name in wrong:
            for approve in (True, False):
                code, param, message = await resolution_error(
                    service, approval_request(name, approve), InvalidRequestError
                )
                errors.add((code, param, message.replace(f"'{name}'", "ID")))
        assert errors == {
            ("approval_request_not_found", "input", "There is no approval request with id ID.")
        }

    run_in_store(scenario)


def test_approval_of_another_conversations_call_is_refused(run_in_store: ScenarioRunner) -> None:
    async def scenario(service: TurnService, _: Store) -> None:
        name = await store_turn(service, [Message("user", "Read.")], [OPEN_CALL])
        other = await store_turn(service, [Message("user", "Else.")])
        for approve in (True, False):
            decision = McpApproval(item_id(name, "mcp_approval_request", 1), approve)
            with pytest.raises(InvalidRequestError):
                await service.start(turn_request(decision, after=other))

    run_in_store(scenario)


def test_request_without_references_is_unchanged(run_in_store: ScenarioRunner) -> None:
    async def scenario(service: TurnService, _: Store) -> None:
        request = turn_request("Hi.")
        assert await resolve_references(request, service.reader) == ResolvedRequest(request)

    run_in_store(scenario)
