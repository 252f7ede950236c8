"""Imports at several nodes: each answers for the jobs of all, and for those of nodes that died."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.chat_exports import claude_chat
from support.node_cluster import node_cluster

pytestmark = pytest.mark.slow

CHATS = 4_000


def export_file(count: int) -> bytes:
    """Chats that have ids of their own."""
    text = json.dumps(claude_chat())
    return json.dumps(
        [json.loads(text.replace('"uuid": "', f'"uuid": "{number}-')) for number in range(count)]
    ).encode()


def test_any_node_answers_for_an_import_and_says_where_it_was_interrupted(tmp_path: Path) -> None:
    with node_cluster(tmp_path) as cluster:
        runner, other = cluster.nodes[:2]
        job = runner.request("POST", "/v1/import", export_file(1)).json
        path = f"/v1/import/{job['id']}"
        cluster.wait_until(lambda: other.get(path).json["status"] == "completed")
        # The reports come from the node that has them.
        assert other.get(path).json == runner.get(path).json
        assert len(other.get(path).json["report"]) == 1

        long = runner.request("POST", "/v1/import", export_file(CHATS)).json
        long_path = f"/v1/import/{long['id']}"
        cluster.wait_until(lambda: other.get(long_path).json["chats"]["done"] > 0)
        assert other.get(long_path).json["status"] == "running"
        # What other processes know is at most a second old.
        cluster.wait_until(lambda: other.get(long_path).json["chats"]["done"] > CHATS // 20)
        runner.kill()
        interrupted = other.get(long_path).json
        assert (interrupted["status"], interrupted["error"]["code"]) == (
            "failed",
            "import_interrupted",
        )
        done = interrupted["chats"]["done"]
        assert 0 <= done < CHATS
        assert interrupted["counts"]["imported"] <= done
        finished = other.get(path).json
        assert (finished["status"], finished["counts"]["imported"], finished["report"]) == (
            "completed",
            1,
            [],
        )
        missing = other.get("/v1/import/import_" + "0" * 32)
        assert (missing.status, missing.error["code"]) == (404, "import_not_found")
