"""The project's shape: who imports whom, how long things are and how named, what is public."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

import antiphon

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src"
PACKAGE = SOURCE / "antiphon"
FILES = sorted(PACKAGE.rglob("*.py"))

MAX_FILES = 210
MIN_FILE_LINES = 25
MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 60
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
PROTOCOLS = {"antiphon.turn.protocols", "antiphon.turn.store_protocols"}
CORE = {"antiphon.core", "antiphon.errors"}
API = CORE | SERVICE | {"antiphon.logging_setup", "antiphon.thread_priority", "antiphon.api.common"}
#: What each layer may import of ours, besides itself: modules, or packages with all they hold.
#: The longest name that a module's begins with is its layer.
MAY_IMPORT: dict[str, set[str]] = {
    "core": {"antiphon.errors"},
    "errors": set(),
    "blocking_portal": set(),
    "logging_setup": set(),
    "thread_priority": set(),
    "protos": CORE,
    "settings": CORE,
    "turn": CORE,
    "stores": CORE | PROTOCOLS | {"antiphon.thread_priority"},
    "models": CORE | PROTOCOLS,
    "models.xai": CORE | PROTOCOLS | {"antiphon.models", "antiphon.protos"},
    "tools": CORE | PROTOCOLS,
    "api": set(),
    "api.common": CORE | SERVICE | {"antiphon.logging_setup"},
    # MCP over HTTP is a route of its application.
    "api.http": API | {"antiphon.api.mcp.streamable_http"},
    "api.grpc": API | {"antiphon.protos"},
    "api.mcp": API,
    "chat": CORE
    | SERVICE
    | {"antiphon.settings", "antiphon.blocking_portal", "antiphon.bootstrap", "antiphon.tools"},
    "compat": CORE | {"antiphon.chat", "antiphon.settings", "antiphon.protos"},
    "cli": CORE
    | SERVICE
    | {
        "antiphon.settings",
        "antiphon.logging_setup",
        "antiphon.bootstrap",
        "antiphon.models.llama.model_download",
        "antiphon.__version__",
    },
    "bootstrap": CORE
    | SERVICE
    | {"antiphon.settings", "antiphon.stores", "antiphon.models", "antiphon.tools", "antiphon.api"},
    "__init__": CORE | {"antiphon.chat", "antiphon.settings", "antiphon.tools"},
}
#: Packages that belong to one provider, protocol or runtime: the core knows none of them.
VENDORS = {"google", "grpc", "mcp", "mcp_types", "openai", "xai_sdk", "xllamacpp"}

_QUAINT = """
    asked bury buried carried door drawer drawers fault faults furniture ground heard kept keyring
    ledger ledgers lend lender lending lent luck mouth odds picture pictures place said shelf spoken
    strand strands tallies tally told trouble uncarried unkept veil wish wishes
