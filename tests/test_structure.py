"""The project's shape: who imports whom, how long things are, and what is public."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import antiphon

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src"
FILES = sorted((SOURCE / "antiphon").rglob("*.py"))

FILE_LINES = 500
FUNCTION_LINES = 60
MARK = "# loaded on first use"

#: The turn's side that interfaces may see.
SERVICE = {
    "antiphon.turn.service",
    "antiphon.turn.conversations",
    "antiphon.turn.turn_reader",
    "antiphon.turn.running_turns",
    "antiphon.turn.replay",
    "antiphon.turn.history_cache.UnstoredHistory",
    "antiphon.turn.protocols",
    "antiphon.turn.store_protocols",
}
PORTS = {"antiphon.turn.protocols", "antiphon.turn.store_protocols"}
CORE = {"antiphon.core", "antiphon.errors"}
#: What each layer may import of ours, besides itself: modules, or packages with all they hold.
MAY_IMPORT: dict[str, set[str]] = {
    "core": {"antiphon.errors"},
    "errors": set(),
    "portal": set(),
    "logs": set(),
    "threads": set(),
    "settings": CORE,
    "turn": CORE,
    "stores": CORE | PORTS | {"antiphon.thread_priority"},
    "models": CORE | PORTS,
    "tools": CORE | PORTS,
    "api": CORE | SERVICE | {"antiphon.logging_setup", "antiphon.thread_priority"},
    "chat": CORE
    | SERVICE
    | {"antiphon.settings", "antiphon.blocking_portal", "antiphon.bootstrap", "antiphon.tools"},
    "compat": CORE | {"antiphon.chat", "antiphon.settings"},
    "cli": CORE
    | SERVICE
    | {
        "antiphon.settings",
        "antiphon.logging_setup",
        "antiphon.bootstrap",
        "antiphon.models.llama.weights",
        "antiphon.__version__",
    },
    "assemble": CORE
    | SERVICE
    | {
        "antiphon.settings",
        "antiphon.stores",
        "antiphon.models",
        "antiphon.tools",
        "antiphon.api",
    },
    "__init__": CORE | {"antiphon.chat", "antiphon.settings", "antiphon.tools"},
}

PUBLIC = {
    "AntiphonError",
    "AsyncConversation",
    "ConfigError",
    "ConflictError",
    "ContextLengthExceededError",
    "Conversation",
    "InvalidRequestError",
    "ModelError",
    "ModelNotFoundError",
    "NotFoundError",
    "InvalidOutputError",
    "UpstreamRateLimitError",
    "Reply",
    "Settings",
    "StoreError",
    "Summarize",
    "TokenBudget",
    "Tool",
    "ToolContext",
    "Usage",
    "Window",
    "events",
    "load_settings",
    "tool",
}


def layer(path: Path) -> str:
    return path.relative_to(SOURCE / "antiphon").parts[0].removesuffix(".py")


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Each name that is imported, whole, with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide what is imported"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def within(name: str, packages: set[str]) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


def strays(name: str, source: str) -> list[str]:
    """The imports of ours in a layer's source that the rule forbids."""
    allowed = MAY_IMPORT[name] | {f"antiphon.{name}"}
    return [
        f"line {line}: {imported}"
        for line, imported in imports(ast.parse(source))
        if within(imported, {"antiphon"}) and not within(imported, allowed)
    ]


def unmarked(source: str) -> list[int]:
    """The lines of imports inside functions that do not carry the mark."""
    lines = source.splitlines()
    return [
        node.lineno
        for function in ast.walk(ast.parse(source))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom) and MARK not in lines[node.lineno - 1]
    ]


def test_every_layer_has_a_rule() -> None:
    assert {layer(path) for path in FILES} == set(MAY_IMPORT)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_point_one_way(path: Path) -> None:
    assert strays(layer(path), path.read_text()) == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_inside_functions_are_marked(path: Path) -> None:
    assert unmarked(path.read_text()) == []


def test_the_rule_catches_what_it_is_for() -> None:
    assert strays("core", "from antiphon.turn.protocols import Store")
    assert strays("stores", "import antiphon.models.openai.sse")
    assert strays("models", "from antiphon.turn import service")
    assert strays("api", "from antiphon.bootstrap import open_engine")
    assert strays("turn", "from antiphon import Conversation")
    assert not strays("stores", "from antiphon.turn.protocols import Store\nimport json")
    assert unmarked("def f():\n    import json") == [2]
    assert not unmarked(f"def f():\n    import json  {MARK}\nimport os")


