"""The structure rules themselves: each catches what it is for."""

from __future__ import annotations

from support.structure_rules import (
    MARK,
    MAX_FILE_LINES,
    MAX_FUNCTION_LINES,
    banned_names,
    forbidden_imports,
    layer_of,
    public_classes,
    repeated,
    too_long,
    tree_of,
    unmarked_imports,
    words_of,
)


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
        ("models", "from antiphon.stores.search_tokenizer import Query"),
        ("tools", "from antiphon.models.retry import RetryPolicy"),
        ("api.grpc", "from antiphon.api.http.middleware import RequestMiddleware"),
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