"""
#: Words that say nothing to someone who looks for the thing; whole words of a name only.
BANNED = frozenset(_QUAINT.split())
#: Public classes that stand in several modules, and why.
SAME_CLASS = {
    "Conversation": "compat's has the name that programs written for the old Chat SDK import",
    "Window": "the policy that callers name, and the part of a chain that a store is asked for",
}
#: Names of files that stand in several folders, and the one concept that each is.
SAME_FILE = {
    "api_keys.py": "API keys: what one is, and their table",
    "chat.py": "the chat that a caller holds: the RPC, and the command",
    "chat_completions.py": "the Chat Completions API: served, and called",
    "connection.py": "one connection, which is opened, checked and closed: to a file, to a server",
    "conversations.py": "conversations: the service, the stores, the endpoints, the command",
    "errors.py": "errors of a layer as errors of ours",
    "health.py": "whether requests can be answered: the endpoints, and what a store says of itself",
    "idempotency.py": "the Idempotency-Key: its record, and the header",
    "images.py": "images in messages: checked, and loaded",
    "legacy_chat.py": "the first Chat SDK: its messages, and its service",
    "model.py": "a provider's implementation of the model protocol",
    "options.py": "options that several entry points take",
    "responses.py": "the Responses API: served, and called",
    "server.py": "a server that listens until it is told to stop",
    "store.py": "an implementation of the store protocol",
    "turn_execution.py": "one turn run to its end for a caller",
    "turns.py": "turns: what one is, and where they are stored",
}

PUBLIC = {
    "AntiphonError",
    "AsyncConversation",
    "AsyncStream",
    "ChatOptions",
    "Compaction",
    "ConfigError",
    "ConflictError",
    "ContextLengthExceededError",
    "Conversation",
    "ConversationLockedError",
    "ConversationUsage",
    "ErasedItem",
    "FunctionCall",
    "FunctionCallOutput",
    "HistoryChangedError",
    "ImageInputUnsupportedError",
    "InputImage",
    "InputText",
    "InvalidImageError",
    "InvalidOutputError",
    "InvalidRequestError",
    "Item",
    "McpApproval",
    "McpListTools",
    "Message",
    "ModelError",
    "ModelNotFoundError",
    "ModelTimeoutError",
    "ModelUnavailableError",
    "NotFoundError",
    "OutputText",
    "Reasoning",
    "Refusal",
    "Reply",
    "ResponseInProgressError",
    "SendOptions",
    "Settings",
    "StoreError",
    "Stream",
    "Summarize",
    "TokenBudget",
    "Tool",
    "ToolContext",
    "TurnInterruptedError",
    "TurnUsage",
    "UpstreamRateLimitError",
    "Usage",
    "Window",
    "events",
    "load_settings",
    "tool",
}

# The rules. Each takes source, so that what it catches can be shown below.


def module_of(path: Path) -> str:
    """A file's module within the package: ``api.http.app``, ``errors``, ``__init__``."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def layer_of(module: str) -> str:
    names = [name for name in MAY_IMPORT if within(module, {name})]
    return max(names, key=len) if names else module.split(".", maxsplit=1)[0]


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Each name that is imported, whole, with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide what is imported"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def within(name: str, packages: Iterable[str]) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


def forbidden_imports(layer: str, source: str) -> list[str]:
    allowed = MAY_IMPORT[layer] | {f"antiphon.{layer}"}
    return [
        f"line {line}: {imported}"
        for line, imported in imports(ast.parse(source))
        if (within(imported, {"antiphon"}) and not within(imported, allowed))
        or (layer == "core" and within(imported, VENDORS))
    ]


def unmarked_imports(source: str) -> list[int]:
    """The lines of imports inside functions that do not carry the mark."""
    lines = source.splitlines()
    return [
        node.lineno
        for function in ast.walk(ast.parse(source))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom) and MARK not in lines[node.lineno - 1]
    ]


def too_long(source: str, *, is_command: bool = False) -> list[str]:
    found = []
    if (lines := len(source.splitlines())) > MAX_FILE_LINES:
        found.append(f"{lines} lines")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            # The parameters of a command are its options: they count as a table.
            start = node.body[0].lineno if is_command else node.lineno
            if (lines := (node.end_lineno or start) - start + 1) > MAX_FUNCTION_LINES:
                found.append(f"{node.name}: {lines} lines")
    return found


def words_of(name: str) -> list[str]:
    """The words of a name in snake or camel case, in lower case."""
    found = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+", name)
    return [word.lower() for word in found]


def defined_names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Each name that a source defines, not those that it uses: others' are theirs."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr
        elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
            yield node.lineno, node.name
        elif isinstance(node, ast.alias) and node.asname:
            yield node.lineno, node.asname


def banned_names(source: str) -> list[str]:
    found = {
        (line, name)
        for line, name in defined_names(ast.parse(source))
        if not BANNED.isdisjoint(words_of(name))
    }
    return [f"line {line}: {name}" for line, name in sorted(found)]


def public_classes(source: str) -> set[str]:
    tree = ast.parse(source)
    names = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    return {name for name in names if not name.startswith("_")}


def repeated(pairs: Iterable[tuple[str, str]], allowed: Iterable[str]) -> list[str]:
    """Names that stand in two places without leave, and those whose leave is out of date."""
    places = defaultdict(set)
    for name, where in pairs:
        places[name].add(where)
    found = {name for name, there in places.items() if len(there) > 1}
    return [
        *(f"{name}: {', '.join(sorted(places[name]))}" for name in sorted(found - set(allowed))),
        *(f"{name}: allowed twice, there once" for name in sorted(set(allowed) - found)),
    ]


