"""PostgreSQL fails under nodes at work: what was acknowledged is there, and they come back."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import asyncpg
import pytest

from support.http_server import Address
from support.node_cluster import NodeCluster, Stream, node_cluster, started
from support.postgres_server import NoPostgresError, running

pytestmark = pytest.mark.slow
CLIENTS = 6
_TERMINATE = """
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'antiphon'
"""


class Database:
    """A PostgreSQL server of this test's own, which can be stopped and started."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._server = ExitStack()
        self.uri = ""

    def start(self) -> None:
        self.uri = self._server.enter_context(running(self._folder))

    def stop(self) -> None:
        self._server.close()

    def terminate_connections(self) -> None:
        async def terminate() -> None:
            connection = await asyncpg.connect(self.uri)
            await connection.execute(_TERMINATE)
            await connection.close()

        asyncio.run(terminate())


@pytest.fixture
def database() -> Iterator[Database]:
    # Where another user may look, as which PostgreSQL runs for root.
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        made = Database(Path(folder, "postgres"))
        try:
            made.start()
        except NoPostgresError as error:
            pytest.skip(str(error))
        try:
            yield made
        finally:
            made.stop()


@pytest.fixture
def nodes(tmp_path: Path, database: Database) -> Iterator[NodeCluster]:
    with node_cluster(tmp_path, store=database.uri) as started_nodes:
        yield started_nodes


class Load:
    """Clients that continue their conversations through the proxy, whatever they are answered."""

    def __init__(self, address: Address) -> None:
        self.statuses: Counter[int] = Counter()
        self.acknowledged: list[tuple[str, int]] = []
        self._address = address
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def _run(self) -> None:
        previous, count = None, 1
        while not self._is_over.is_set():
            answer = self._address.respond("on", previous_response_id=previous)
            self.statuses[answer.status] += 1
            if answer.status == 200:
                previous, count = answer.json["id"], count + 2
                self.acknowledged.append((str(previous), count - 2))
                if count > 20:
                    previous, count = None, 1

    def stop(self) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def wait_for_more(self, nodes: NodeCluster, count: int) -> None:
        """Wait until so many more turns have been acknowledged."""
        wanted = len(self.acknowledged) + count
        nodes.wait_until(lambda: len(self.acknowledged) >= wanted)


def assert_nothing_is_lost(nodes: NodeCluster, load: Load) -> None:
    """All that was acknowledged is there, with all that went before; the rest was a 503."""
    load.stop()
    assert set(load.statuses) <= {200, 503}
    for name, count in load.acknowledged:
        response = nodes.proxy.get(f"/v1/responses/{name}").json
        assert response["status"] == "completed"
        assert response["output"][0]["content"][0]["text"] == f"{count} messages"


def test_connections_that_are_all_cut_under_load_lose_nothing(
    nodes: NodeCluster, database: Database
) -> None:
    load = Load(nodes.proxy)
    for _ in range(8):
        load.wait_for_more(nodes, 20)
        database.terminate_connections()
    load.wait_for_more(nodes, 20)
    assert_nothing_is_lost(nodes, load)


def test_database_that_is_started_again_under_load_loses_nothing(
    nodes: NodeCluster, database: Database
) -> None:
    load = Load(nodes.proxy)
    load.wait_for_more(nodes, 20)
    database.stop()
    nodes.wait_until(lambda: load.statuses[503] > 0)
    for node in nodes.nodes:
        nodes.wait_until(lambda node=node: node.get("/readyz").status == 503)  # type: ignore[misc]
    database.start()
    load.wait_for_more(nodes, 20)
    for node in nodes.nodes:
        nodes.wait_until(lambda node=node: node.get("/readyz").status == 200)  # type: ignore[misc]
    assert_nothing_is_lost(nodes, load)


def test_node_that_was_paused_for_longer_than_its_lease_stops_what_others_have(
    nodes: NodeCluster,
) -> None:
    paused, other = nodes.nodes
    question = "count to 2 gate:paused"
    hanging = started(paused, "hang here")
    background = paused.respond(question, background=True).json["id"]
    nodes.wait_until(lambda: len(nodes.upstream.requests_of(question)) == 1)
    reader = Stream(paused, f"/v1/responses/{hanging}?stream=true")
    reader.read_events(4)
    os.kill(paused.process.pid, signal.SIGSTOP)
    try:
        nodes.wait_until(lambda: other.get(f"/v1/responses/{hanging}").json["status"] == "failed")
        nodes.wait_until(lambda: len(nodes.upstream.requests_of(question)) == 2)
    finally:
        os.kill(paused.process.pid, signal.SIGCONT)
    # Its readers do not wait for what will never be stored.
    assert b"turn_taken_over" in reader.read_rest()
    nodes.upstream.open("paused")
    path = f"/v1/responses/{background}"
    nodes.wait_until(lambda: other.get(path).json["status"] == "completed")
    assert paused.get(path).body == other.get(path).body
    ended = other.get(f"/v1/responses/{hanging}").json
    assert ended["error"]["code"] == "interrupted"
    nodes.wait_until(lambda: paused.respond("again").status == 200)
    assert "goes on as a new one" in nodes.log()
