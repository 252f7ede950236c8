"""The documentation tells the truth: all its code runs, prints what it says, and has types."""

from __future__ import annotations

import inspect
import pkgutil
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

import antiphon
from antiphon.chat.options import ChatOptions, SendOptions
from antiphon.chat.reply import ConversationUsage, TurnUsage
from antiphon.chat.stream import Stream
from antiphon.settings.toml_file import SettingsFile
from support.docs_pages import (
    DATA,
    PAGES,
    README,
    ROOT,
    Block,
    PageRun,
    anchors_of,
    block_errors,
    blocks_of,
    broken_links,
    code_of,
    commands_of,
    output_differs,
    run_page,
    to_module,
)
from support.embedded_model import needs_model

pytestmark = pytest.mark.slow

#: The page about the embedded model is run by that, as it comes.
REAL = "embedded"
ALL = [README, *PAGES]
#: The API reference, which is made of docstrings: it has directives and links, no code to run.
REFERENCE = sorted((ROOT / "docs" / "reference").glob("*.md"))
#: Pages about the project, with nothing to run either.
PROJECT = [ROOT / name for name in ("ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")]
SCRIPTED = [page for page in ALL if page.stem != REAL]
EMBEDDED = [page for page in PAGES if page.stem == REAL]
#: What a reader gets or makes, whose fields are public.
STRUCTS = (
    antiphon.ChatRecord,
    antiphon.Reply,
    antiphon.SearchHit,
    antiphon.Summarize,
    antiphon.TokenBudget,
    antiphon.ToolContext,
    antiphon.Usage,
    antiphon.Window,
    ConversationUsage,
    TurnUsage,
)


def name(page: Path) -> str:
    return page.stem


@pytest.mark.parametrize("page", ALL, ids=name)
def test_every_block_of_a_page_is_known_and_sound(page: Path) -> None:
    assert block_errors(page.read_text("utf-8")) == []


@pytest.mark.parametrize("page", SCRIPTED, ids=name)
def test_a_page_runs_and_prints_what_it_says(page: Path) -> None:
    data = DATA / f"{page.stem}.toml"
    blocks = blocks_of(page.read_text("utf-8"))
    if any(block.language == "python" for block in blocks) and not data.is_file():
        pytest.fail(f"{page.name} has Python to run: put the model's replies into {data}.")
    check(run_page(page))


@needs_model
@pytest.mark.parametrize("page", EMBEDDED, ids=name)
def test_the_embedded_page_runs_with_the_embedded_model(page: Path) -> None:
    check(run_page(page, real_model=True))


