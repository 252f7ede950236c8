"""MCP error texts: secrets are redacted, and invalid characters replaced."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from antiphon.core.mcp_servers import McpServerConfig
from antiphon.core.secrets import Secret
from antiphon.tools.mcp.errors import SecretRedactor

REDACTOR = SecretRedactor(
    McpServerConfig(
        label="wiki",
        url=Secret("https://a.example/mcp?token=query-key-123&x=1"),
        headers={"Authorization": Secret("Bearer header-key-123"), "X": Secret("short")},
        env={"TOKEN": Secret("env-key-123")},
    )
)


def test_secrets_of_the_server_config_are_redacted() -> None:
    text = "Bearer header-key-123, header-key-123, query-key-123, env-key-123, short"
    assert REDACTOR.redact(text) == "[hidden], [hidden], [hidden], [hidden], short"
    assert REDACTOR.redact("https://a.example/mcp?token=query-key-123&x=1") == "[hidden]"


@given(st.text())
def test_control_characters_are_replaced(text: str) -> None:
    cleaned = SecretRedactor(McpServerConfig(label="a")).redact(text)
    assert len(cleaned) == len(text)
    assert all(one >= " " or one in "\t\n\r" for one in cleaned)
    assert not any("\x7f" <= one <= "\x9f" for one in cleaned)


def test_lone_surrogate_is_replaced() -> None:
    assert REDACTOR.redact("a\ud800b") == "a\ufffdb"
