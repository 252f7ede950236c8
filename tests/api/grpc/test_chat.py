"""Conversations over gRPC with the official SDK, in the patterns of its own examples."""

from __future__ import annotations

import asyncio
import datetime
import json
from typing import Any

import grpc
import pytest
from pydantic import BaseModel
from xai_sdk.chat import (  # type: ignore[import-untyped]
    assistant,
    developer,
    system,
    tool_result,
    user,
)
from xai_sdk.proto import chat_pb2, deferred_pb2  # type: ignore[import-untyped]

from antiphon.core.deltas import ProviderFieldsDelta, ReasoningSummaryDelta, ToolCallDelta
from antiphon.core.provider_fields import ProviderFields
from antiphon.core.reasoning_sidecar import insert_fields
from antiphon.errors import AntiphonError, ModelError, ModelTimeoutError, UpstreamRateLimitError
from antiphon.models.scripted import (
    Messages,
    ScriptedModel,
    ScriptedReply,
    call,
    calls,
    fail,
    hang,
    say,
    think,
    wait,
)
from support.grpc_client import WEATHER, GrpcTestServer, grpc_serving, rpc_failure, wait_until


def test_a_conversation_that_the_client_keeps(echo: GrpcTestServer) -> None:
    with echo.client() as client:
        chat = client.chat.create(
            "scripted",
            messages=[system("Talk like a pirate."), user("How are you?"), assistant("Not well")],
        )
        chat.append(user("Why?"))
        response = chat.sample()
        assert response.content.startswith("You said: Why?\nBefore that you said: How are you?")
        assert "shown 4 messages" in response.content
        assert (response.role, response.finish_reason) == ("ROLE_ASSISTANT", "REASON_STOP")
        assert response.id.startswith("resp_")
        assert (response.proto.model, response.created.year >= 2025) == ("scripted", True)
        assert response.system_fingerprint.startswith("antiphon-")
        assert response.cost_usd is None
        assert response.usage.total_tokens == (
            response.usage.prompt_tokens + response.usage.completion_tokens
        )
        chat.append(response)
        chat.append(developer("Be brief."))
        chat.append(user("Ah"))
        assert "shown 7 messages" in chat.sample().content
    assert echo.http.stored_count() == 0


def test_a_stream_says_the_same(echo: GrpcTestServer) -> None:
    with echo.client() as client:
        chat = client.chat.create("scripted", messages=[user("Hi")])
        whole = chat.sample()
        pieces = [(chunk.content, response) for response, chunk in chat.stream()]
    _, last = pieces[-1]
    assert "".join(content for content, _ in pieces) == last.content == whole.content
    assert last.usage == whole.usage
    assert (last.finish_reason, last.role) == ("REASON_STOP", "ROLE_ASSISTANT")
    assert last.id.startswith("resp_")
    assert (last.proto.model, last.created.year >= 2025) == ("scripted", True)
    assert last.system_fingerprint == whole.system_fingerprint


def test_the_asynchronous_client() -> None:
    model = ScriptedModel([think("Hm. ") + say("One", " two"), "Three"])

    async def talk(client: Any) -> None:
        chat = client.chat.create("scripted", messages=[user("Count")])
        thoughts = content = ""
        async for response, chunk in chat.stream():
            thoughts += chunk.reasoning_content
            content += chunk.content
            last = response
        assert (thoughts, content) == ("Hm. ", "One two")
        assert (last.reasoning_content, last.content) == ("Hm. ", "One two")
        chat.append(last)
        chat.append(user("On"))
        assert (await chat.sample()).content == "Three"

    with grpc_serving(model) as server:
        asyncio.run(server.run_async(talk))
    assert [one["role"] for one in model.context()] == ["user", "assistant", "user"]


class Answer(BaseModel):
    text: str


