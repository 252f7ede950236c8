"""Structure rules: direction of imports, lengths, plain names and repeated names. Pure."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src"
PACKAGE = SOURCE / "antiphon"
FILES = sorted(PACKAGE.rglob("*.py"))

MAX_FILES = 470
MIN_FILE_LINES = 25
MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 60
MARK = "# loaded on first use"

#: The turn's side that interfaces may see.
SERVICE = {
    "antiphon.turn.service",
    "antiphon.turn.conversations",
    "antiphon.turn.chats",
    "antiphon.turn.chat_protocols",
    "antiphon.turn.feed_protocols",
    "antiphon.turn.node_protocols",
    "antiphon.turn.search_protocols",
    "antiphon.turn.other_nodes",
    "antiphon.turn.shares",
    "antiphon.turn.transfer_protocols",
    "antiphon.turn.turn_reader",
    "antiphon.turn.usage_groups",
    "antiphon.turn.running_turns",
    "antiphon.turn.replay",
    "antiphon.turn.history_cache.UnstoredHistory",
    "antiphon.turn.protocols",
    "antiphon.turn.store_protocols",
}
PROTOCOLS = {
    "antiphon.turn.feed_protocols",
    "antiphon.turn.node_protocols",
    "antiphon.turn.search_protocols",
    "antiphon.turn.protocols",
    "antiphon.turn.store_protocols",
    "antiphon.turn.chat_protocols",
    "antiphon.turn.transfer_protocols",
    "antiphon.turn.copy_protocols",
}
CORE = {"antiphon.core", "antiphon.errors"}
TRANSFER = {"antiphon.transfer"}
API = (
    CORE
    | SERVICE
    | TRANSFER
    | {"antiphon.logging_setup", "antiphon.threads", "antiphon.api.common"}
)
#: What each layer may import of ours, besides itself: modules, or packages with all they hold.
#: The longest name that a module's begins with is its layer.
MAY_IMPORT: dict[str, set[str]] = {
    "core": {"antiphon.errors"},
    "errors": set(),
    "blocking_portal": {"antiphon.threads"},
    "logging_setup": set(),
    "threads": set(),
    "image_files": CORE,
    "protos": CORE,
    "settings": CORE,
    "turn": CORE,
    "stores": CORE | PROTOCOLS | {"antiphon.threads"},
    "models": CORE | PROTOCOLS,
    "models.xai": CORE | PROTOCOLS | {"antiphon.models", "antiphon.protos"},
    "tools": CORE | PROTOCOLS,
    # Its formats are pure; its import and export use a store.
    "transfer": CORE
    | SERVICE
    | {"antiphon.turn.message_rendering", "antiphon.turn.copy_protocols"},
    "api": set(),
    "api.common": CORE | SERVICE | {"antiphon.logging_setup"},
    # MCP over HTTP is a route of its application.
    "api.http": API | {"antiphon.api.mcp.streamable_http"},
    "api.grpc": API | {"antiphon.protos"},
    "api.mcp": API | {"antiphon.image_files"},
    "chat": CORE
    | SERVICE
    | {
        "antiphon.settings",
        "antiphon.blocking_portal",
        "antiphon.bootstrap",
        "antiphon.image_files",
        "antiphon.tools",
        "antiphon.transfer",
    },
    "compat": CORE | {"antiphon.chat", "antiphon.settings", "antiphon.protos"},
    "cli": CORE
    | SERVICE
    | {
        "antiphon.settings",
        "antiphon.logging_setup",
        "antiphon.bootstrap",
        "antiphon.transfer",
        "antiphon.chat.images",
        "antiphon.tools",
        "antiphon.models.llama.model_download",
        "antiphon.__version__",
    },
    "configured_models": CORE | PROTOCOLS | {"antiphon.settings", "antiphon.models"},
    "bootstrap": CORE
    | SERVICE
    | {"antiphon.settings", "antiphon.stores", "antiphon.models", "antiphon.tools", "antiphon.api"}
    | {
        "antiphon.configured_models",
        "antiphon.turn.chat_titler",
        "antiphon.turn.copy_protocols",
        "antiphon.turn.handover",
    },
    "__init__": CORE | SERVICE | {"antiphon.chat", "antiphon.settings", "antiphon.tools"},
    "__main__": {"antiphon.cli.main"},
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
    "chats.py": "chats: the service, the stores, the endpoints",
    "connection.py": "one connection, which is opened, checked and closed: to a file, to a server",
    "conversations.py": "conversations: the service, the stores, the endpoints, the command",
    "errors.py": "errors of a layer as errors of ours",
    "health.py": "whether requests can be answered: the endpoints, and what a store says of itself",
    "idempotency.py": "the Idempotency-Key: its record, and the header",
    "images.py": "images in messages: checked, and loaded",
    "legacy_chat.py": "the first Chat SDK: its messages, and its service",
    "nodes.py": "the nodes of a store: the registries, and the command",
    "model.py": "a provider's implementation of the model protocol",
    "options.py": "options that several entry points take",
    "responses.py": "the Responses API: served, and called",
    "shares.py": "shared links: the service, the stores, the endpoints",
    "server.py": "a server that listens until it is told to stop",
    "turn_execution.py": "one turn run to its end for a caller",
    "turns.py": "turns: what one is, and where they are stored",
}


@cache
def nodes_of(source: str) -> list[ast.AST]:
    """All nodes of a file's syntax tree, the file's own first, which several rules look at."""
    return list(ast.walk(ast.parse(source)))


def module_of(path: Path) -> str:
    """A file's module within the package: ``api.http.app``, ``errors``, ``__init__``."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def concept_of(module: str) -> str:
    """A module, the same for all stores: the parts of each have the same names."""
    return re.sub(r"^stores\.(memory|sqlite|postgres)\.", "stores.", module)


def layer_of(module: str) -> str:
    names = [name for name in MAY_IMPORT if within(module, {name})]
    return max(names, key=len) if names else module.split(".", maxsplit=1)[0]


def imports(source: str) -> Iterator[tuple[int, str]]:
    """Each name that is imported, whole, with its line."""
    for node in nodes_of(source):
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
        for line, imported in imports(source)
        if (within(imported, {"antiphon"}) and not within(imported, allowed))
        or (layer == "core" and within(imported, VENDORS))
    ]


def unmarked_imports(source: str) -> list[int]:
    """The lines of imports inside functions that do not carry the mark."""
    lines = source.splitlines()
    return [
        node.lineno
        for function in nodes_of(source)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom) and MARK not in lines[node.lineno - 1]
    ]


def too_long(source: str, *, is_command: bool = False) -> list[str]:
    found = []
    if (lines := len(source.splitlines())) > MAX_FILE_LINES:
        found.append(f"{lines} lines")
    for node in nodes_of(source):
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


def defined_names(source: str) -> Iterator[tuple[int, str]]:
    """Each name that a source defines, not those that it uses: others' are theirs."""
    for node in nodes_of(source):
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
        for line, name in defined_names(source)
        if not BANNED.isdisjoint(words_of(name))
    }
    return [f"line {line}: {name}" for line, name in sorted(found)]


def public_classes(source: str) -> set[str]:
    file = nodes_of(source)[0]
    assert isinstance(file, ast.Module)
    names = {node.name for node in file.body if isinstance(node, ast.ClassDef)}
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
