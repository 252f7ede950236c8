"""What holds for every command: help, errors and exit codes, JSON, and output to a pipe."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.core import TyperCommand, TyperGroup, TyperOption
from typer.main import get_command

from antiphon.cli.main import build_app
from antiphon.stores.sqlite.sql_files import APPLICATION_ID
from support.command_line import Command

#: Arguments of the commands that need some; those that are named by no command are an error.
_ARGUMENTS = {
    "show": ["resp_1"],
    "search": ["words"],
    "delete": ["resp_1", "--yes"],
    "import": ["chats.json"],
    "key create": ["--local"],
    "key revoke": ["key_1"],
    "store copy": ["sqlite:turns.db", "sqlite:copy.db"],
    "store erase-report": ["sqlite:turns.db"],
    "chat": ["-p", "hello"],
}


def _commands(command: object, name: str = "") -> Iterator[tuple[str, TyperCommand]]:
    """The commands below one, by their names."""
    if isinstance(command, TyperCommand):
        yield name, command
    elif isinstance(command, TyperGroup):
        for part, one in command.commands.items():
            yield from _commands(one, f"{name} {part}".strip())


COMMANDS = dict(_commands(get_command(build_app())))
GROUPS = ["", *sorted({name.split()[0] for name in COMMANDS if " " in name})]


def _with_option(option: str) -> list[str]:
    """The commands that have it."""
    return [
        name
        for name, command in COMMANDS.items()
        if any(option in parameter.opts for parameter in command.params)
    ]


def test_the_arguments_here_are_of_commands_that_exist() -> None:
    assert _ARGUMENTS.keys() <= COMMANDS.keys()


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_whole_sentences_for_the_command_and_each_option(
    bare_antiphon: Command, name: str
) -> None:
    ran = bare_antiphon(*name.split(), "--help")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith(f"Usage: antiphon {name} ")
    assert max(map(len, ran.out.splitlines())) <= 80
    command = COMMANDS[name]
    assert command.help
    assert command.help.split("\n")[0].endswith((".", ":"))
    for option in command.params:
        if isinstance(option, TyperOption):
            assert (option.help or "").partition("  [env")[0].endswith("."), option.opts


@pytest.mark.parametrize("group", GROUPS)
def test_the_list_of_commands_cuts_no_line_off(bare_antiphon: Command, group: str) -> None:
    ran = bare_antiphon(*group.split(), "--help")
    assert ran.code == 0
    assert "..." not in ran.out.removeprefix(f"Usage: antiphon {group}".rstrip()).split("\n", 1)[1]


@pytest.mark.parametrize("name", [*COMMANDS, *GROUPS])
def test_an_unknown_option_is_named_and_nothing_is_printed(
    bare_antiphon: Command, name: str
) -> None:
    ran = bare_antiphon(*name.split(), "--bogus")
    assert (ran.code, ran.out) == (2, "")
    assert "--bogus" in ran.err


@pytest.mark.parametrize("group", GROUPS)
def test_a_mistyped_command_is_an_error_with_the_nearest_one(
    bare_antiphon: Command, group: str
) -> None:
    known = next(name for name in COMMANDS if name.startswith(group))
    ran = bare_antiphon(*f"{known}t".split())
    assert (ran.code, ran.out) == (2, "")
    assert f"Did you mean '{known.split()[-1]}'?" in ran.err


_WRONG_STORES = {
    "bogus": "sqlite:PATH",
    "sqlite:text.db": "not a SQLite database",
    "sqlite:newer.db": "newer antiphon",
    "sqlite:folder": "a folder",
    "sqlite:foreign.db": "another program's database",
}


@pytest.mark.parametrize(
    ("name", "store"),
    [
        *((name, "sqlite:foreign.db") for name in _with_option("--store")),
        *(("list", store) for store in _WRONG_STORES),
    ],
)
def test_a_store_that_cannot_be_used_is_one_line_that_says_why(
    antiphon: Command, tmp_path: Path, name: str, store: str
) -> None:
    (tmp_path / "text.db").write_text("certainly not a database\n" * 100)
    (tmp_path / "folder").mkdir()
    (tmp_path / "chats.json").write_text("[]")
    for file, statements in (
        ("foreign.db", "CREATE TABLE recipes (name);"),
        ("newer.db", f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = 99;"),
    ):
        connection = sqlite3.connect(tmp_path / file)
        connection.executescript(statements)
        connection.close()
    ran = antiphon(*name.split(), *_ARGUMENTS.get(name, []), "--store", store)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("error: ")
    assert _WRONG_STORES[store] in ran.err
    assert ran.err.count("\n") == 1


@pytest.mark.parametrize("name", _with_option("--json"))
def test_json_is_json_whatever_there_is(antiphon: Command, tmp_path: Path, name: str) -> None:
    antiphon("chat", "-p", "hello")
    (tmp_path / "chats.json").write_text("[]")
    given = _ARGUMENTS.get(name, [])
    if name == "show":
        given = antiphon("list").out.split("\t")[:1]
    ran = antiphon(*name.split(), *given, "--json")
    assert ran.code == 0
    json.loads(ran.out)
    assert "\x1b" not in ran.out


_WRONG_SETTINGS = {"modle = 1": "modle", "model = ": "is not TOML", None: "No such file"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *((name, "modle = 1") for name in _with_option("--config")),
        *(("list", text) for text in _WRONG_SETTINGS),
    ],
)
def test_a_wrong_configuration_is_one_line_that_names_the_file(
    bare_antiphon: Command, tmp_path: Path, name: str, text: str | None
) -> None:
    (tmp_path / "chats.json").write_text("[]")
    if text is not None:
        (tmp_path / "wrong.toml").write_text(text)
    ran = bare_antiphon(*name.split(), *_ARGUMENTS.get(name, []), "--config", "wrong.toml")
    assert (ran.code, ran.out) == (1, "")
    assert "wrong.toml" in ran.err
    assert _WRONG_SETTINGS[text] in ran.err
    assert ran.err.count("\n") == 1
