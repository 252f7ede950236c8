"""At 100,000 turns no request holds up the event loop for more than some milliseconds.

The loop's thread is timed in each callback, by its CPU time: a busy machine makes a callback take
longer, and cost up to twice as much, so the limit is twice the 5 ms that none should take. Every
request is made several times and its cheapest run counts, so that a page fault does not.
"""

from __future__ import annotations

import asyncio
import gc
import re
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import pytest
from bench.large_store import large_store

from antiphon.api.http.routes import ROUTES
from antiphon.core.deltas import Delta, Finish, OutputTextDelta
from antiphon.core.ids import new_conversation_id
from antiphon.core.turns import ConversationRecord
from antiphon.models.scripted import ScriptedModel
from antiphon.turn.protocols import ModelCall
from support.http_server import ThreadServer, serving

pytestmark = pytest.mark.slow

_SECONDS = 0.010
_ROUNDS = 4


class Filled(msgspec.Struct):
    """A filled store: its file, and ids in it.

    ``long`` is a chain of 10,000 turns, which a conversation has; ``branched`` a turn with 3,000
    branches, ``branch`` one of them; ``plain`` are ends of chains of 20 turns.
    """

    path: Path
    long: list[str]
    conversation: str
    branched: str
    branch: str
    plain: list[str]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Filled:
    path = tmp_path_factory.mktemp("large") / "turns.db"
    with large_store(path) as store:
        conversation = ConversationRecord(new_conversation_id(), 1.0)
        ((*long,),) = store.add_chains(1, 10_000, conversation.id)
        store.add_conversation(conversation, long[-1])
        for _ in range(3_000):
            store.add_conversation(ConversationRecord(new_conversation_id(), 2.0), None)
        ((branched,),) = store.add_chains(1, 1)
        branches = store.add_branches(branched, 3_000)
        plain: list[str] = []
        for _ in range(10):
            plain += [chain[-1] for chain in store.add_chains(435, 20)]
    return Filled(path, long, conversation.id, branched, branches[7], plain)


class Watchdog:
    """The longest callback of one thread's event loop, in seconds of its CPU time."""

    def __init__(self) -> None:
        self.thread: threading.Thread | None = None
        self.longest = 0.0
        self.where = ""

    def run_callback(self, handle: asyncio.Handle) -> None:
        began = time.thread_time()
        _run(handle)
        taken = time.thread_time() - began
        if taken > self.longest and threading.current_thread() is self.thread:
            self.longest, self.where = taken, repr(handle)


_run = asyncio.Handle._run


def _run_watched(watchdog: Watchdog) -> Callable[[asyncio.Handle], None]:
    # A function, which as an attribute of the class becomes a method.
    def run(handle: asyncio.Handle) -> None:
        watchdog.run_callback(handle)

    return run


async def current_thread() -> threading.Thread:
    return threading.current_thread()


class QuietModel(ScriptedModel):
    """Answers without a look at the messages: decoding those is not the server's work."""

    async def generate(self, call: ModelCall) -> AsyncGenerator[Sequence[Delta], None]:
        yield [OutputTextDelta("Yes."), Finish("stop")]

    async def count_tokens(self, call: ModelCall) -> int | None:
        return None


@pytest.fixture(scope="module")
def watched(filled: Filled) -> Iterator[tuple[ThreadServer, Watchdog]]:
    watchdog = Watchdog()
    with pytest.MonkeyPatch.context() as patch:
        # The handles of uvloop cannot be watched.
        patch.setattr("support.http_server.uvloop.new_event_loop", asyncio.SelectorEventLoop)
        patch.setattr(asyncio.Handle, "_run", _run_watched(watchdog))
        with serving(QuietModel(), filled.path) as server:
            watchdog.thread = server.run(current_thread())
            yield server, watchdog


#: Method, path, body. Names in braces are fields of ``Filled``; {plain} is another one each time.
_Request: TypeAlias = tuple[str, str, dict[str, Any] | None]


