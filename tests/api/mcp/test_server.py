"""The tools, resources and the prompt, as the official client meets them over HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest
from mcp import Client, MCPError, types
from openai import OpenAI

from antiphon.errors import ModelNotFoundError, ModelUnavailableError, UpstreamRateLimitError
from antiphon.models.scripted import ScriptedModel, ScriptedReply, fail, finish, say, think
from antiphon.stores.memory.store import MemoryStore
from antiphon.turn.protocols import Model
from antiphon.turn.store_protocols import Head, StoredTurn
from support.http_server import ThreadServer, serving
from support.mcp_clients import MODES, call, over_http, tool_error
from support.stored_responses import response_ids

Talk = Callable[[Client], Awaitable[None]]


def talk(server: ThreadServer, talking: Talk, mode: str = "auto") -> None:
    async def main() -> None:
        async with over_http(server, mode) as client:
            await talking(client)

    asyncio.run(main())


@contextmanager
def openai(server: ThreadServer) -> Iterator[OpenAI]:
    with OpenAI(base_url=server.base_url, api_key="none", timeout=30) as client:
        yield client


@pytest.mark.parametrize("mode", MODES)
def test_a_conversation_of_three_turns(mode: str) -> None:
    async def talking(client: Client) -> None:
        first = await call(client, "stateful_chat", prompt="My name is Alice.", model="scripted")
        assert list(first) == [
            "content",
            "status",
            "model",
            "usage",
            "response_id",
            "stored_until",
            "continued_from",
            "warnings",
        ]
        assert (first["status"], first["model"]) == ("completed", "scripted")
        assert (first["continued_from"], first["warnings"]) == (None, [])
        assert first["usage"]["total_tokens"] > 0
        second = await call(
            client,
            "stateful_chat",
            prompt="And I am nine.",
            model="scripted",
            response_id=first["response_id"],
        )
        assert second["continued_from"] == first["response_id"]
        third = await call(
            client,
            "stateful_chat",
            prompt="Who am I?",
            model="scripted",
            response_id=second["response_id"],
        )
        assert "(I was shown 5 messages.)" in third["content"]
        assert "And I am nine." in third["content"]

    with serving() as server:
        talk(server, talking, mode)


def test_until_when_it_is_kept_is_said() -> None:
    async def talking(client: Client) -> None:
        said = await call(client, "stateful_chat", prompt="Hi")
        again = await call(client, "retrieve_stateful_response", response_id=said["response_id"])
        assert again["stored_until"] == said["stored_until"]
        assert datetime.fromisoformat(again["created_at"]) <= datetime.now(UTC)

    with serving() as server:
        talk(server, talking)


def test_a_name_that_is_not_served_is_the_default_model() -> None:
    async def talking(client: Client) -> None:
        for arguments in ({}, {"model": "grok-4"}, {"model": "other"}):
            said = await call(client, "stateful_chat", prompt="Hi", **arguments)
            assert said["model"] == "scripted"
            (warning,) = said["warnings"]
            assert f"'{arguments.get('model', 'grok-4')}'" in warning
            assert "'scripted' answered" in warning

    with serving() as server:
        talk(server, talking)


def test_a_name_that_only_the_upstream_does_not_know_leaves_nothing_behind() -> None:
    unknown = ScriptedModel(lambda _: fail(ModelNotFoundError("No such model.", param="model")))
    models: dict[str, Model] = {"m": ScriptedModel(), "grok-4": unknown}

    async def talking(client: Client) -> None:
        said = await call(client, "stateful_chat", prompt="Hi")
        assert said["model"] == "m"
        assert said["warnings"]
        again = await call(client, "stateful_chat", prompt="On", response_id=said["response_id"])
        assert "(I was shown 3 messages.)" in again["content"]
        assert len(unknown.calls) == 1, "what it does not know is remembered"

    with serving(models) as server:
        talk(server, talking)
        assert server.stored_count() == 2


def test_a_system_prompt_holds_for_the_whole_conversation_and_only_from_its_start() -> None:
    model = ScriptedModel()

    async def talking(client: Client) -> None:
        first = await call(
            client, "stateful_chat", prompt="Hi", system_prompt="Be brief.", model="m"
        )
        assert first["warnings"] == []
        second = await call(
            client,
            "stateful_chat",
            prompt="On",
            system_prompt="Be long.",
            response_id=first["response_id"],
            model="m",
        )
        (warning,) = second["warnings"]
        assert "system_prompt was ignored" in warning

    with serving({"m": model}) as server:
        talk(server, talking)
    shown = [json.loads(one.messages) for one in model.calls]
    assert [[message["role"] for message in one] for one in shown] == [
        ["system", "user"],
        ["system", "user", "assistant", "user"],
    ]
    assert shown[1][0]["content"] == "Be brief."


def test_nothing_said_is_nothing_asked_for() -> None:
    async def talking(client: Client) -> None:
        said = await call(
            client, "stateful_chat", prompt="Hi", response_id="", system_prompt="", model=""
        )
        assert (said["continued_from"], said["warnings"]) == (None, [])

    with serving() as server:
        talk(server, talking)


def test_reasoning_is_shown_on_request() -> None:
    model = ScriptedModel(lambda _: think("Let me ", "see.") + say("Four."))

    async def talking(client: Client) -> None:
        plain = await call(client, "stateful_chat", prompt="2+2?")
        assert "reasoning" not in plain
        told = await call(client, "stateful_chat", prompt="2+2?", include_reasoning=True)
        assert (told["content"], told["reasoning"]) == ("Four.", "Let me see.")
        once = await call(client, "chat_with_reasoning", prompt="2+2?", reasoning_effort="low")
        assert (once["content"], once["reasoning"]) == ("Four.", "Let me see.")

    with serving({"grok-4": model}) as server:
        talk(server, talking)
        assert model.calls[2].options.reasoning_effort == "low"


def test_an_answer_that_is_cut_off_says_so() -> None:
    model = ScriptedModel([say("One two") + finish("length")])

    async def talking(client: Client) -> None:
        said = await call(client, "stateful_chat", prompt="Count", max_tokens=2, temperature=0)
        assert (said["content"], said["status"]) == ("One two", "incomplete")
        assert "cut off" in said["warnings"][0]

    with serving({"grok-4": model}) as server:
        talk(server, talking)
    assert model.calls[0].options.max_output_tokens == 2
    assert model.calls[0].options.temperature == 0


def test_tools_without_memory_store_nothing() -> None:
    async def talking(client: Client) -> None:
        pixel = "data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEAAAAALAAAAAABAAEAAAIBADs="
        for tool, more in (
            ("chat", {}),
            ("chat_with_reasoning", {}),
            ("chat_with_vision", {"image_urls": [pixel, "https://example.com/a.png"]}),
        ):
            said = await call(client, tool, prompt="Hi", **more)
            assert "response_id" not in said
            assert said["content"]

    with serving() as server:
        talk(server, talking)
        assert server.stored_count() == 0


def test_models_are_listed() -> None:
    async def talking(client: Client) -> None:
        listed = await call(client, "list_models")
        assert listed["default"] == "a"
        assert [one["id"] for one in listed["models"]] == ["a", "b"]

    with serving({"a": ScriptedModel(), "b": ScriptedModel()}) as server:
        talk(server, talking)


def test_a_turn_is_read_again_and_erased() -> None:
    async def talking(client: Client) -> None:
        said = await call(client, "stateful_chat", prompt="Remember me.")
        turn = await call(client, "retrieve_stateful_response", response_id=said["response_id"])
        assert (turn["prompt"], turn["content"]) == ("Remember me.", said["content"])
        assert turn["error"] is None
        gone = await call(client, "delete_stateful_response", response_id=said["response_id"])
        assert gone["deleted"] is True
        for tool in ("retrieve_stateful_response", "delete_stateful_response"):
            assert "No response found" in await tool_error(
                client, tool, response_id=said["response_id"]
            )

    with serving() as server:
        talk(server, talking)
        assert server.stored_count() == 0


def test_what_was_said_is_found() -> None:
    async def talking(client: Client) -> None:
        said = await call(client, "stateful_chat", prompt="The cat is called Whiskers.")
        await call(client, "stateful_chat", prompt="The dog is called Rex.")
        (hit,) = (await call(client, "search_conversations", query="whiskers"))["results"]
        assert hit["response_id"] == said["response_id"]
        assert "Whiskers" in hit["excerpt"].replace("«", "").replace("»", "")
        nothing = await call(client, "search_conversations", query="elephant", limit=1)
        assert nothing["results"] == []

    with serving() as server:
        talk(server, talking)


def test_what_fails_says_what_to_do_next() -> None:
    script: Sequence[ScriptedReply] = [
        fail(ModelUnavailableError("It is asleep.")),
        fail(UpstreamRateLimitError("Slow down.", retry_after=7)),
    ]

    async def talking(client: Client) -> None:
        said = await tool_error(client, "stateful_chat", prompt="Hi")
        assert said.startswith("It is asleep. What was said is kept in resp_")
        assert "Try again with the same arguments" in said
        assert "Wait 7 seconds" in await tool_error(client, "chat", prompt="Hi")
        expired = await tool_error(
            client, "stateful_chat", prompt="Hi", response_id="resp_" + "0" * 32
        )
        assert "call stateful_chat without response_id to start a new one" in expired
        unknown = await tool_error(client, "stateful", prompt="Hi")
        assert "stateful_chat" in unknown
        assert "'prompt'" in await tool_error(client, "stateful_chat")
        assert "The input is empty" in await tool_error(client, "stateful_chat", prompt="")
        assert "from 0 to 2" in await tool_error(client, "chat", prompt="Hi", temperature=3)

    with serving({"grok-4": ScriptedModel(script)}) as server:
        talk(server, talking)
        # The one that failed of its model is kept, the others never began.
        assert server.stored_count() == 1


def test_an_unknown_argument_is_named() -> None:
    async def talking(client: Client) -> None:
        said = await call(client, "chat", prompt="Hi", conversation="resp_1")
        assert said["warnings"][-1].startswith("Unknown arguments were ignored: conversation.")

    with serving() as server:
        talk(server, talking)


def test_other_interfaces_go_on_with_it_and_it_with_theirs() -> None:
    async def begin(client: Client) -> None:
        said = await call(client, "stateful_chat", prompt="My name is Alice.")
        begun.append(said["response_id"])

    async def go_on(client: Client) -> None:
        said = await call(client, "stateful_chat", prompt="Who?", response_id=begun[-1])
        assert "(I was shown 5 messages.)" in said["content"]

    begun: list[str] = []
    with serving() as server, openai(server) as person:
        talk(server, begin)
        second = person.responses.create(
            model="scripted", input="And I am nine.", previous_response_id=begun[0]
        )
        assert "My name is Alice." in second.output_text
        begun.append(second.id)
        talk(server, go_on)


def test_a_conversation_goes_on_at_its_end() -> None:
    async def talking(client: Client) -> None:
        said = await call(client, "stateful_chat", prompt="One", response_id=names[0])
        assert said["continued_from"] is None
        again = await call(client, "stateful_chat", prompt="Two", response_id=names[0])
        assert again["continued_from"] == said["response_id"]
        found = await client.read_resource(f"antiphon://conversations/{names[0]}")
        assert "> Two" in text_of(found)

    names: list[str] = []
    with serving() as server, openai(server) as person:
        names.append(person.conversations.create().id)
        talk(server, talking)
        items = person.conversations.items.list(names[0]).data
        assert len(items) == 4


def test_a_conversation_goes_on_where_its_model_is_not_known() -> None:
    unknown = ScriptedModel(lambda _: fail(ModelNotFoundError("No such model.", param="model")))

    async def talking(client: Client) -> None:
        for count in (1, 3):
            said = await call(client, "stateful_chat", prompt="Hi", response_id=names[0])
            assert f"(I was shown {count} messages.)" in said["content"]

    names: list[str] = []
    with serving({"m": ScriptedModel(), "grok-4": unknown}) as server, openai(server) as person:
        names.append(person.conversations.create().id)
        talk(server, talking)
        assert len(person.conversations.items.list(names[0]).data) == 4


def text_of(found: types.ReadResourceResult) -> str:
    (content,) = found.contents
    assert isinstance(content, types.TextResourceContents)
    return content.text


@pytest.mark.parametrize("mode", MODES)
def test_conversations_are_resources(mode: str) -> None:
    async def talking(client: Client) -> None:
        first = await call(client, "stateful_chat", prompt="Hi\n## Not a heading")
        said = await call(client, "stateful_chat", prompt="On", response_id=first["response_id"])
        (listed,) = (await client.list_resources()).resources
        assert listed.name == said["response_id"]
        for more in (client.list_resources, client.list_prompts, client.list_tools):
            with pytest.raises(MCPError) as unknown:
                await more(cursor="2")
            assert unknown.value.code == types.INVALID_PARAMS
        assert listed.title == "Hi ## Not a heading"
        text = text_of(await client.read_resource(listed.uri))
        assert "> Hi\n> ## Not a heading" in text
        assert text.count("\n## ") == 2
        messages = json.loads(text_of(await client.read_resource(listed.uri + ".json")))
        assert [one["role"] for one in messages] == ["user", "assistant"] * 2
        templates = (await client.list_resource_templates()).resource_templates
        assert {one.uri_template.partition("{")[0] for one in templates} == {
            "antiphon://conversations/"
        }

    with serving() as server:
        talk(server, talking, mode)


@pytest.mark.parametrize(
    "uri",
    ["antiphon://conversations/none", "antiphon://others/x", "file:///etc/passwd", "x"],
)
def test_a_resource_that_is_none_is_an_error(uri: str) -> None:
    async def talking(client: Client) -> None:
        with pytest.raises(MCPError) as error:
            await client.read_resource(uri)
        assert error.value.code == types.INVALID_PARAMS

    with serving() as server:
        talk(server, talking)


def test_the_prompt_picks_the_latest_or_what_it_is_about() -> None:
    async def prompt(client: Client, **arguments: str) -> str:
        got = await client.get_prompt("continue_where_we_left_off", arguments)
        (message,) = got.messages
        assert isinstance(message.content, types.TextContent)
        return message.content.text

    async def talking(client: Client) -> None:
        (listed,) = (await client.list_prompts()).prompts
        assert listed.name == "continue_where_we_left_off"
        assert "There are no conversations yet." in await prompt(client)
        cat = await call(client, "stateful_chat", prompt="The cat is called Whiskers.")
        dog = await call(client, "stateful_chat", prompt="The dog is called Rex.")
        latest = await prompt(client)
        assert f"Go on with `{dog['response_id']}`" in latest
        assert "> The dog is called Rex." in latest
        assert cat["response_id"] in latest
        assert f"Go on with `{cat['response_id']}`" in await prompt(client, about="whiskers")
        assert "Ask me which one" in await prompt(client, about="elephants")
        with pytest.raises(MCPError):
            await client.get_prompt("other", {})

    with serving() as server:
        talk(server, talking)


class Broken(MemoryStore):
    """A store with a mistake in it."""

    async def turn(self, tenant: str, response_id: str) -> StoredTurn | None:
        raise RuntimeError("secret words")

    async def head(self, tenant: str, response_id: str) -> Head | None:
        raise RuntimeError("secret words")


def test_an_internal_error_is_logged_and_shown_without_details() -> None:
    async def broken() -> Broken:
        return Broken()

    async def talking(client: Client) -> None:
        said = await tool_error(client, "retrieve_stateful_response", response_id="resp_1")
        assert said == "The server failed on this call. Tell the person."
        with pytest.raises(MCPError) as error:
            await client.read_resource("antiphon://conversations/resp_1")
        assert error.value.message == "The server failed on this request."

    with serving(store=broken) as server:
        talk(server, talking)
        assert len(server.logged_errors) == 2
        assert "RuntimeError: secret words" in server.logged_errors[0]
        server.logged_errors.clear()


def test_nothing_of_it_is_kept_for_others_to_see() -> None:
    async def talking(client: Client) -> None:
        listed = await client.list_resources()
        assert (listed.cache_scope, listed.ttl_ms) == ("private", 0)

    with serving() as server:
        talk(server, talking)
        assert server.run(response_ids(server.store)) == []