def test_the_asynchronous_client_can_do_the_rest() -> None:
    model = ScriptedModel(['{"text":"hi"}', "a", "b", "Later", "Summed up", "Kept"])
    tick = datetime.timedelta(milliseconds=1)

    async def talk(client: Any) -> None:
        chat = client.chat.create("scripted", messages=[user("Hi")])
        _, parsed = await chat.parse(Answer)
        assert parsed == Answer(text="hi")
        plain = client.chat.create("scripted", messages=[user("Hi")])
        with pytest.warns(PendingDeprecationWarning):
            batch = await plain.sample_batch(2)
        assert sorted(one.content for one in batch) == ["a", "b"]
        assert (await plain.defer(interval=tick)).content == "Later"
        assert (await plain.compact()).dropped_message_count == 1
        stored = client.chat.create("scripted", messages=[user("Hi")], store_messages=True)
        name = (await stored.sample()).id
        assert (await client.chat.get_stored_completion(name))[0].content == "Kept"
        assert await client.chat.delete_stored_completion(name) == name
        assert len(await client.models.list_language_models()) == 1
        assert (await client.auth.get_api_key_info()).name

    with grpc_serving(model) as server:
        asyncio.run(server.run_async(talk))


def test_several_answers_side_by_side() -> None:
    model = ScriptedModel(["a", "b", "c", say("d", "e"), say("f", "g")])
    with grpc_serving(model) as server, server.client() as client:
        chat = client.chat.create("scripted", messages=[user("Say something")])
        with pytest.warns(PendingDeprecationWarning):
            responses = chat.sample_batch(3)
        assert sorted(one.content for one in responses) == ["a", "b", "c"]
        # The tokens of all: two words asked three times, and three words said.
        assert responses[0].usage.total_tokens == 9
        with pytest.warns(PendingDeprecationWarning):
            last, _ = list(chat.stream_batch(2))[-1]
        assert sorted(one.content for one in last) == ["de", "fg"]
        assert [one.finish_reason for one in last] == ["REASON_STOP"] * 2
        assert last[0].usage.prompt_tokens == 4
        assert len({one.id for one in last}) == 1
        assert server.http.stored_count() == 0


def test_a_batch_fails_as_a_whole_and_keeps_nothing_by_halves() -> None:
    model = ScriptedModel(["a", fail(UpstreamRateLimitError("Slow down."))])
    with grpc_serving(model) as server, server.client() as client:
        chat = client.chat.create("scripted", messages=[user("Hi")])
        with pytest.warns(PendingDeprecationWarning):
            failed = rpc_failure(lambda: list(chat.stream_batch(2)))
        assert (failed.code, failed.details) == (
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "Slow down.",
        )


def weather(messages: Messages) -> ScriptedReply | str:
    if messages[-1]["role"] != "tool":
        return calls(call("get_weather", {"city": "Rome"}), call("get_weather", {"city": "Oslo"}))
    return "; ".join(one["content"] for one in messages if one["role"] == "tool")


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("named", [False, True])
def test_functions(streamed: bool, named: bool) -> None:
    """As in the example: results need not say which call they are for."""
    with grpc_serving(ScriptedModel(weather)) as server, server.client() as client:
        chat = client.chat.create("scripted", messages=[user("Weather?")], tools=[WEATHER])
        response = list(chat.stream())[-1][0] if streamed else chat.sample()
        assert response.finish_reason == "REASON_TOOL_CALLS"
        cities = [json.loads(one.function.arguments)["city"] for one in response.tool_calls]
        assert cities == ["Rome", "Oslo"]
        assert {one.type for one in response.tool_calls} == {
            chat_pb2.TOOL_CALL_TYPE_CLIENT_SIDE_TOOL
        }
        chat.append(response)
        for one, city in zip(response.tool_calls, cities, strict=True):
            chat.append(tool_result(f"Sunny in {city}", one.id if named else None))
        assert chat.sample().content == "Sunny in Rome; Sunny in Oslo"