@pytest.mark.parametrize("folder", ["src", "tests", "bench"])
def test_files_and_functions_are_short(folder: str) -> None:
    long = []
    for path in (ROOT / folder).rglob("*.py"):
        source = path.read_text()
        if (lines := len(source.splitlines())) > FILE_LINES:
            long.append(f"{path.relative_to(ROOT)}: {lines} lines")
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                first = node.body[0]
                # The parameters of a command are its options: they count as a table.
                start = first.lineno if "cli" in path.parts else node.lineno
                if (lines := (node.end_lineno or start) - start + 1) > FUNCTION_LINES:
                    long.append(f"{path.relative_to(ROOT)}: {node.name}: {lines} lines")
    assert long == []


def test_public_names_are_pinned() -> None:
    assert set(antiphon.__all__) == PUBLIC
    assert len(PUBLIC) <= 25
    assert all(getattr(antiphon, name) is not None for name in PUBLIC)


def test_the_tree_in_the_architecture_page_names_every_package_and_only_what_exists() -> None:
    page = (ROOT / "ARCHITECTURE.md").read_text()
    drawn = re.search(r"```\n(src/antiphon/\n.*?)```", page, re.DOTALL)
    assert drawn is not None, "ARCHITECTURE.md shows no tree that begins with src/antiphon/"
    named = set(tree_of(drawn[1]))
    assert sorted(path for path in named if not (ROOT / path).exists()) == []
    packages = {
        f"{path.parent.relative_to(ROOT)}/"
        for path in (SOURCE / "antiphon").rglob("*")
        if path.suffix in {".py", ".sql"}
    }
    assert sorted(packages - named) == []


def test_the_paths_in_the_architecture_page_exist() -> None:
    page = (ROOT / "ARCHITECTURE.md").read_text()
    paths = set(re.findall(r"\b(?:\w+/)+\w+\.(?:py|sql|proto)\b", page))
    bases = (ROOT, SOURCE / "antiphon")
    assert sorted(path for path in paths if not any((base / path).exists() for base in bases)) == []


def tree_of(drawn: str) -> Iterator[str]:
    """The paths that an indented tree names: folders end in ``/``, files have a suffix.

    A line holds one folder or several files; what follows two spaces is a remark.
    """
    folders: list[tuple[int, str]] = []
    for line in drawn.splitlines():
        indent = len(line) - len(line.lstrip())
        while folders and folders[-1][0] >= indent:
            folders.pop()
        below = folders[-1][1] if folders else ""
        for name in re.split(r"\s{2,}", line.strip())[0].split():
            if name.endswith("/"):
                folders.append((indent, below + name))
                below = folders[-1][1]
                yield below
            else:
                yield below + name


def test_the_tree_is_read_as_it_is_drawn() -> None:
    drawn = "src/antiphon/\n  a.py   what a is\n  core/  data\n    b.py c.sql\n  d.py\n"
    assert list(tree_of(drawn)) == [
        "src/antiphon/",
        "src/antiphon/a.py",
        "src/antiphon/core/",
        "src/antiphon/core/b.py",
        "src/antiphon/core/c.sql",
        "src/antiphon/d.py",
    ]


def test_what_is_required_is_what_is_imported() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    required = project["dependencies"] + project["optional-dependencies"]["llama"]
    names = {re.split(r"[<>=; \[]", line)[0].replace("-", "_") for line in required}
    names = {{"python_dotenv": "dotenv"}.get(name, name) for name in names}
    imported = {
        name.split(".")[0] for path in FILES for _, name in imports(ast.parse(path.read_text()))
    }
    assert names - imported == {"httptools", "websockets"}, "uvicorn loads them by name"


def test_no_key_and_no_home_is_in_the_checkout() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    secret = re.compile(
        rb"\b(?:xai|sk|hf|ghp)[-_][A-Za-z0-9]{24,}|/(?:home|Users)/\w+/|BEGIN \w+ PRIVATE"
    )
    files = [ROOT / name.decode() for name in listed.stdout.split(b"\0") if name]
    assert [
        str(path) for path in files if path.is_file() and secret.search(path.read_bytes())
    ] == []
