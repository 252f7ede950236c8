"""``key create``, ``list`` and ``revoke``."""

from __future__ import annotations

import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from support.command_line import PROGRAM, Command, environment
from support.pseudo_terminal import Terminal

KEY = re.compile(r"ap_[a-z2-7]{52}\n")


def test_the_key_alone_goes_to_standard_output(antiphon: Command) -> None:
    ran = antiphon("key", "create", "--tenant", "acme")
    assert ran.code == 0
    assert KEY.fullmatch(ran.out)
    assert "key_" in ran.err
    assert "acme" in ran.err
    assert "needs a key" in ran.err
    assert ran.out.strip() not in ran.err
    # What the first one changes is said once.
    assert "needs a key" not in antiphon("key", "create", "--tenant", "other").err


def test_key_is_stored_nowhere(antiphon: Command, tmp_path: Path) -> None:
    key = antiphon("key", "create", "--tenant", "acme").out.strip()
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert key.encode() not in path.read_bytes()
            assert key.removeprefix("ap_").encode() not in path.read_bytes()
    listed = antiphon("key", "list", "--json").out
    assert key not in listed


def test_keys_are_listed_and_revoked(antiphon: Command) -> None:
    antiphon("key", "create", "--tenant", "acme", "--name", "for the phone")
    antiphon("key", "create", "--local")
    rows = [line.split("\t") for line in antiphon("key", "list").out.splitlines()]
    assert [(row[1], row[3], row[4]) for row in rows] == [
        ("acme", "in use", "for the phone"),
        ("(local)", "in use", ""),
    ]
    ran = antiphon("key", "revoke", rows[0][0])
    assert (ran.code, ran.out) == (0, f"revoked {rows[0][0]}\n")
    listed = json.loads(antiphon("key", "list", "--json").out)
    assert [(key["tenant"], key["revoked_at"] is None) for key in listed] == [
        ("acme", False),
        ("", True),
    ]
    assert listed[0]["id"] == rows[0][0]


def test_revoking_an_unknown_key_is_an_error(antiphon: Command) -> None:
    ran = antiphon("key", "revoke", "key_0000000000000000")
    assert (ran.code, ran.out) == (1, "")
    assert "there is no key" in ran.err
    assert ran.err.count("\n") == 1


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ([], ["--tenant", "--local"]),
        (["--tenant", "acme", "--local"], ["--tenant", "--local"]),
        (["--tenant", ""], ["empty", "--local"]),
        (["--tenant", "a b"], ["name"]),
        (["--tenant", "a\nb"], ["name"]),
        (["--tenant", "a" * 65], ["64"]),
        (["--tenant", "acme", "--name", ""], ["name"]),
        (["--tenant", "acme", "--name", "a\nb"], ["one line"]),
        (["--tenant", "acme", "--name", "a" * 101], ["100"]),
        (["--tenant", "acme", "--store", "memory:"], ["memory:"]),
    ],
)
def test_invalid_key_options_are_refused(
    antiphon: Command, args: list[str], words: list[str]
) -> None:
    ran = antiphon("key", "create", *args)
    assert (ran.code, ran.out) == (1, "")
    assert all(word in ran.err for word in words), ran.err
    assert ran.err.count("\n") == 1
    assert antiphon("key", "list").out == ""


def test_an_empty_list(antiphon: Command) -> None:
    assert antiphon("key", "list").out == ""
    assert json.loads(antiphon("key", "list", "--json").out) == []


def test_terminal_shows_keys_as_a_table(tmp_path: Path, antiphon: Command) -> None:
    antiphon("key", "create", "--tenant", "acme", "--name", "for the phone")
    arguments = [PROGRAM, "key", "list", "--config", "c.toml"]
    with Terminal(arguments, environment(tmp_path), tmp_path) as terminal:
        shown = terminal.expect("for the phone")
        assert terminal.leave() == 0
    assert "acme" in shown


def test_chat_command_needs_no_key(antiphon: Command) -> None:
    antiphon("chat", "-p", "before")
    antiphon("key", "create", "--tenant", "acme")
    ran = antiphon("chat", "-c", "-p", "after")
    assert ran.code == 0
    assert "Before that you said: before" in ran.out
    with closing(sqlite3.connect("turns.db")) as database:
        assert database.execute("SELECT count(*) FROM api_keys").fetchone() == (1,)
