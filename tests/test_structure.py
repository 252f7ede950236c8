"""The project's shape: who imports whom, how long things are and how named, what is public."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator

import pytest

import antiphon
from support.structure_rules import (
    BANNED,
    FILES,
    MAX_FILES,
    MAY_IMPORT,
    MIN_FILE_LINES,
    PACKAGE,
    ROOT,
    SAME_CLASS,
    SAME_FILE,
    SOURCE,
    banned_names,
    concept_of,
    forbidden_imports,
    imports,
    in_source,
    layer_of,
    listed,
    module_of,
    nodes_of,
    public_classes,
    repeated,
    too_long,
    tree_of,
    unmarked_imports,
    words_of,
)

PUBLIC = {
    "AntiphonError",
    "AsyncConversation",
    "AsyncStream",
    "ChatOptions",
    "ChatRecord",
    "Compaction",
    "ConfigError",
    "ConflictError",
    "ContextLengthExceededError",
    "Conversation",
    "ConversationLockedError",
    "ConversationUsage",
    "ErasedItem",
    "ForeignItem",
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
    "SearchHit",
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


@pytest.fixture(scope="module", autouse=True)
def syntax_trees() -> Iterator[None]:
    """Lets the syntax trees go with the last of these tests: they are many objects."""
    yield
    nodes_of.cache_clear()


# The rules. Each takes source, so that what it catches can be shown below.


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
        if path.name not in {"__init__.py", "__main__.py"}
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
    pairs = [
        (name, concept_of(module_of(path)))
        for path in FILES
        for name in public_classes(path.read_text())
    ]
    offenders = repeated(pairs, SAME_CLASS)
    assert not offenders, listed(offenders)


def test_a_file_name_means_one_thing() -> None:
    pairs = [
        (path.name, concept_of(module_of(path))) for path in FILES if path.name != "__init__.py"
    ]
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
    module_names = {
        "python_dotenv": "dotenv",
        "backports.zstd": "backports",
        "markdown_it_py": "markdown_it",
    }
    required = {module_names.get(name, name) for name in required}
    imported = {name.split(".")[0] for path in FILES for _, name in imports(path.read_text())}
    assert required - imported == set()
    # In the standard library from Python 3.14 on.
    newer = {"annotationlib", "compression"}
    others = imported - required - sys.stdlib_module_names - {"antiphon", *newer}
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
        "multidict": "aiohttp",
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
