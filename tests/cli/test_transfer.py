"""``antiphon export`` and ``antiphon import``."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from support.chat_exports import chatgpt_chat, claude_chat, zipped
from support.command_line import Command


@pytest.fixture
def export_file(tmp_path: Path) -> Path:
    path = tmp_path / "export.zip"
    path.write_bytes(zipped({"c.json": [chatgpt_chat(), claude_chat()], "user.json": {"id": 1}}))
    return path


def test_what_is_imported_can_be_exported_and_imported_elsewhere(
    antiphon: Command, export_file: Path, tmp_path: Path
) -> None:
    done = antiphon("import", str(export_file))
    assert (done.code, done.out) == (0, "2 chats: 2 imported; 6 new turns\n")
    assert "user.json: there are no chats in it" in done.err
    again = antiphon("import", str(export_file), "--json")
    report = json.loads(again.out)
    assert [one["status"] for one in report["report"]] == ["unchanged"] * 2
    assert report["skipped_files"][0]["name"] == "user.json"
    backup = tmp_path / "backup.ndjson"
    assert antiphon("export", "-o", str(backup)).code == 0
    assert len(backup.read_text().splitlines()) == 2
    assert not list(tmp_path.glob("*.part"))
    elsewhere = ("--store", "sqlite:elsewhere.db")
    assert antiphon("import", str(backup), *elsewhere).out == "2 chats: 2 imported; 6 new turns\n"
    assert antiphon("export", *elsewhere).out == backup.read_text()
    name = report["report"][0]["response_id"]
    assert "## You\n\nAnd a fruit?" in antiphon("export", name, "-f", "markdown").out
    page = antiphon("export", report["report"][0]["chat_id"], "--format", "html").out
    assert page.startswith("<!doctype html>")
    assert "Plum." in page


def test_failures_are_one_line_and_an_exit_code(antiphon: Command, tmp_path: Path) -> None:
    odd = tmp_path / "odd.json"
    odd.write_text(json.dumps([{"title": "\x1b[31mOdd"}, claude_chat()]))
    done = antiphon("import", str(odd))
    assert (done.code, done.out) == (1, "2 chats: 1 imported, 1 failed; 3 new turns\n")
    assert "Odd: it is no chat of a known program" in done.err
    assert "\x1b[31mOdd" not in done.err
    for arguments, message in (
        (("import", "nowhere.json"), "nowhere.json cannot be read"),
        (("import", str(tmp_path / "empty")), "The file is empty."),
        (("export", "resp_" + "0" * 32), "No chat found"),
        (("export", "-f", "pdf"), "The format is json, markdown, html"),
        (("export", "-f", "html"), "Name a chat"),
        (("export", "-o", "nowhere/chats"), "nowhere/chats cannot be written: No such file"),
        (("export", "-o", str(tmp_path)), "cannot be written: Is a directory"),
    ):
        (tmp_path / "empty").touch()
        failed = antiphon(*arguments)
        assert (failed.code, failed.out) == (1, "")
        assert message in failed.err.replace("\n", " ")


def test_a_pipe_is_written_and_not_replaced(antiphon: Command, tmp_path: Path) -> None:
    assert antiphon("import", "-", stdin=json.dumps([claude_chat()])).code == 0
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor() as pool:
        read = pool.submit(pipe.read_text)
        assert antiphon("export", "-o", str(pipe)).code == 0
        assert pipe.is_fifo()
        assert json.loads(read.result(10))["format"] == "antiphon.chat"


def test_a_file_may_come_through_a_pipe(antiphon: Command) -> None:
    done = antiphon("import", "-", stdin=json.dumps([claude_chat()]))
    assert done.out == "1 chat: 1 imported; 3 new turns\n"
