"""``model list`` and ``model pull``."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from support.command_line import PROGRAM, Command, environment
from support.pseudo_terminal import Terminal

WEIGHTS = b"GGUF" + bytes(3_000_000)


class _Hub(BaseHTTPRequestHandler):
    """A hub that has one file."""

    def do_HEAD(self) -> None:
        self._answer(b"")

    def do_GET(self) -> None:
        self._answer(WEIGHTS)

    def _answer(self, body: bytes) -> None:
        there = self.path == "/owner/repo/resolve/main/Tiny-1M.gguf"
        self.send_response(200 if there else 404)
        if there:
            self.send_header("etag", f'"{hashlib.sha256(WEIGHTS).hexdigest()}"')
            self.send_header("x-repo-commit", "0" * 40)
            self.send_header("content-length", str(len(WEIGHTS)))
        else:
            self.send_header("x-error-code", "EntryNotFound")
            self.send_header("content-length", "0")
        self.end_headers()
        if there:
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@contextmanager
def hub() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Hub) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def names(bare_antiphon: Command, *args: str) -> dict[str, bool]:
    """The listed models, and whether each is the default."""
    return {one["name"]: one["default"] for one in json.loads(bare_antiphon(*args, "--json").out)}


def test_list_shows_the_embedded_model_as_the_default(bare_antiphon: Command) -> None:
    (line,) = bare_antiphon("model", "list").out.splitlines()
    name, mark, kind, size, where = line.split("\t")
    assert (name, mark, kind) == ("smollm2", "default", "llama")
    assert size.endswith(" MB")
    assert where.endswith(".gguf")


def test_list_shows_configured_pulled_and_upstream_models(
    bare_antiphon: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pulled = tmp_path / "data" / "antiphon" / "models" / "o" / "r" / "Pulled-1B.gguf"
    pulled.parent.mkdir(parents=True)
    pulled.write_bytes(WEIGHTS)
    (tmp_path / "c.toml").write_text('[models.far]\nbase_url = "https://e.com/v1"')
    listing = ("model", "list", "--config", "c.toml")
    assert names(bare_antiphon, *listing) == {"smollm2": True, "far": False, "Pulled-1B": False}
    assert names(bare_antiphon, *listing, "--model", "Pulled-1B")["Pulled-1B"]
    monkeypatch.setenv("XAI_API_KEY", "xai-something")
    assert names(bare_antiphon, *listing)["grok-4"]
    assert names(bare_antiphon, *listing, "--model", "far") == {
        "smollm2": False,
        "far": True,
        "Pulled-1B": False,
        "(any other)": False,
    }
    assert "xai-something" not in bare_antiphon(*listing).out


def test_pull_prints_the_path_of_the_embedded_weights(bare_antiphon: Command) -> None:
    ran = bare_antiphon("model", "pull")
    assert ran.code == 0
    assert ran.out.endswith(".gguf\n")
    assert "antiphon chat --model smollm2" in ran.err


def test_pull_downloads_with_a_progress_bar(bare_antiphon: Command, tmp_path: Path) -> None:
    with hub() as url:
        env = {**environment(tmp_path), "HF_ENDPOINT": url, "HF_HUB_DISABLE_TELEMETRY": "1"}
        arguments = [PROGRAM, "model", "pull", "hf:owner/repo/Tiny-1M.gguf"]
        with Terminal(arguments, env, tmp_path) as terminal:
            terminal.expect("Tiny-1M.gguf")
            terminal.expect("3.0/3.0 MB")
            terminal.expect("talk to it: antiphon chat --model Tiny-1M")
            assert terminal.leave() == 0
    assert "Tiny-1M" in names(bare_antiphon, "model", "list")


@pytest.mark.parametrize("what", ["hf:nonsense", "elephant", "hf:o/r/../../x.gguf"])
def test_failed_pull_is_a_one_line_error(bare_antiphon: Command, what: str) -> None:
    ran = bare_antiphon("model", "pull", what)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("error: ")
    assert ran.err.count("\n") == 1
