"""Completion of slash commands: what Tab offers."""

from __future__ import annotations

from pathlib import Path

import pytest
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document

from antiphon.cli.interactive.slash_commands import COMMANDS, SlashCompleter


def offered(completer: SlashCompleter, typed: str) -> list[str]:
    """The texts that Tab would make of what is typed."""
    found = completer.get_completions(Document(typed), CompleteEvent(completion_requested=True))
    return [typed[: len(typed) + one.start_position] + one.text for one in found]


def test_a_slash_offers_every_command() -> None:
    assert offered(SlashCompleter(), "/") == [f"/{one.name}" for one in COMMANDS]


@pytest.mark.parametrize(
    ("typed", "texts"),
    [
        ("/mod", ["/model"]),
        ("/model f", ["/model far", "/model fast"]),
        ("/retry echo fa", ["/retry echo far", "/retry echo fast"]),
        ("/image pic", ["/image picture.png"]),
        ("/attach folder/", ["/attach folder/notes.txt"]),
        ("/import nothing", []),
        ("/search fa", []),
        ("/nonsense", []),
        ("//mod", []),
        ("words /mod", []),
        ("/system a\nb", []),
    ],
)
def test_tab_completes_commands_models_and_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: str, texts: list[str]
) -> None:
    (tmp_path / "picture.png").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes.txt").touch()
    monkeypatch.chdir(tmp_path)
    completer = SlashCompleter()
    completer.model_names = ("far", "fast", "echo")
    assert offered(completer, typed) == texts
