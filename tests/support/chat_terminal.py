"""Chat terminal for tests: ``antiphon chat`` in a terminal, with models, tools and a store."""

from __future__ import annotations

from pathlib import Path

from support.command_line import PROGRAM, environment
from support.pseudo_terminal import CTRL_D, Terminal

_CONFIG = """
model = "far"
store = "sqlite:turns.db"
[models.echo]
kind = "scripted"
[models.far]
base_url = "{url}"
context = 1000
price = {{ input = 1000000, output = 1000000 }}
"""
_TOOLS = '''
from antiphon import tool

@tool
def weather(city: str) -> str:
    """The weather of a city."""
    return f"sunny in {city}"

@tool(needs_approval=True)
def refund(order: str) -> str:
    """Pay an order back."""
    return f"paid back {order}"
'''


def chat_home(folder: Path, url: str) -> Path:
    """A folder with settings for the upstream at ``url`` (``far``) and a model that echoes."""
    (folder / "c.toml").write_text(_CONFIG.format(url=url))
    (folder / "tools.py").write_text(_TOOLS)
    return folder


def chat(home: Path, *args: str, **env: str) -> Terminal:
    """A chat with the upstream, unless ``args`` name another model."""
    arguments = [PROGRAM, "chat", "--config", "c.toml", *args]
    return Terminal(arguments, {**environment(home), **env}, home)


def leave(terminal: Terminal) -> None:
    """Leave a chat that is at its prompt."""
    terminal.type(CTRL_D)
    assert terminal.leave() == 0
    assert "Traceback" not in terminal.shown
