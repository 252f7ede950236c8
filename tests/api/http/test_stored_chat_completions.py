"""Stored chat completions: what is sent is stored once, shown, continued and erased."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.api.http.app import create_app
from antiphon.errors import ModelError
from antiphon.models.scripted import ScriptedModel, call, calls, fail, say
from antiphon.stores.memory.store import MemoryApiKeyStore
from support.example_counts import examples
from support.http_server import Answer, ThreadServer, serving
from support.keyed_server import serving_with_keys

Json = dict[str, Any]
PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk"
    "YPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)
PATH = "/v1/chat/completions"


def user(text: Any) -> Json:
    return {"role": "user", "content": text}


def assistant(text: Any, **fields: Any) -> Json:
    return {"role": "assistant", "content": text, **fields}


def numbered(count: int) -> ScriptedModel:
    return ScriptedModel([say(f"answer {number}") for number in range(count)])


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    return None if request.param == "memory" else tmp_path / "a.db"


def complete(server: ThreadServer, *messages: Json, **fields: Any) -> Answer:
    answer = server.post(PATH, messages=list(messages), **{"store": True, **fields})
    assert answer.status == 200, answer.json
    return answer


def texts_of(server: ThreadServer, name: str) -> list[Any]:
    listed = server.get(f"{PATH}/{name}/messages?limit=100").json
    assert not listed["has_more"]
    return [(one["role"], one["content"]) for one in listed["data"]]


def stored_inputs(server: ThreadServer) -> list[list[str]]:
    """The texts of each stored turn's own input, oldest turn first."""
    turns = server.get("/v1/responses?limit=100&order=asc").json["data"]
    inputs = []
    for turn in turns:
        listed = server.get(f"/v1/responses/{turn['id']}/input_items?limit=100&order=asc").json
        inputs.append([one["content"][0]["text"] for one in listed["data"]])
    return inputs


def test_nothing_is_stored_by_default(store: Path | None) -> None:
    with serving(numbered(2), store) as server:
        server.post(PATH, messages=[user("Hi")])
        server.post(PATH, messages=[user("Hi")], store=False)
        assert server.stored_count() == 0
        assert server.get(PATH).json["data"] == []


@pytest.mark.parametrize("stream", [False, True])
def test_a_conversation_is_one_chain_with_each_word_once(store: Path | None, stream: bool) -> None:
    with serving(numbered(3), store) as server:
        history = [{"role": "system", "content": "Be brief."}]
        for number in range(3):
            history.append(user(f"question {number}"))
            complete(server, *history, stream=stream)
            history.append(assistant(f"answer {number}"))
        assert stored_inputs(server) == [
            ["Be brief.", "question 0"],
            ["question 1"],
            ["question 2"],
        ]
        newest = server.get(f"{PATH}?order=desc").json["data"][0]["id"]
        assert texts_of(server, newest) == [(one["role"], one["content"]) for one in history[:-1]]
        found = server.get("/v1/conversations?query=question").json["data"]
        assert len(found) == 3


def test_other_interfaces_show_and_continue_it(store: Path | None) -> None:
    with serving(numbered(3), store) as server:
        name = complete(server, user("Hi")).json["id"]
        shown = server.get(f"/v1/responses/{name}").json
        assert shown["id"] == name.replace("chatcmpl-", "resp_")
        assert shown["output"][0]["content"][0]["text"] == "answer 0"
        continued = server.respond("And?", previous_response_id=name).json
        assert continued["previous_response_id"] == shown["id"]
        context = server.get(f"/v1/responses/{continued['id']}/context").json["messages"]
        assert context == [user("Hi"), assistant("answer 0"), user("And?")]
        assert server.request("DELETE", f"/v1/responses/{name}").status == 200
        assert server.get(f"{PATH}/{name}").error["code"] == "chat_completion_not_found"


def test_a_stored_completion_is_shown_as_it_was(store: Path | None) -> None:
    tool = {"name": "f", "parameters": {"type": "object"}}
    fields = {
        "metadata": {"a": "b"},
        "tools": [{"type": "function", "function": tool}],
        "temperature": 0.5,
        "user": "ann",
    }
    with serving(ScriptedModel([calls(call("f", {"x": 1}))]), store) as server:
        made = complete(server, user("Hi"), **fields).json
        shown = server.get(f"{PATH}/{made['id']}").json
        assert {name: shown[name] for name in made} == made
        assert shown["metadata"] == {"a": "b"}
        assert shown["tools"] == [{"type": "function", "function": tool}]
        assert (shown["temperature"], shown["input_user"]) == (0.5, "ann")


