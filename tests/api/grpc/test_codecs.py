"""What the official SDK asks for, and what it finds in its answers."""

from __future__ import annotations

import json

import grpc
import pytest
from pydantic import BaseModel
from xai_sdk.chat import (  # type: ignore[import-untyped]
    file,
    image,
    required_tool,
    user,
)
from xai_sdk.proto import chat_pb2  # type: ignore[import-untyped]
from xai_sdk.tools import web_search  # type: ignore[import-untyped]

from antiphon.core.deltas import EncryptedReasoning, OutputTextDelta
from antiphon.core.turns import Usage
from antiphon.models.scripted import (
    ScriptedModel,
    ScriptedReply,
    finish,
    refuse,
    report_usage,
    say,
    think,
)
from antiphon.settings import Price
from support.grpc_client import PNG, WEATHER, GrpcTestServer, grpc_serving, rpc_failure


def test_request_options_reach_the_model(echo: GrpcTestServer) -> None:
    model = ScriptedModel(["{}"])
    with grpc_serving(model) as server, server.client() as client:
        chat = client.chat.create(
            "scripted",
            messages=[user("Hi")],
            tools=[WEATHER],
            tool_choice=required_tool("get_weather"),
            parallel_tool_calls=False,
            response_format="json_object",
            temperature=0.7,
            top_p=0.9,
            max_tokens=50,
            seed=7,
            stop=["END"],
            frequency_penalty=0.1,
            presence_penalty=-0.2,
            reasoning_effort="xhigh",
            logprobs=True,
            top_logprobs=2,
            use_encrypted_content=True,
            user="u",
            safety_identifier="s",
            service_tier="priority",
            max_turns=3,
        )
        response = chat.sample()
        assert response.service_tier == "priority"
        settings = response.request_settings
        assert (settings.max_tokens, settings.user, settings.use_encrypted_content) == (
            50,
            "u",
            True,
        )
        assert settings.tool_choice.function_name == "get_weather"
        assert settings.tools[0].function.name == "get_weather"
        assert not settings.parallel_tool_calls
        assert settings.reasoning_effort == chat_pb2.EFFORT_XHIGH
    options = model.calls[0].options
    # Floats come with 24 bits, and are not to be seen as such.
    assert (options.temperature, options.top_p) == (0.7, 0.9)
    assert (options.frequency_penalty, options.presence_penalty) == (0.1, -0.2)
    assert (options.max_output_tokens, options.seed, options.stop) == (50, 7, ("END",))
    assert (options.tool_choice, options.parallel_tool_calls) == ("function:get_weather", False)
    assert options.text_format == {"type": "json_object"}
    assert (options.reasoning_effort, options.top_logprobs) == ("xhigh", 2)
    assert options.include == ("message.output_text.logprobs", "reasoning.encrypted_content")
    assert (options.user, options.safety_identifier, options.service_tier) == ("u", "s", "priority")


class Item(BaseModel):
    name: str
    price: int


def test_structured_answers() -> None:
    answer = Item(name="tea", price=3)
    model = ScriptedModel([answer.model_dump_json()] * 2)
    with grpc_serving(model) as server, server.client() as client:
        chat = client.chat.create("scripted", messages=[user("Order")])
        response, parsed = chat.parse(Item)
        assert (parsed, json.loads(response.content)) == (answer, answer.model_dump())
        other = client.chat.create("scripted", messages=[user("Order")], response_format=Item)
        assert Item.model_validate_json(other.sample().content) == answer
    for one in model.calls:
        assert one.options.text_format == {
            "type": "json_schema",
            "name": "Item",
            "schema": Item.model_json_schema(),
        }


def test_images() -> None:
    model = ScriptedModel(["A cat"])
    with grpc_serving(model) as server, server.client() as client:
        chat = client.chat.create("scripted")
        chat.append(
            user(
                "What is it?",
                image("https://example.com/cat.jpg", detail="high"),
                image(f"data:image/jpeg;base64,{PNG}"),
            )
        )
        assert chat.sample().content == "A cat"
    text, far, near = model.context()[0]["content"]
    assert text["text"] == "What is it?"
    assert far["image_url"] == {"url": "https://example.com/cat.jpg", "detail": "high"}
    assert near["image_url"]["url"] == f"data:image/png;base64,{PNG}"