def test_a_result_without_a_name_finds_its_call_in_the_store() -> None:
    with grpc_serving(ScriptedModel(weather)) as server, server.client() as client:
        chat = client.chat.create("scripted", messages=[user("?")], store_messages=True)
        first = chat.sample()
        again = client.chat.create("scripted", previous_response_id=first.id, store_messages=True)
        again.append(tool_result("Sun"))
        again.append(tool_result("Rain"))
        assert again.sample().content == "Sun; Rain"
        lost = client.chat.create("scripted", messages=[tool_result("Of what?")])
        failed = rpc_failure(lost.sample)
        assert (failed.code, failed.param) == (grpc.StatusCode.INVALID_ARGUMENT, "messages")


def test_stored_answers_are_those_of_http(echo: GrpcTestServer) -> None:
    with echo.client() as client:
        chat = client.chat.create("scripted", store_messages=True)
        chat.append(system("Be brief."))
        chat.append(user("one"))
        first = chat.sample()
        (again,) = client.chat.get_stored_completion(first.id)
        assert (again.content, again.id) == (first.content, first.id)
        assert (again.usage, again.request_settings) == (first.usage, first.request_settings)
        # On over HTTP, and back: only what is new is sent.
        http = echo.http.respond("two", previous_response_id=first.id, model="scripted").json
        assert "shown 4 messages" in http["output"][0]["content"][0]["text"]
        back = client.chat.create("scripted", previous_response_id=http["id"], store_messages=True)
        back.append(user("three"))
        third = back.sample()
        assert third.content.startswith("You said: three\nBefore that you said: two")
        assert "shown 6 messages" in third.content
        assert third.request_settings.previous_response_id == http["id"]
        assert echo.http.get(f"/v1/responses/{third.id}").status == 200
        assert client.chat.get_stored_completion(http["id"])[0].content.startswith("You said: two")
        # Not stored, but it goes on from what is.
        passing = client.chat.create("scripted", previous_response_id=third.id)
        passing.append(user("four"))
        told = passing.sample()
        assert "shown 8 messages" in told.content
        lost = rpc_failure(lambda: client.chat.get_stored_completion(told.id))
        assert lost.code is grpc.StatusCode.NOT_FOUND
        assert client.chat.delete_stored_completion(first.id) == first.id
        gone = rpc_failure(lambda: client.chat.get_stored_completion(first.id))
        assert (gone.code, gone.error) == (grpc.StatusCode.NOT_FOUND, "response_not_found")
        again = rpc_failure(lambda: client.chat.delete_stored_completion(first.id))
        nowhere = client.chat.create("scripted", previous_response_id=first.id)
        going_on = rpc_failure(nowhere.append(user("five")).sample)
        for one in (lost, gone, again, going_on):
            # xAI's own words, which programs compare.
            assert (one.code, one.details) == (grpc.StatusCode.NOT_FOUND, "Response not found")
        assert going_on.error == "previous_response_not_found"


@pytest.mark.parametrize("number", [3, 16])
def test_a_stored_batch_comes_back_whole(number: int) -> None:
    names = [f"answer {place}" for place in range(number)]
    with grpc_serving(ScriptedModel(names)) as server, server.client() as client:
        chat = client.chat.create("scripted", messages=[user("Hi")], store_messages=True)
        with pytest.warns(PendingDeprecationWarning):
            made = chat.sample_batch(number)
        found = client.chat.get_stored_completion(made[0].id)
        assert [one.content for one in found] == [one.content for one in made]
        assert sorted(one.content for one in found) == sorted(names)
        assert server.http.stored_count() == number
        client.chat.delete_stored_completion(made[0].id)
        assert server.http.stored_count() == 0