def test_lists_by_model_and_metadata(store: Path | None) -> None:
    models = {"one": numbered(3), "two": numbered(3)}
    with serving(models, store) as server:
        made = [
            complete(server, user(f"Hi {number}"), model=model, metadata=metadata).json["id"]
            for number, (model, metadata) in enumerate(
                [("one", {"a": "b"}), ("two", {"a": "b", "c": "d"}), ("one", {})]
            )
        ]
        server.respond("Not a chat completion.", model="one")

        def listed(query: str = "") -> list[str]:
            return [one["id"] for one in server.get(f"{PATH}{query}").json["data"]]

        assert listed() == made
        assert listed("?order=desc") == made[::-1]
        assert listed("?model=one") == [made[0], made[2]]
        assert listed("?metadata[a]=b") == made[:2]
        assert listed("?metadata[a]=b&metadata[c]=d") == [made[1]]
        assert listed(f"?after={made[0]}&limit=1") == [made[1]]
        page = server.get(f"{PATH}?limit=2").json
        assert (page["first_id"], page["last_id"], page["has_more"]) == (made[0], made[1], True)
        assert server.get(f"{PATH}?after=chatcmpl-0").error["code"] == "cursor_not_found"


def test_metadata_can_be_changed(store: Path | None) -> None:
    with serving(numbered(1), store) as server:
        name = complete(server, user("Hi"), metadata={"a": "b"}).json["id"]
        assert server.post(f"{PATH}/{name}", metadata={"c": "d"}).json["metadata"] == {"c": "d"}
        assert server.get(f"{PATH}/{name}").json["metadata"] == {"c": "d"}
        assert server.get(f"/v1/responses/{name}").json["metadata"] == {"c": "d"}
        assert server.post(f"{PATH}/{name}", metadata=None).json["metadata"] == {}
        assert server.post(f"{PATH}/{name}").error["param"] == "metadata"
        assert server.post(f"{PATH}/{name}", metadata={"a": 1}).json["metadata"] == {"a": "1"}
        assert server.post(f"{PATH}/{name}", metadata=["a"]).status == 400


def test_what_is_deleted_is_no_beginning_of_anything(store: Path | None) -> None:
    with serving(numbered(4), store) as server:
        first = complete(server, user("one")).json["id"]
        history = [user("one"), assistant("answer 0"), user("two")]
        second = complete(server, *history).json["id"]
        assert server.request("DELETE", f"{PATH}/{first}").json == {
            "id": first,
            "object": "chat.completion.deleted",
            "deleted": True,
        }
        assert server.get(f"{PATH}/{first}").status == 404
        assert texts_of(server, second) == [("user", "two")]
        history += [assistant("answer 1"), user("three")]
        third = complete(server, *history).json["id"]
        # It was sent again, so that it is there again.
        assert texts_of(server, third) == [(one["role"], one["content"]) for one in history]


def test_a_failed_completion_is_none(store: Path | None) -> None:
    with serving(ScriptedModel([fail(ModelError("It broke.")), "Hello"]), store) as server:
        failed = server.post(PATH, messages=[user("Hi")], store=True)
        assert failed.status == 502
        assert server.get(PATH).json["data"] == []
        name = failed.error["response_id"].replace("resp_", "chatcmpl-")
        assert server.get(f"{PATH}/{name}").status == 404
        complete(server, user("Hi"))
        assert len(server.get(PATH).json["data"]) == 1


