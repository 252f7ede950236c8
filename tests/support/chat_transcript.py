"""The transcript of README: a chat at a terminal, typed by this program (``make transcript``).

The model is a script; everything else is ``antiphon chat`` as it is.
"""

from __future__ import annotations

import json
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from support.command_line import PROGRAM, environment
from support.pseudo_terminal import CTRL_D, Terminal

_CONFIG = """
model = "demo"
store = "sqlite:turns.db"
[models.demo]
base_url = "http://127.0.0.1:{port}/v1"
"""
_TOOLS = '''
from antiphon import tool


@tool
def lookup_order(order_id: str) -> dict[str, str]:
    """Look up where an order is."""
    return {"order_id": order_id, "status": "shipped", "eta": "2 days"}


@tool(needs_approval=True)
def refund(order_id: str, amount: float) -> str:
    """Pay an order back."""
    return f"Refunded {amount:.2f} for {order_id}."
'''
#: A red pixel.
_IMAGE = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108020000009077"
    "53de0000000c4944415408d763f8cfc0000003010100c9fe92ef0000000049454e44ae426082"
)
#: What is typed, and what is waited for before the next.
_TYPED = (
    ("Where is my order ORD-123?\n", "2 days.\n"),
    ("It is late. I want my 12.50 back.\n", "[y/n/e/a] "),
    ("y\n", "paid back.\n"),
    ("/image label.png\n", "next question"),
    ("What is on this label?\n", "red square.\n"),
    ("/edit Which colour has the label?\n", "It is red.\n"),
    ("/siblings\n", "goes on from one of them"),
    ("/erase\n", "[y/N] "),
    ("y\n", "not from this screen"),
)


def _answer(messages: list[dict[str, Any]]) -> dict[str, Any]:
    last = messages[-1]
    text = json.dumps(last["content"])
    if last["role"] == "tool":
        is_paid = "Refunded" in text
        return {"content": "Done: **12.50** is paid back." if is_paid else _SHIPPED}
    for words, answer in _ANSWERS.items():
        if words in text:
            return answer
    return {"content": "I do not know."}


def _call(name: str, arguments: str) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"tool_calls": [{"index": 0, "id": name, "type": "function", "function": function}]}


_SHIPPED = "Your order is **shipped**; it arrives in 2 days."
_ANSWERS = {
    "Where is": _call("lookup_order", '{"order_id":"ORD-123"}'),
    "12.50": _call("refund", '{"order_id":"ORD-123","amount":12.5}'),
    "What is on": {"content": "A small red square."},
    "Which colour": {"content": "It is red."},
}


class _Upstream(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        delta = _answer(body["messages"])
        reason = "tool_calls" if "tool_calls" in delta else "stop"
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        for choice in ({"delta": delta}, {"delta": {}, "finish_reason": reason}):
            chunk = {"id": "c", "choices": [{"index": 0, **choice}]}
            self.wfile.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")
        self.wfile.write(b"data: [DONE]\n\n")

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


def record() -> list[str]:
    """Hold the chat and return what the terminal shows of it."""
    with tempfile.TemporaryDirectory() as name, ThreadingHTTPServer(("", 0), _Upstream) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        home = Path(name)
        (home / "c.toml").write_text(_CONFIG.format(port=server.server_port))
        (home / "tools.py").write_text(_TOOLS)
        (home / "label.png").write_bytes(_IMAGE)
        args = [PROGRAM, "chat", "--config", "c.toml", "--tools", "tools.py"]
        with Terminal(args, environment(home), home) as terminal:
            for typed, shown in _TYPED:
                if not typed.startswith("y"):
                    terminal.expect_prompt()
                terminal.type(typed)
                terminal.expect(shown)
            terminal.expect_prompt()
            terminal.type(CTRL_D)
            assert terminal.leave() == 0
            rows = terminal.rows
        server.shutdown()
    return ["$ antiphon chat --tools tools.py", *rows[:-1]]


if __name__ == "__main__":
    print("\n".join(record()))