@pytest.mark.parametrize("stored", [False, True])
def test_deferred_answers(stored: bool) -> None:
    opened = asyncio.Event()
    model = ScriptedModel([wait(opened) + say("At last"), "a", "b"])
    with grpc_serving(model) as server, server.client() as client:
        chat = client.chat.create("scripted", messages=[user("Hi")], store_messages=stored)
        name = chat._stub.StartDeferredCompletion(chat._make_request(1)).request_id
        asked = deferred_pb2.GetDeferredRequest(request_id=name)
        fetch = client.chat._stub.GetDeferredCompletion
        assert fetch(asked).status == deferred_pb2.PENDING
        server.http.set(opened)
        tick = datetime.timedelta(milliseconds=1)
        wait_until(lambda: fetch(asked).status == deferred_pb2.DONE)
        answer = fetch(asked)
        assert answer.response.outputs[0].message.content == "At last"
        # It may be asked for again.
        assert fetch(asked) == answer
        with pytest.warns(PendingDeprecationWarning):
            batch = chat.defer_batch(2, interval=tick)
        assert sorted(one.content for one in batch) == ["a", "b"]
        assert server.http.stored_count() == (3 if stored else 0)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UpstreamRateLimitError("Slow down."), grpc.StatusCode.RESOURCE_EXHAUSTED),
        (ModelTimeoutError("Too late."), grpc.StatusCode.DEADLINE_EXCEEDED),
        (ModelError("No.", code="their_own"), grpc.StatusCode.INTERNAL),
    ],
)
def test_what_is_kept_of_a_failure_fails_as_it_did(
    error: AntiphonError, code: grpc.StatusCode
) -> None:
    with grpc_serving(ScriptedModel([fail(error)])) as server, server.client() as client:
        chat = client.chat.create("scripted", messages=[user("Hi")], store_messages=True)
        first = rpc_failure(chat.sample)
        kept = first.trailers["x-response-id"]
        asked = deferred_pb2.GetDeferredRequest(request_id=kept)
        for again in (
            rpc_failure(lambda: client.chat.get_stored_completion(kept)),
            rpc_failure(lambda: client.chat._stub.GetDeferredCompletion(asked)),
        ):
            assert (again.code, again.error, again.details) == (code, error.code, error.message)
            assert again.trailers["x-response-id"] == kept
            assert (first.code, first.error, first.details) == (code, error.code, error.message)


def test_a_deferred_answer_is_its_askers_and_may_fail() -> None:
    model = ScriptedModel([fail(UpstreamRateLimitError("Slow down.")), "Never asked for"])
    with grpc_serving(model) as server, server.client() as client:
        chat = client.chat.create("scripted", messages=[user("Hi")])
        tick = datetime.timedelta(milliseconds=1)
        failed = rpc_failure(lambda: chat.defer(interval=tick))
        assert failed.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        mine, other = server.key("acme"), server.key("other")
        with server.client(mine) as acme, server.client(other) as stranger:
            asked = acme.chat.create("scripted", messages=[user("Hi")])
            name = asked._stub.StartDeferredCompletion(asked._make_request(1)).request_id

            def fetch(name: str) -> Any:
                request = deferred_pb2.GetDeferredRequest(request_id=name)
                return stranger.chat._stub.GetDeferredCompletion(request)

            foreign, missing = (
                rpc_failure(lambda: fetch(name)),
                rpc_failure(lambda: fetch("deferred_")),
            )
            assert foreign.code is missing.code is grpc.StatusCode.NOT_FOUND


def test_compaction() -> None:
    model = ScriptedModel(["They talked of bosons.", "Bosons", "Peter"])
    talk = [system("Be a tutor."), user("What is a boson?"), assistant("A particle."), user("Ah")]
    with grpc_serving(model) as server, server.client() as client:
        chat = client.chat.create("scripted", messages=talk, use_encrypted_content=True)
        made = chat.compact()
        assert (made.dropped_message_count, len(chat.messages)) == (4, 1)
        assert made.id.startswith("cmp_")
        assert made.usage.total_tokens > 0
        chat.append(user("What did we discuss?"))
        chat.append(chat.sample())
        assert len(model.context()) == 2
        assert model.context()[0]["role"] == "system"
        assert "They talked of bosons." in model.context()[0]["content"]
        # A client may keep what was there before: the server drops it, and takes the summary
        # from an assistant's message too.
        summary = chat_pb2.Message(
            role=chat_pb2.ROLE_ASSISTANT, encrypted_content=made.encrypted_content
        )
        kept = client.chat.create("scripted", messages=[*talk, summary, user("Who?")])
        assert kept.sample().content == "Peter"
        assert len(model.context()) == 2
        nothing = rpc_failure(lambda: client.chat.compact_context("scripted", []))
        assert (nothing.code, nothing.error) == (
            grpc.StatusCode.INVALID_ARGUMENT,
            "nothing_to_summarize",
        )
        assert server.http.stored_count() == 0