def in_source(rule: Iterable[tuple[Path, list[str]]]) -> list[str]:
    return [f"{path.relative_to(ROOT)}: {one}" for path, found in rule for one in found]


def listed(offenders: list[str]) -> str:
    return "\n".join([f"{len(offenders)}:", *offenders])


# What holds for the tree.


def test_every_layer_has_a_rule() -> None:
    layers = {layer_of(module_of(path)) for path in FILES}
    assert layers == set(MAY_IMPORT)


def test_imports_point_one_way() -> None:
    offenders = in_source(
        (path, forbidden_imports(layer_of(module_of(path)), path.read_text())) for path in FILES
    )
    assert not offenders, listed(offenders)


def test_imports_inside_functions_are_marked() -> None:
    offenders = in_source(
        (path, [f"line {line}" for line in unmarked_imports(path.read_text())]) for path in FILES
    )
    assert not offenders, listed(offenders)


def test_files_and_functions_are_short() -> None:
    offenders = in_source(
        (path, too_long(path.read_text(), is_command="cli" in path.parts))
        for folder in ("src", "tests", "bench", "examples")
        for path in sorted((ROOT / folder).rglob("*.py"))
        if "node_modules" not in path.parts
    )
    assert not offenders, listed(offenders)


def test_files_are_few_and_none_is_a_fragment() -> None:
    short = [
        f"{path.relative_to(ROOT)}: {lines} lines"
        for path in FILES
        if path.name != "__init__.py"
        and (lines := len(path.read_text().splitlines())) < MIN_FILE_LINES
    ]
    assert not short, listed(short)
    assert len(FILES) <= MAX_FILES


def test_names_are_plain() -> None:
    offenders = in_source((path, banned_names(path.read_text())) for path in FILES)
    offenders += [
        str(path.relative_to(ROOT))
        for path in sorted(PACKAGE.rglob("*"))
        if "__pycache__" not in path.parts and not BANNED.isdisjoint(words_of(path.stem))
    ]
    assert not offenders, listed(offenders)


def test_a_class_name_means_one_thing() -> None:
    pairs = [(name, module_of(path)) for path in FILES for name in public_classes(path.read_text())]
    offenders = repeated(pairs, SAME_CLASS)
    assert not offenders, listed(offenders)


def test_a_file_name_means_one_thing() -> None:
    pairs = [(path.name, module_of(path)) for path in FILES if path.name != "__init__.py"]
    offenders = repeated(pairs, SAME_FILE)
    assert not offenders, listed(offenders)


def test_public_names_are_pinned() -> None:
    assert set(antiphon.__all__) == PUBLIC
    assert all(getattr(antiphon, name) is not None for name in PUBLIC)


def test_what_is_required_is_what_is_imported() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    lines = project["dependencies"] + [
        line for name, some in extras.items() if name != "all" for line in some
    ]
    required = {re.split(r"[<>=; \[]", line)[0].replace("-", "_") for line in lines}
    required = {{"python_dotenv": "dotenv"}.get(name, name) for name in required}
    imported = {
        name.split(".")[0] for path in FILES for _, name in imports(ast.parse(path.read_text()))
    }
    assert required - imported == {"httptools", "websockets"}, "uvicorn loads them by name"
    # The last is in the standard library from Python 3.14 on.
    others = imported - required - sys.stdlib_module_names - {"antiphon", "annotationlib"}
    #: What the required packages bring along, and ours is written against.
    brought = {
        "PIL": "an image that a caller hands over, looked at where it is installed",
        "google": "xai-sdk",
        "grpc": "xai-sdk",
        "mcp_types": "mcp",
        "pydantic_core": "pydantic",
        "referencing": "jsonschema",
        "sse_starlette": "mcp",
        "typing_extensions": "pydantic, for types that only a checker reads",
        "yarl": "aiohttp",
    }
    assert others == set(brought)


