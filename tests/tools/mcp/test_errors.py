"""What a server says is cleaned before anyone reads it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from antiphon.core.mcp_servers import McpServerConfig
from antiphon.core.secrets import Secret
from antiphon.tools.mcp.errors import SecretRedactor

VEIL = SecretRedactor(
    McpServerConfig(
        label="wiki",
        url=Secret("https://a.example/mcp?token=query-key-123&x=1"),
        headers={"Authorization": Secret("Bearer header-key-123"), "X": Secret("short")},
        env={"TOKEN": Secret("env-key-123")},
    )
)


def test_what_it_is_reached_with_is_hidden() -> None:
    said = "Bearer header-key-123, header-key-123, query-key-123, env-key-123, short"
    assert VEIL.redact(said) == "[hidden], [hidden], [hidden], [hidden], short"
    assert VEIL.redact("https://a.example/mcp?token=query-key-123&x=1") == "[hidden]"


@given(st.text())
def test_what_no_text_has_is_replaced(text: str) -> None:
    cleaned = SecretRedactor(McpServerConfig(label="a")).redact(text)
    assert len(cleaned) == len(text)
    assert all(one >= " " or one in "\t\n\r" for one in cleaned)
    assert not any("\x7f" <= one <= "\x9f" for one in cleaned)


def test_half_a_character_is_replaced() -> None:
    assert VEIL.redact("a\ud800b") == "a\ufffdb"