def test_reasoning_and_what_it_cost() -> None:
    counted = report_usage(Usage(1_000_000, 150, cached_tokens=500_000, reasoning_tokens=100))
    model = ScriptedModel([think("Hm.") + say("42") + counted] * 2)
    price = Price(input=2.0, output=10.0, cached=0.5)
    with grpc_serving(model, prices=lambda name: price) as server, server.client() as client:
        chat = client.chat.create("scripted", messages=[user("?")])
        streamed = list(chat.stream())[-1][0]
        for response in (chat.sample(), streamed):
            assert (response.reasoning_content, response.content) == ("Hm.", "42")
            usage = response.usage
            assert (usage.completion_tokens, usage.reasoning_tokens) == (50, 100)
            assert (usage.total_tokens, usage.cached_prompt_text_tokens) == (1_000_150, 500_000)
            assert response.cost_usd == pytest.approx(1.0 + 0.25 + 0.0015)
        listed = client.models.get_language_model("scripted")
    assert (listed.prompt_text_token_price, listed.completion_text_token_price) == (20_000, 100_000)
    assert listed.cached_prompt_token_price == 5_000


def test_encrypted_reasoning_goes_there_and_back_on_request() -> None:
    sealed = ScriptedReply((EncryptedReasoning("SEALED", "example.com/m"),))
    model = ScriptedModel([think("Hm.") + sealed + say("42")] * 3 + ["More"])
    with grpc_serving(model) as server, server.client() as client:
        plain = client.chat.create("scripted", messages=[user("?")])
        assert plain.sample().encrypted_content == ""
        chat = client.chat.create("scripted", messages=[user("?")], use_encrypted_content=True)
        streamed = list(chat.stream())[-1][0]
        response = chat.sample()
        assert response.encrypted_content == streamed.encrypted_content == "SEALED"
        chat.append(response)
        chat.append(user("And?"))
        assert chat.sample().content == "More"
    assert b"SEALED" in model.calls[-1].messages


def test_log_probabilities() -> None:
    odds = {"token": "42", "logprob": -0.5, "bytes": [52, 50], "top_logprobs": []}
    top = {"token": "41", "logprob": -1.0, "bytes": [52, 49]}
    said = ScriptedReply((OutputTextDelta("42", ({**odds, "top_logprobs": [top]},)),))
    with grpc_serving(ScriptedModel([said] * 2)) as server, server.client() as client:
        chat = client.chat.create("scripted", messages=[user("?")], logprobs=True)
        (entry,) = chat.sample().logprobs.content
        assert (entry.token, entry.logprob, entry.bytes) == ("42", -0.5, b"42")
        assert entry.top_logprobs[0].token == "41"
        chunks = [chunk for _, chunk in chat.stream()]
    assert [
        one.token for chunk in chunks for out in chunk.proto.outputs for one in out.logprobs.content
    ] == ["42"]


@pytest.mark.parametrize(
    ("reply", "reason", "content"),
    [
        (say("Half") + finish("length"), "REASON_MAX_LEN", "Half"),
        (say("No") + finish("content_filter"), "REASON_STOP", "No"),
        (refuse("I will not."), "REASON_STOP", "I will not."),
    ],
)
def test_other_ends(reply: ScriptedReply, reason: str, content: str) -> None:
    with grpc_serving(ScriptedModel([reply] * 2)) as server, server.client() as client:
        chat = client.chat.create("scripted", messages=[user("?")])
        for response in (chat.sample(), list(chat.stream())[-1][0]):
            assert (response.finish_reason, response.content) == (reason, content)


def test_what_other_servers_do_is_refused_by_name(echo: GrpcTestServer) -> None:
    with echo.client() as client:
        for more, param in (
            ({"tools": [web_search()]}, "tools[0]"),
            ({"agent_count": 4}, "agent_count"),
            (
                {"guidelines": [{"type": "policy", "category": "nsfw", "behavior": "decline"}]},
                "guidelines",
            ),
            ({"temperature": 3.0}, "temperature"),
            ({"top_p": float("nan")}, "top_p"),
            ({"max_tokens": 0}, "max_tokens"),
            ({"tool_choice": required_tool("nope")}, "tool_choice.function_name"),
            ({"tools": [WEATHER, WEATHER]}, "tools[1]"),
            ({"safety_identifier": "x" * 65}, "safety_identifier"),
        ):
            chat = client.chat.create("scripted", messages=[user("Hi")], **more)
            failed = rpc_failure(chat.sample)
            assert (failed.code, failed.param) == (grpc.StatusCode.INVALID_ARGUMENT, param)
        chat = client.chat.create("scripted", messages=[user("Hi", file(data=b"x"))])
        failed = rpc_failure(chat.sample)
        assert failed.param == "messages[0].content[1].file"
        assert "Files are not taken" in failed.details
