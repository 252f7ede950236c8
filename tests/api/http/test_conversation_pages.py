"""The items of long conversations over HTTP, page by page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from antiphon.models.scripted import ScriptedModel
from antiphon.stores.memory.store import MemoryStore
from antiphon.turn.store_protocols import Head, StoredTurn, Window
from support.http_server import ThreadServer, serving


class Counting(MemoryStore):
    """Counts the turns that are read of chains."""

    read = 0

    async def window(self, head: Head, window: Window) -> list[StoredTurn]:
        found = await super().window(head, window)
        self.read += len(found)
        return found


def begun(server: ThreadServer, turns: int) -> str:
    """A conversation of turns with one to three items each; its path."""
    path = f"/v1/conversations/{server.post('/v1/conversations').json['id']}"
    for number in range(turns):
        items = [{"role": "user", "content": f"{number}"}, {"role": "user", "content": "And?"}]
        if number % 3:
            server.post(
                "/v1/responses", input=items[: number % 3], conversation=path.rpartition("/")[2]
            )
        else:
            server.post(f"{path}/items", items=items[:1])
    return path


def paged(server: ThreadServer, path: str, query: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    after, more = "", True
    while more:
        page = server.get(f"{path}/items?{query}{after}").json
        assert page["data"] or not found
        found += page["data"]
        after, more = f"&after={page['last_id']}", page["has_more"]
    return found


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_pages_of_any_size_give_the_whole(kind: str, tmp_path: Path) -> None:
    with serving(ScriptedModel(), tmp_path / "a.db" if kind == "sqlite" else None) as server:
        path = begun(server, 12)
        whole = server.get(f"{path}/items?order=asc&limit=100").json["data"]
        assert len(whole) == 4 * (1 + 2 + 3)
        for limit in (1, 2, 3, 7, 24, 25, 100):
            assert paged(server, path, f"order=asc&limit={limit}") == whole
            assert paged(server, path, f"limit={limit}") == whole[::-1]
        for erased in (whole[1], whole[2], whole[5]):
            server.request("DELETE", f"{path}/items/{erased['id']}")
            whole.remove(erased)
        for limit in (1, 2, 100):
            assert paged(server, path, f"order=asc&limit={limit}") == whole
        for item in whole:
            assert server.get(f"{path}/items/{item['id']}").json == item


def test_a_page_reads_no_more_turns_than_it_shows_items() -> None:
    store = Counting()

    async def made() -> Counting:
        return store

    with serving(ScriptedModel(), made) as server:
        path = begun(server, 40)
        store.read = 0
        last = server.get(f"{path}/items?limit=4").json["data"][-1]
        assert 0 < store.read <= 5
        store.read = 0
        server.get(f"{path}/items?limit=4&after={last['id']}")
        assert 0 < store.read <= 6
        store.read = 0
        server.get(f"{path}/items/{last['id']}")
        assert store.read == 1