def test_no_key_and_no_home_is_in_the_checkout() -> None:
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if tracked.returncode != 0:
        pytest.skip("not a git checkout")
    secret = re.compile(
        rb"\b(?:xai|sk|hf|ghp)[-_][A-Za-z0-9]{24,}|/(?:home|Users)/\w+/|BEGIN \w+ PRIVATE"
    )
    files = [ROOT / name.decode() for name in tracked.stdout.split(b"\0") if name]
    offenders = [str(path) for path in files if path.is_file() and secret.search(path.read_bytes())]
    assert not offenders, listed(offenders)


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


def test_the_rule_for_imports_catches_what_it_is_for() -> None:
    for layer, source in [
        ("core", "from antiphon.turn.protocols import Store"),
        ("core", "from antiphon.protos import xai"),
        ("core", "from google.protobuf import descriptor_pb2"),
        ("core", "import grpc"),
        ("stores", "import antiphon.models.openai.sse"),
        ("stores", "from antiphon.tools import toolbox"),
        ("models", "from antiphon.turn import service"),
        ("models", "from antiphon.protos import xai"),
        ("models", "from antiphon.stores.full_text import Query"),
        ("tools", "from antiphon.models.retry import RetryPolicy"),
        ("api.grpc", "from antiphon.api.http.middleware import GatewayMiddleware"),
        ("api.mcp", "import antiphon.api.http"),
        ("api.common", "from antiphon.api.http import app"),
        ("api.http", "from antiphon.bootstrap import open_engine"),
        ("turn", "from antiphon import Conversation"),
    ]:
        assert forbidden_imports(layer, source), (layer, source)
    for layer, source in [
        ("stores", "from antiphon.turn.protocols import Store\nimport json"),
        ("models.xai", "from antiphon.protos import xai\nimport grpc"),
        ("api.grpc", "from antiphon.api.common.rate_limits import RateLimiter"),
        ("core", "import googleapis_of_ours, mcpx"),
    ]:
        assert not forbidden_imports(layer, source), (layer, source)
    assert layer_of("models.xai.model") == "models.xai"
    assert layer_of("models.xaix") == "models"
    assert layer_of("api.grpc.server") == "api.grpc"


def test_the_rule_for_marks_catches_what_it_is_for() -> None:
    assert unmarked_imports("def f():\n    import json") == [2]
    assert not unmarked_imports(f"def f():\n    import json  {MARK}\nimport os")


def test_the_rule_for_lengths_catches_what_it_is_for() -> None:
    body = "    pass\n" * MAX_FUNCTION_LINES
    assert too_long("def f():\n" + body) == [f"f: {MAX_FUNCTION_LINES + 1} lines"]
    assert not too_long("def f(\n    a,\n):\n" + body, is_command=True)
    assert too_long("\n" * (MAX_FILE_LINES + 1)) == [f"{MAX_FILE_LINES + 1} lines"]
    assert not too_long("\n" * MAX_FILE_LINES)


def test_the_rule_for_names_catches_what_it_is_for() -> None:
    for source in [
        "class Door: ...",
        "class LlamaDoor2: ...",
        "def on_kept(): ...",
        "def f(*, wasTold): ...",
        "SHELF_LIFE = 1",
        "self._veil = 1",
        "x: int\nfor lent in x: pass",
        "import a as keyring",
        "try: pass\nexcept E as fault: pass",
    ]:
        assert banned_names(source), source
    for source in [
        "background = keyboard = outdoor = default = placeholder = 1",
        "def replace(foretold, wishlist): ...",
        "class HTTPDoorstep: ...",
        "print(door.ground)",
    ]:
        assert not banned_names(source), source
    assert words_of("HTTPDoor_v2IsKept") == ["http", "door", "v", "2", "is", "kept"]


def test_the_rule_for_repeated_names_catches_what_it_is_for() -> None:
    classes = public_classes("class A: ...\nclass _B: ...\ndef f():\n    class C: ...")
    assert classes == {"A"}
    pairs = [("A", "x"), ("A", "y"), ("B", "x"), ("C", "x"), ("C", "z")]
    assert repeated(pairs, {"C"}) == ["A: x, y"]
    assert repeated(pairs, {"A", "B", "C"}) == ["B: allowed twice, there once"]


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