def check(ran: PageRun) -> None:
    assert not ran.errors, "\n".join(ran.errors)
    wrong = [
        f"line {block.line} printed:\n{printed}\ninstead of:\n{block.output}"
        for block, printed in ran.outputs
        if output_differs(block, printed)
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("page", [*ALL, *REFERENCE, *PROJECT], ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    assert broken_links(page) == []


def test_the_api_reference_documents_every_public_name() -> None:
    directives = [
        directive
        for page in REFERENCE
        for directive in re.findall(r"^::: (\S+)$", page.read_text("utf-8"), re.M)
    ]
    documented = [pkgutil.resolve_name(directive) for directive in directives]
    documented_modules = [one for one in documented if inspect.ismodule(one)]
    modules = {one.__name__ for one in documented_modules}
    missing = [
        name
        for name in antiphon.__all__
        if (public := getattr(antiphon, name)) not in documented
        and getattr(public, "__module__", None) not in modules
        # A union of types has no module of its own.
        and not any(public is vars(module).get(name) for module in documented_modules)
    ]
    assert missing == []


def test_the_index_names_every_page() -> None:
    index = (ROOT / "docs" / "index.md").read_text("utf-8")
    assert [page.name for page in PAGES if f"({page.name}" not in index] == ["index.md"]


def test_everything_public_is_documented() -> None:
    told = set(re.findall(r"\w+", "\n".join(code_of(page.read_text("utf-8")) for page in PAGES)))
    there = set(antiphon.__all__)
    for kind in (antiphon.Conversation, antiphon.AsyncConversation, Stream, *STRUCTS):
        there |= {one for one, _ in inspect.getmembers(kind) if not one.startswith("_")}
    there |= ChatOptions.__annotations__.keys() | SendOptions.__annotations__.keys()
    there |= {kind.__name__ for kind in get_args(antiphon.events.Event)}
    # What ``parsed`` is made of.
    assert sorted(there - {"value"} - told) == []


def test_everything_has_the_types_that_a_reader_expects(tmp_path: Path) -> None:
    modules = []
    for page in ALL:
        module = tmp_path / f"{page.stem.replace('-', '_').lower()}_page.py"
        module.write_text(to_module(page), "utf-8")
        modules.append(module)
    # With the project's settings, which are no less strict than a reader's, and its cache:
    # the types of ``openai`` alone take longer to read than all the pages.
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", *modules, DATA / "typed_user.py"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_readme_names_every_variable() -> None:
    tables = {"models", "limits", "tenants", "mcp", "server"}
    there = {f"ANTIPHON_{name.upper()}" for name in set(SettingsFile.__struct_fields__) - tables}
    told = set(re.findall(r"ANTIPHON_\w+", README.read_text("utf-8")))
    assert told == there | {"ANTIPHON_CONFIG"}


def page(text: str) -> str:
    return text.replace("'''", "```")


# The kit itself.


def test_blocks_are_found_with_their_lines_and_outputs() -> None:
    found = blocks_of(
        page("# A\n'''python\nprint(1)\n'''\n\n'''text\n1\n'''\n\nB\n'''text\nx\n'''\n")
    )
    assert found == [
        Block("python", "print(1)\n", 3, "1\n"),
        Block("text", "1\n", 7),
        Block("text", "x\n", 12),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "'''\nprint(1)\n'''\n",
        "'''ruby\nputs 1\n'''\n",
        "- a list\n\n  '''python\n  print(1)\n  '''\n",
        "'''python\nprint(1)\n",
        "~~~python\nprint(1)\n~~~\n",
        "'''json\n{'a': 1}\n'''\n",
        "'''toml\nmodle = \"grok-4\"\n'''\n",
        "'''output\n1\n'''\n",
        "'''sh\nrm -rf /\n'''\n",
        "'''sh\nmake tea\n'''\n",
        "'''sh\npip install 'antiphon[postgre]'\n'''\n",
        "'''sh\npip install antiphony\n'''\n",
        "'''sh\nantiphon serve --prot 8080\n'''\n",
        "'''sh\nantiphon key create --tennant a > a.key\n'''\n",
        '\'\'\'json\n{"command": "antiphon", "args": ["mpc"]}\n\'\'\'\n',
        "'''sh\nantiphon sevre\n'''\n",
    ],
)
def test_what_nobody_would_check_is_a_fault(text: str) -> None:
    assert block_errors(page(text)) != []


def test_commands_that_end_are_run_and_the_others_are_only_read() -> None:
    block = Block(
        "console",
        "$ make chat\n> hello\n$ .venv/bin/antiphon list  # all\n$ antiphon serve --port 0\n"
        "$ antiphon show resp_…\n$ cat notes.txt | antiphon chat -p 'Sum this up.'\n",
        1,
    )
    assert commands_of(block) == [
        "antiphon list  # all",
        "cat notes.txt | antiphon chat -p 'Sum this up.'",
    ]


def test_a_page_that_lies_is_found_out(tmp_path: Path) -> None:
    lie = tmp_path / "lie.md"
    lie.write_text(page("'''python\nprint('resp_12')\n'''\n\n'''text\nresp_…\n'''\n\n"))
    check(run_page(lie))
    for text in (
        "'''python\nprint(1)\n'''\n\n'''text\n2\n'''\n",
        "'''python\n1 / 0\n'''\n",
        "'''python\nopen('receipt.png')\n'''\n",
        "'''python\nimport antiphon\nprint(antiphon.Conversation().send('Hi'))\n'''\n",
        "'''sh\nantiphon delete resp_0\n'''\n",
    ):
        lie.write_text(page(text))
        with pytest.raises(AssertionError):
            check(run_page(lie))


def test_links_and_headings_are_compared(tmp_path: Path) -> None:
    first = tmp_path / "first.md"
    first.write_text("# A `send()`, and B\n[a](#a-send-and-b) [b](none.md) [c](first.md#c)\n")
    assert anchors_of(first.read_text()) == {"a-send-and-b"}
    assert broken_links(first) == ["none.md", "first.md#c"]