def test_tools_parts_and_names_come_back(store: Path | None) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    model = ScriptedModel([calls(call("f", {"x": 1}, call_id="c1")), "Done", "Bye"])
    image = {"type": "image_url", "image_url": {"url": PIXEL, "detail": "low"}}
    with serving(model, store) as server:
        history: list[Json] = [
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "Look"}, image], "name": "Ann"},
        ]
        asked = complete(server, *history, tools=[tool]).json["choices"][0]["message"]
        # Clients send arguments back with other white space.
        arguments = {"name": "f", "arguments": '{ "x": 1 }'}
        made = [{"id": "c1", "type": "function", "function": arguments}]
        history += [
            assistant(None, tool_calls=made),
            {"role": "tool", "tool_call_id": "c1", "content": "3"},
        ]
        complete(server, *history, tools=[tool])
        history += [assistant("Done"), user("Bye")]
        name = complete(server, *history, tools=[tool]).json["id"]
        assert len(server.get(PATH).json["data"]) == 3
        turns = server.get("/v1/responses?limit=100").json["data"]
        assert [one["previous_response_id"] is None for one in turns] == [False, False, True]
        shown = server.get(f"{PATH}/{name}/messages").json["data"]
        assert shown[0]["role"] == "developer"
        assert (shown[1]["name"], shown[1]["content"]) == ("Ann", "Look")
        assert shown[1]["content_parts"] == history[1]["content"]
        assert shown[2]["tool_calls"] == asked["tool_calls"]
        assert shown[3]["tool_call_id"] == "c1"
        assert [one["content"] for one in shown[3:]] == ["3", "Done", "Bye"]
        assert len({one["id"] for one in shown}) == len(shown)
        page = server.get(f"{PATH}/{name}/messages?limit=2&order=desc").json
        assert [one["content"] for one in page["data"]] == ["Bye", "Done"]
        after = server.get(f"{PATH}/{name}/messages?after={shown[3]['id']}").json["data"]
        assert after == shown[4:]


def test_the_server_may_store_all(store: Path | None) -> None:

    keys = MemoryApiKeyStore(lambda: 0.0)
    site = partial(create_app, keys=keys, store_chat_completions=True)
    with serving(numbered(3), store, site) as server:
        server.post(PATH, messages=[user("one")])
        server.post(PATH, messages=[user("two")], store=False)
        server.post(PATH, input="three")
        assert stored_inputs(server) == [["one"], ["three"]]


