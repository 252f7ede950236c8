"""The node listener: a private socket, and what killed servers leave of theirs."""

from __future__ import annotations

import asyncio
import socket
import sys
import tempfile
from pathlib import Path

import pytest

from antiphon.cli.node_listener import NodeListener

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="It has no Unix sockets.")


def test_folder_of_a_killed_server_is_removed_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    dead, starting = tmp_path / "antiphon-node-dead", tmp_path / "antiphon-node-starting"
    dead.mkdir()
    starting.mkdir()
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(dead / "node.sock"))
    with asyncio.Runner() as runner:
        living, listener = NodeListener(), NodeListener()
        address = runner.run(living.start(asyncio.Protocol))
        assert address is not None
        socket_path = Path(address.removeprefix("unix:"))
        assert socket_path.parent.stat().st_mode & 0o777 == 0o700
        runner.run(listener.start(asyncio.Protocol))
        assert not dead.exists()
        assert starting.exists()
        assert socket_path.exists()
        living.stop()
        listener.stop()
    assert list(tmp_path.glob("antiphon-node-*")) == [starting]
