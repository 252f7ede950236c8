"""A database fails under nodes at work: what was acknowledged is there, and they come back."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from support.http_server import Address
from support.node_cluster import NodeCluster, Stream, node_cluster, started
from support.postgres_server import USER, NoPostgresError, running
from support.severable_link import severable_link
from support.small_disk import SmallDisk, small_disk

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

    def crash(self) -> None:
        """End it as a power cut does: what was committed is in its write-ahead log alone."""
        pid, *_ = (self._folder / "data" / "postmaster.pid").read_text().split()
        os.kill(int(pid), signal.SIGQUIT)
        self.stop()

    def terminate_connections(self) -> None:
        self.execute(_TERMINATE)

    def execute(self, *statements: str) -> None:
        async def run() -> None:
            connection = await asyncpg.connect(self.uri)
            try:
                for statement in statements:
                    await connection.execute(statement)
            finally:
                await connection.close()

        asyncio.run(run())


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

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

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
    with Load(nodes.proxy) as load:
        for _ in range(8):
            load.wait_for_more(nodes, 20)
            database.terminate_connections()
        load.wait_for_more(nodes, 20)
        assert_nothing_is_lost(nodes, load)


@pytest.mark.parametrize("end", [Database.stop, Database.crash])
def test_database_that_is_started_again_under_load_loses_nothing(
    nodes: NodeCluster, database: Database, end: Callable[[Database], None]
) -> None:
    with Load(nodes.proxy) as load:
        load.wait_for_more(nodes, 20)
        end(database)
        nodes.wait_until(lambda: load.statuses[503] > 0)
        for node in nodes.nodes:
            nodes.wait_until(lambda node=node: node.get("/readyz").status == 503)  # type: ignore[misc]
        database.start()
        load.wait_for_more(nodes, 20)
        for node in nodes.nodes:
            nodes.wait_until(lambda node=node: node.get("/readyz").status == 200)  # type: ignore[misc]
        assert_nothing_is_lost(nodes, load)


def test_node_that_is_cut_off_from_the_database_answers_503_and_comes_back(
    tmp_path: Path, database: Database
) -> None:
    with (
        severable_link(database.uri) as link,
        node_cluster(tmp_path, 3, store=database.uri, other_ways={2: link.uri}) as nodes,
        Load(nodes.proxy) as load,
    ):
        load.wait_for_more(nodes, 20)
        *others, cut = nodes.nodes
        question = "count to 2 gate:cut"
        background = cut.respond(question, background=True).json["id"]
        hanging = started(cut, "hang here")
        nodes.wait_until(lambda: len(nodes.upstream.requests_of(question)) == 1)
        link.cut()
        nodes.wait_until(lambda: cut.get("/readyz").status == 503)
        assert cut.respond("Is anybody there?").status == 503
        # The others go on, and have its turns as soon as its lease is over.
        nodes.wait_until(lambda: len(nodes.upstream.requests_of(question)) == 2)
        ended = others[0].get(f"/v1/responses/{hanging}").json
        assert ended["error"]["code"] == "interrupted"
        assert [one.get("/readyz").status for one in others] == [200, 200]
        link.mend()
        nodes.wait_until(lambda: cut.get("/readyz").status == 200)
        nodes.upstream.open("cut")
        path = f"/v1/responses/{background}"
        nodes.wait_until(lambda: cut.get(path).json["status"] == "completed")
        assert cut.get(path).body == others[1].get(path).body
        load.wait_for_more(nodes, 20)
        assert_nothing_is_lost(nodes, load)
        assert load.statuses[503]


@pytest.fixture(params=["sqlite", "postgres"])
def small_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[SmallDisk, str]]:
    """A small disk, and a store whose words are there."""
    # Where another user may look, as which PostgreSQL runs for root.
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        with small_disk(Path(folder, "disk"), 64) as disk:
            if request.param == "sqlite":
                yield disk, f"sqlite:{disk.folder}/antiphon.db"
                return
            made: Database = request.getfixturevalue("database")
            space = disk.folder / "tablespace"
            space.mkdir()
            if os.geteuid() == 0:
                shutil.chown(space, USER)
            made.execute(
                f"CREATE TABLESPACE small LOCATION '{space}'",
                "CREATE DATABASE small TABLESPACE small",
            )
            yield disk, urlunsplit(urlsplit(made.uri)._replace(path="/small"))


def test_full_disk_refuses_turns_until_there_is_room_and_loses_nothing(
    tmp_path: Path, small_store: tuple[SmallDisk, str]
) -> None:
    disk, store = small_store
    with node_cluster(tmp_path, store=store) as nodes, Load(nodes.proxy) as load:
        load.wait_for_more(nodes, 20)
        disk.fill()
        nodes.wait_until(lambda: load.statuses[503] > CLIENTS)
        for node in nodes.nodes:
            nodes.wait_until(lambda node=node: node.get("/readyz").status == 503)  # type: ignore[misc]
        # What is there is still read.
        name, _ = load.acknowledged[-1]
        assert nodes.proxy.get(f"/v1/responses/{name}").status == 200
        disk.make_room()
        load.wait_for_more(nodes, 20)
        for node in nodes.nodes:
            nodes.wait_until(lambda node=node: node.get("/readyz").status == 200)  # type: ignore[misc]
        assert_nothing_is_lost(nodes, load)


def status_at(node: Address, response_id: str) -> str:
    answer = node.get(f"/v1/responses/{response_id}")
    assert answer.status == 200, answer.body
    return str(answer.json["status"])


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
        nodes.wait_until(lambda: status_at(other, hanging) == "failed")
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
