"""Tools and the choice among them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from openai.types.responses import Tool, ToolChoiceAllowed, ToolChoiceFunction, ToolChoiceMcp
from openai.types.responses.tool_choice_options import ToolChoiceOptions
from pydantic import TypeAdapter

from antiphon.api.common.tool_bodies import choice_body, tool_bodies
from antiphon.api.http.responses_codec import decode_request
from antiphon.core.mcp_servers import McpServerRequest
from antiphon.core.secrets import Secret
from antiphon.core.turns import FunctionTool, McpTool, Options, TurnRequest
from antiphon.errors import InvalidRequestError
from support.api_strategies import options, plain

F = {"type": "function", "name": "f"}
FILES = {"type": "mcp", "server_label": "files", "server_url": "https://example.com/mcp"}


def decoded(*tools: Any, choice: Any = None) -> TurnRequest:
    body = {"input": "Hi", "tools": tools, "tool_choice": choice}
    return decode_request(json.dumps(body).encode())


def refused(*tools: Any, choice: Any = None) -> InvalidRequestError:
    with pytest.raises(InvalidRequestError) as caught:
        decoded(*tools, choice=choice)
    return caught.value


def test_functions_and_servers() -> None:
    request = decoded({**F, "description": "It does.", "strict": True}, FILES)
    assert request.options.tools == (FunctionTool("f", "It does.", None, True),)
    assert request.options.mcp_servers == (McpTool("files", "https://example.com/<redacted>"),)
    url = Secret("https://example.com/mcp")
    assert request.mcp == (McpServerRequest(label="files", param="tools[1]", url=url),)


def test_what_a_server_is_reached_with_is_not_kept() -> None:
    request = decoded(
        {
            **FILES,
            "server_url": "http://me:pass@[::1]:8000/k3y?key=k3y",
            "headers": {"X-Key": "k3y"},
            "authorization": "t0ken",
            "server_description": "My files.",
        }
    )
    assert request.mcp[0].headers == {
        "X-Key": Secret("k3y"),
        "Authorization": Secret("Bearer t0ken"),
    }
    assert request.options.mcp_servers == (
        McpTool("files", "http://[::1]:8000/<redacted>", "My files."),
    )
    shown = json.dumps(tool_bodies(request.options)) + repr(request)
    assert not any(secret in shown for secret in ("k3y", "t0ken", "pass"))


@pytest.mark.parametrize(
    ("given", "require", "exempt"),
    [
        (None, None, ()),
        ("always", "always", ()),
        ("never", "never", ()),
        ({"always": {"tool_names": ["a", "b"]}}, ("a", "b"), ()),
        ({"never": {"tool_names": ["a"]}}, None, ("a",)),
        ({"always": {"tool_names": []}, "never": {"tool_names": ["a"]}}, (), ("a",)),
        ({}, None, ()),
    ],
)
def test_which_calls_wait_for_a_person(given: Any, require: Any, exempt: tuple[str, ...]) -> None:
    request = decoded({**FILES, "require_approval": given})
    assert (request.mcp[0].require_approval, request.mcp[0].exempt) == (require, exempt)
    (kept,) = request.options.mcp_servers
    assert (kept.require_approval, kept.exempt) == (
        "always" if require is None else require,
        exempt,
    )


def test_which_tools_of_a_server_there_are() -> None:
    for some in (["a", "b"], {"tool_names": ["a", "b"]}):
        request = decoded({**FILES, "allowed_tools": some})
        assert request.mcp[0].allowed_tools == ("a", "b")
        assert request.options.mcp_servers[0].allowed_tools == ("a", "b")
    assert decoded({**FILES, "allowed_tools": {}}).mcp[0].allowed_tools is None


@pytest.mark.parametrize(
    ("tool", "param"),
    [
        ({"type": "functions", "name": "f", "parameters": {}}, "type"),
        ({"type": ""}, "type"),
        ({"type": 1}, "type"),
        ({}, "name"),
        ({"type": "function"}, "name"),
        ({"type": "function", "name": ""}, "name"),
        ({"type": "function", "name": "a b"}, "name"),
        ({"type": "function", "name": "a" * 129}, "name"),
        ({**F, "parameters": 1}, "parameters"),
        ({"type": "mcp"}, "server_label"),
        ({"type": "mcp", "server_label": "a/b"}, "server_label"),
        ({**FILES, "server_url": 1}, "server_url"),
        ({**FILES, "server_url": "file:///etc/passwd"}, "server_url"),
        ({**FILES, "server_url": "http://["}, "server_url"),
        ({**FILES, "server_url": "http://a:99999"}, "server_url"),
        ({**FILES, "allowed_tools": [1]}, "allowed_tools[0]"),
        ({**FILES, "allowed_tools": {"read_only": True}}, "allowed_tools.read_only"),
        ({**FILES, "require_approval": "maybe"}, "require_approval"),
        (
            {**FILES, "require_approval": {"never": {"read_only": True}}},
            "require_approval.never.read_only",
        ),
        ({**FILES, "connector_id": "connector_gmail"}, "connector_id"),
        ({**FILES, "tunnel_id": "t"}, "tunnel_id"),
        ({**FILES, "headers": {"A\r\nB": "x"}}, "headers"),
        ({**FILES, "headers": {"A": "x\ny"}}, "headers"),
        ({**FILES, "headers": {"": "x"}}, "headers"),
        ({**FILES, "headers": {"authorization": "a"}, "authorization": "b"}, "authorization"),
    ],
)
def test_the_field_at_fault_is_named(tool: Any, param: str) -> None:
    other = {"type": "function", "name": "other"}
    assert refused(other, tool).param == f"tools[1].{param}"


def test_two_tools_of_one_name() -> None:
    assert refused(F, FILES, {**F, "description": "Another."}).param == "tools[2]"
    assert len(decoded(F, FILES, F).options.tools) == 1
    assert refused(F, {**FILES, "server_label": "f"}).param == "tools[1]"
    # A model could not tell these two apart.
    assert refused({**F, "name": "files__read"}, FILES).param == "tools[0].name"
    decoded({**F, "name": "files_read"}, {**F, "name": "x__read"}, FILES)


@pytest.mark.parametrize(
    ("choice", "kept", "allowed"),
    [
        (None, "auto", None),
        ("none", "none", None),
        ("required", "required", None),
        ({"type": "function", "name": "f"}, "function:f", None),
        ({"type": "mcp", "server_label": "files", "name": "read"}, "function:files__read", None),
        ({"type": "mcp", "server_label": "files"}, "required", ("files__*",)),
        ({"type": "allowed_tools", "tools": [F]}, "auto", ("f",)),
        (
            {
                "type": "allowed_tools",
                "mode": "required",
                "tools": [
                    F,
                    {"type": "mcp", "server_label": "files", "name": "read"},
                    {"type": "mcp", "server_label": "files"},
                    F,
                ],
            },
            "required",
            ("f", "files__read", "files__*"),
        ),
    ],
)
def test_a_choice(choice: Any, kept: str, allowed: tuple[str, ...] | None) -> None:
    options = decoded(F, FILES, choice=choice).options
    assert (options.tool_choice, options.allowed_tools) == (kept, allowed)
    # What was chosen is shown as it was sent, but for what is the default or comes twice.
    again = decoded(F, FILES, choice=plain(choice_body(options))).options
    assert again == options
    if isinstance(choice, dict) and choice["type"] != "allowed_tools":
        assert choice_body(options) == choice


@pytest.mark.parametrize(
    ("choice", "param"),
    [
        ("sometimes", "tool_choice"),
        ({"type": "function", "name": ""}, "tool_choice.name"),
        ({"type": "function", "name": "g"}, "tool_choice.name"),
        ({"type": "mcp", "server_label": "mail"}, "tool_choice.server_label"),
        ({"type": "web_search"}, "tool_choice.type"),
        ({"type": "allowed_tools"}, "tool_choice.tools"),
        ({"type": "allowed_tools", "tools": []}, "tool_choice.tools"),
        ({"type": "allowed_tools", "tools": [F], "mode": "x"}, "tool_choice.mode"),
        (
            {"type": "allowed_tools", "tools": [F, {"type": "function", "name": "g"}]},
            "tool_choice.tools[1].name",
        ),
    ],
)
def test_a_choice_that_cannot_be(choice: Any, param: str) -> None:
    assert refused(F, FILES, choice=choice).param == param


def test_a_choice_without_tools() -> None:
    assert refused(choice=F).param == "tool_choice.name"
    assert refused(choice="required").param == "tool_choice"
    assert decoded(choice="none").options.tool_choice == "none"


def test_how_tools_are_shown() -> None:
    parameters = {"type": "object"}
    request = decoded(
        {**F, "parameters": parameters},
        {
            **FILES,
            "allowed_tools": ["read"],
            "require_approval": {
                "always": {"tool_names": ["read"]},
                "never": {"tool_names": ["stat"]},
            },
        },
        {"type": "mcp", "server_label": "mail", "require_approval": "never"},
    )
    assert tool_bodies(request.options) == [
        {
            "type": "function",
            "name": "f",
            "description": None,
            "parameters": parameters,
            "strict": None,
        },
        {
            "type": "mcp",
            "server_label": "files",
            "server_url": "https://example.com/<redacted>",
            "server_description": None,
            "allowed_tools": ["read"],
            "require_approval": {
                "always": {"tool_names": ["read"]},
                "never": {"tool_names": ["stat"]},
            },
        },
        {
            "type": "mcp",
            "server_label": "mail",
            "server_url": None,
            "server_description": None,
            "allowed_tools": None,
            "require_approval": "never",
        },
    ]


TOOLS: TypeAdapter[list[Tool]] = TypeAdapter(list[Tool])
CHOICE: TypeAdapter[Any] = TypeAdapter(
    ToolChoiceOptions | ToolChoiceAllowed | ToolChoiceFunction | ToolChoiceMcp
)


@settings(deadline=None)
@given(options)
def test_the_official_client_knows_what_is_shown(options: Options) -> None:
    TOOLS.validate_python(plain(tool_bodies(options)))
    CHOICE.validate_python(plain(choice_body(options)))
