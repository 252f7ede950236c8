"""Fixtures of the command line's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.chat_terminal import chat_home
from support.command_line import SCRIPTED_CONFIG, Command, commands
from support.command_line_upstream import upstream


@pytest.fixture
def bare_antiphon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Command]:
    """Runs ``antiphon`` in this process, in an empty folder and without any configuration."""
    with commands(tmp_path, monkeypatch, capsys) as command:
        yield command


@pytest.fixture
def antiphon(bare_antiphon: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs ``antiphon`` in this process: a scripted model that echoes, turns in a file."""
    (tmp_path / "c.toml").write_text(SCRIPTED_CONFIG)
    monkeypatch.setenv("ANTIPHON_CONFIG", "c.toml")
    return bare_antiphon


@pytest.fixture
def url() -> Iterator[str]:
    """An upstream that does what the last message says."""
    with upstream() as url:
        yield url


@pytest.fixture
def home(tmp_path: Path, url: str) -> Path:
    """A folder to chat in."""
    return chat_home(tmp_path, url)