def test_a_stream_begins_with_the_first_words() -> None:
    for store in (False, True):
        model = ScriptedModel([think("Hm") + say("Once")])
        with grpc_serving(model) as server, server.client() as client:
            chat = client.chat.create("scripted", messages=[user("Hi")], store_messages=store)
            told = [(chunk.reasoning_content, chunk.content) for _, chunk in chat.stream()]
            assert any(told[0])
            assert ["".join(words) for words in zip(*told, strict=True)] == ["Hm", "Once"]


def test_a_disconnect_stops_unstored_turns_only() -> None:
    reached = asyncio.Event()
    model = ScriptedModel([say("Once") + hang(reached)])
    with grpc_serving(model) as server, server.client() as client:
        chat = client.chat.create("scripted", messages=[user("Hi")])
        stream = chat.stream()
        next(stream)
        server.http.wait(reached)
        stream.close()
        server.http.wait(model.cancelled)


def test_a_deadline_stops_a_turn() -> None:
    model = ScriptedModel([hang()])
    with grpc_serving(model) as server, server.client() as client:
        chat = client.chat.create("scripted", messages=[user("Hi")])
        request = chat._make_request(1)
        channel = grpc.insecure_channel(server.address)
        ask: Any = channel.unary_unary("/xai_api.Chat/GetCompletion")
        failed = rpc_failure(lambda: ask(request.SerializeToString(), timeout=0.2))
        assert failed.code is grpc.StatusCode.DEADLINE_EXCEEDED
        server.http.wait(model.cancelled)
        channel.close()


def test_a_stored_turn_outlives_its_client() -> None:
    opened, reached = asyncio.Event(), asyncio.Event()
    model = ScriptedModel([say("Once") + wait(opened, reached) + say(" upon a time")])
    with grpc_serving(model) as server, server.client() as client:
        chat = client.chat.create("scripted", messages=[user("Hi")], store_messages=True)
        stream = chat.stream()
        response, _ = next(stream)
        server.http.wait(reached)
        # What has come so far can be looked at, and has no finish yet.
        (part,) = client.chat.get_stored_completion(response.id)
        assert part.finish_reason == "REASON_INVALID"
        stream.close()
        server.http.set(opened)
        wait_until(lambda: found(client, response.id).finish_reason == "REASON_STOP")
        assert found(client, response.id).content == "Once upon a time"


def found(client: Any, name: str) -> Any:
    (only,) = client.chat.get_stored_completion(name)
    return only


@pytest.mark.parametrize("streamed", [True, False])
def test_what_a_model_wants_back_of_its_thoughts_comes_back_with_the_history(
    streamed: bool,
) -> None:
    given = ProviderFields("host/m", {"reasoning_details": [{"data": "x"}]}, "reasoning")
    thought = ReasoningSummaryDelta("Hm.", given)
    fields = ProviderFieldsDelta(given)
    model = ScriptedModel(
        [ScriptedReply((thought, fields, ToolCallDelta(0, "c", "f", "{}"))), "Done."]
    )
    with grpc_serving(model) as server, server.client() as client:
        chat = client.chat.create("scripted", messages=[user("Hi")], use_encrypted_content=True)
        chat.append([one for one, _ in chat.stream()][-1] if streamed else chat.sample())
        chat.append(tool_result("42"))
        assert chat.sample().content == "Done."
    (_, answer, _) = json.loads(insert_fields(model.calls[-1].messages, "host/m"))
    assert answer["reasoning"] == "Hm."
    assert answer["reasoning_details"] == [{"data": "x"}]