def _requests() -> list[_Request]:
    requests: list[_Request] = []
    for turn in ("{plain}", "{middle}", "{end}", "{branched}", "{branch}"):
        requests += [
            ("POST", "/v1/responses", {"input": "Hi", "previous_response_id": turn}),
            ("POST", "/v1/responses/input_tokens", {"input": "Hi", "previous_response_id": turn}),
            *[
                ("GET", f"/v1/responses/{turn}{rest}", None)
                for rest in ("", "?stream=true", "/input_items?limit=100", "/context")
            ],
            ("POST", f"/v1/responses/{turn}/cancel", None),
            ("GET", f"/v1/chat/completions/{turn}", None),
            ("GET", f"/v1/chat/completions/{turn}/messages", None),
            ("POST", f"/v1/chat/completions/{turn}", {"metadata": {"a": "b"}}),
            ("GET", f"/v1/chat/deferred-completion/{turn}", None),
        ]
    said = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "x"}] * 50
    requests += [
        ("POST", "/v1/responses", {"input": "Hi", "conversation": "{conversation}"}),
        ("POST", "/v1/responses", {"input": "Hi", "stream": True}),
        *[
            ("POST", "/v1/responses/compact", {"model": "scripted", "previous_response_id": turn})
            for turn in ("{plain}", "{end}")
        ],
        *[
            ("GET", f"/v1/responses?limit=100{more}", None)
            for more in ("", "&order=asc", "&status=cancelled", "&metadata[a]=c", "&after={middle}")
        ],
        ("POST", "/v1/chat/completions", {"messages": said, "store": True}),
        ("GET", "/v1/chat/completions?limit=100", None),
        ("GET", "/v1/models", None),
        ("GET", "/v1/models/scripted", None),
        ("GET", "/v1/language-models", None),
        ("GET", "/v1/language-models/scripted", None),
        ("GET", "/v1/api-key", None),
        ("POST", "/v1/tokenize-text", {"text": "Hi", "model": "scripted"}),
        ("POST", "/v1/conversations", {"metadata": {"a": "b"}}),
        ("GET", "/v1/conversations?limit=100", None),
        ("GET", "/v1/conversations?limit=100&order=asc", None),
        *[
            ("GET", f"/v1/conversations?limit=100&query={words}", None)
            for words in ("turn777", "common", "absent", "turn5+answer")
        ],
        ("GET", "/v1/conversations/{conversation}", None),
        ("POST", "/v1/conversations/{conversation}", {"metadata": {"a": "b"}}),
        (
            "POST",
            "/v1/conversations/{conversation}/items",
            {"items": [{"type": "message", "role": "user", "content": "Hi"}]},
        ),
        ("GET", "/v1/conversations/{conversation}/items?limit=100", None),
        ("GET", "/v1/conversations/{conversation}/items?limit=100&order=asc", None),
        ("GET", "/v1/conversations/{conversation}/items/{item}", None),
        ("DELETE", "/v1/conversations/{conversation}/items/{item}", None),
        ("POST", "/v1/shares", {"response_id": "{end}"}),
        ("GET", "/v1/shares", None),
        ("DELETE", "/v1/shares/none", None),
        ("POST", "/mcp", {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}),
        *[("GET", path, None) for path in ("/healthz", "/readyz", "/metrics", "/openapi.json")],
        ("GET", "/docs", None),
        ("DELETE", "/v1/responses/{plain}", None),
        ("DELETE", "/v1/chat/completions/{plain}", None),
        ("DELETE", "/v1/responses/{branched}", None),
        ("DELETE", "/v1/responses/{middle}", None),
        ("DELETE", "/v1/conversations/{conversation}", None),
    ]
    return requests


def test_no_request_holds_up_the_event_loop(
    filled: Filled, watched: tuple[ThreadServer, Watchdog]
) -> None:
    server, watchdog = watched
    plain = iter(filled.plain)
    blocked: list[str] = []
    gc.collect()
    gc.freeze()
    for method, path, body in _requests():
        taken: list[tuple[float, str]] = []
        for _ in range(_ROUNDS):
            values = {
                "plain": next(plain),
                "middle": filled.long[5_000],
                "end": filled.long[-1],
                "branched": filled.branched,
                "branch": filled.branch,
                "conversation": filled.conversation,
                "item": f"msg_{filled.long[7].removeprefix('resp_')}00",
            }
            gc.collect()
            watchdog.longest, watchdog.where = 0.0, ""
            answer = server.request(method, fill_in(path, values), fill_in(body, values))
            taken.append((watchdog.longest, f"{answer.status} {watchdog.where}"))
            if answer.status >= 400 or method == "DELETE":
                break
        seconds, where = min(taken)
        print(f"{seconds * 1e3:8.2f} ms  {method} {path} {where[:150]}")
        if seconds > _SECONDS:
            blocked.append(f"{method} {path} {str(body)[:80]}: {seconds * 1e3:.1f} ms in {where}")
    assert blocked == []


def fill_in(value: Any, values: dict[str, str]) -> Any:
    """A path or a body with ids in place of their names."""
    match value:
        case str():
            for name, text in values.items():
                value = value.replace(f"{{{name}}}", text)
            return value
        case dict():
            return {key: fill_in(one, values) for key, one in value.items()}
    return value


def test_every_endpoint_is_watched() -> None:
    asked = {
        (method, re.sub(r"\{\w+\}|(?<=models/)scripted|none", "{}", path.partition("?")[0]))
        for method, path, _ in _requests()
    }
    routes = {(route.method, re.sub(r"\{[^}]*\}", "{}", route.path)) for route in ROUTES}
    assert routes - asked == set()