def test_a_deferred_one_is_fetched_as_long_as_it_is_stored(store: Path | None) -> None:
    with serving(numbered(1), store) as server:
        begun = complete(server, user("Hi"), deferred=True).json["request_id"]
        path = f"/v1/chat/deferred-completion/{begun}"
        answer = server.get(path)
        while answer.status == 202:
            answer = server.get(path)
        assert answer.json["id"] == begun
        assert server.get(f"{PATH}/{begun}").json["choices"] == answer.json["choices"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_that_is_repeated_with_its_key_is_one(store: Path | None, stream: bool) -> None:
    with serving(numbered(2), store) as server:
        body = {"messages": [user("Hi")], "store": True, "stream": stream}
        headers = {"idempotency-key": "k"}
        first, second = (server.request("POST", PATH, body, headers) for _ in range(2))
        assert first.status == second.status == 200
        assert first.body == second.body
        assert len(server.get(PATH).json["data"]) == 1
        other = server.request("POST", PATH, {**body, "user": "ann"}, headers)
        assert other.error["code"] == "idempotency_key_in_use"
        # Of a completion that is not stored nothing is known.
        server.request("POST", PATH, {**body, "store": False}, {"idempotency-key": "l"})


def test_a_failure_that_is_repeated_is_the_same(store: Path | None) -> None:
    with serving(ScriptedModel([fail(ModelError("It broke."))]), store) as server:
        body = {"messages": [user("Hi")], "store": True}
        headers = {"idempotency-key": "k"}
        first = server.request("POST", PATH, body, headers)
        assert (first.status, first.error["message"]) == (502, "It broke.")
        assert server.request("POST", PATH, body, headers).json == first.json


def test_tenants_do_not_share_beginnings() -> None:
    with serving_with_keys(numbered(4)) as server:
        one, other = server.client("acme"), server.client("umbrella")
        begun = {"messages": [user("Hi")], "store": True}
        name = one.request("POST", PATH, begun).json["id"]
        for path in (f"{PATH}/{name}", f"{PATH}/{name}/messages"):
            assert other.get(path).status == 404
        for method in ("POST", "DELETE"):
            assert other.request(method, f"{PATH}/{name}", {"metadata": {}}).status == 404
        history = [user("Hi"), assistant("answer 0"), user("And?")]
        mine = other.request("POST", PATH, {"messages": history, "store": True}).json["id"]
        shown = other.get(f"/v1/responses/{mine}").json
        assert shown["previous_response_id"] is None
        assert other.get(PATH).json["data"][0]["id"] == mine
        assert one.get(f"{PATH}/{name}").status == 200


# Any sequence of whole histories


class Histories:
    """A client that holds histories itself, and what a server has to store of them."""

    def __init__(self, server: ThreadServer, model: ScriptedModel) -> None:
        self._server = server
        self._model = model
        self.histories: list[list[Json]] = [[]]
        self._known: set[tuple[str, ...]] = {()}
        self.stored = 0
        self.sent: dict[str, list[Any]] = {}

    def send(self, history: list[Json]) -> None:
        """Send a history, whose answer belongs to it from then on."""
        answer = complete(self._server, *history)
        name = answer.json["id"]
        texts = tuple(one["content"] for one in history)
        known = max(n for n in range(len(texts) + 1) if texts[:n] in self._known)
        self.stored += len(texts) - known
        words = answer.json["choices"][0]["message"]["content"]
        self._known.add((*texts, words))
        self.histories.append([*history, assistant(words)])
        self.sent[name] = [(one["role"], one["content"]) for one in history]
        assert self._model.context() == history


STEPS = st.lists(
    st.tuples(
        st.sampled_from(("continue", "regenerate", "edit", "begin")),
        st.integers(0, 20),
        st.integers(0, 20),
        st.sampled_from(("a", "b", "a question")),
    ),
    min_size=1,
    max_size=6,
)


def play(client: Histories, steps: list[tuple[str, int, int, str]]) -> None:
    for kind, which, where, text in steps:
        history = client.histories[which % len(client.histories)]
        if kind == "begin" or not history:
            client.send([{"role": "system", "content": text}, user(text)])
        elif kind == "continue":
            client.send([*history, user(text)])
        elif kind == "regenerate":
            client.send(history[:-1])
        else:
            position = where % len(history)
            edited = {**history[position], "content": f"{text} edited"}
            rest = history[position + 1 :] if where % 2 else []
            kept = [*history[:position], edited, *rest]
            client.send(kept if kept[-1]["role"] == "user" else [*kept, user("Go on.")])


@pytest.fixture(scope="module", params=["memory", "sqlite"])
def shared(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[ThreadServer, ScriptedModel]]:
    path = tmp_path_factory.mktemp("stores") / "a.db" if request.param == "sqlite" else None
    # Two answers, so that histories that are one by chance are told apart from others.
    model = ScriptedModel(["yes", "no"] * 2000)
    with serving(model, path) as server:
        yield server, model


@settings(max_examples=examples(8), deadline=None)
@given(steps=STEPS)
def test_each_message_is_stored_once_and_comes_back(
    shared: tuple[ThreadServer, ScriptedModel], steps: list[tuple[str, int, int, str]]
) -> None:
    server, model = shared
    for one in server.get("/v1/responses?limit=100").json["data"]:
        server.request("DELETE", f"/v1/responses/{one['id']}")
    client = Histories(server, model)
    play(client, steps)
    assert sum(map(len, stored_inputs(server))) == client.stored
    for name, messages in client.sent.items():
        assert texts_of(server, name) == messages


def test_a_history_with_functions_of_old_is_one_chain(store: Path | None) -> None:
    made_calls = [calls(call("lookup", {"c": number})) for number in (1, 2)]
    model = ScriptedModel([*made_calls, say("Done.")])
    fields: Json = {"functions": [{"name": "lookup"}]}
    with serving(model, store) as server:
        history: list[Json] = [user("Hi")]
        for output in ("one", "two", None):
            answer = complete(server, *history, **fields)
            made = answer.json["choices"][0]["message"]
            assert ("function_call" in made) == (output is not None)
            history.append(made)
            if output is not None:
                history.append({"role": "function", "name": "lookup", "content": output})
        turns = server.get("/v1/responses?limit=100&order=asc").json["data"]
        types = []
        for turn in turns:
            listed = server.get(f"/v1/responses/{turn['id']}/input_items?order=asc").json["data"]
            types.append([one["type"] for one in listed])
        assert types == [["message"], ["function_call_output"], ["function_call_output"]]
        chain = [turn["previous_response_id"] for turn in turns]
        assert chain == [None, turns[0]["id"], turns[1]["id"]]
